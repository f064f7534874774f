# SPDX-License-Identifier: Apache-2.0
"""Kills daemons, workers and clients at random, while readers of every kind compare each batch with what it must be.

    PYTHONPATH=build/python STOKERD=build/bin/stokerd python tests/python/chaos.py [--seconds 60] [--seed N]

`make chaos` does that. The crash table of server/DESIGN.md is tested row by row elsewhere; here it is about what the rows
do to one another. At the end every reader must have read on, no session be left, the daemon exit with 0, and its segments
be gone. Prints what it did, and the seed, which gives the same order of blows though not the same moments.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import stoker

SAMPLES = Path(__file__).parents[2] / "deploy" / "samples"
EPOCHS = 12
ONE = {"rank": 0, "world_size": 1}

# What each kind of reader opens.
KINDS = {
    "images": ("series", stoker.gaf(dtype="u8"), {"batch_size": 16, **ONE}),
    "crystals": ("crystals", stoker.graph(), {"batch_size": 4, **ONE}),
    "budget": ("crystals", stoker.graph(), {"budget": {"nodes": 64}, **ONE}),
    "rank": ("crystals", stoker.graph(), {"budget": {"nodes": 64}, "rank": 1, "world_size": 3}),
    "inline": ("crystals", stoker.graph(), {"batch_size": 4, "transport": "inline", **ONE}),
    "device": ("crystals", stoker.graph(), {"batch_size": 4, **ONE}),
    "device_budget": ("crystals", stoker.graph(), {"budget": {"nodes": 64}, **ONE}),
}


# ---- readers ----


def digest(batch) -> int:
    crc = 0
    for name in batch:
        tensor = batch[name]
        array = tensor if isinstance(tensor, np.ndarray) else np.from_dlpack(tensor)
        crc = zlib.crc32(np.ascontiguousarray(array).tobytes(), crc)
    return crc


def open_loader(kind: str, client: stoker.Client) -> stoker.Loader:
    dataset, recipe, options = KINDS[kind]
    loader = stoker.Loader(dataset, recipe, client=client, shuffle=True, seed=3, **options)
    return loader.to("host", share=True) if kind.startswith("device") else loader


def write_reference(kind: str, client: stoker.Client, path: Path) -> None:
    digests = []
    with open_loader(kind, client) as loader:
        for _ in range(EPOCHS):
            digests.append([digest(batch) for batch in loader])
    path.write_text(json.dumps(digests))


def read(kind: str, address: str, reference: Path, seconds: float, seed: int) -> None:
    """Opens, reads some epochs, closes, again and again. Only to open may find no daemon."""
    expected = json.loads(reference.read_text())
    choose = random.Random(seed)
    batches = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            loader = open_loader(kind, stoker.connect(address))
        except stoker.Unavailable:
            time.sleep(0.05)
            continue
        try:
            for _ in range(choose.randint(1, 6)):
                batches += read_epoch(loader, choose.randrange(EPOCHS), expected, choose)
        except stoker.InternalError as error:
            if "3 workers died of it" not in str(error):  # as blows may have it, three times the same sample
                raise
        loader.close()
    print(json.dumps({"kind": kind, "batches": batches}))


def read_epoch(loader: stoker.Loader, epoch: int, expected: list[list[int]], choose: random.Random) -> int:
    """All of it, or the first batch. How many batches it read."""
    loader.set_epoch(epoch)
    leave_after = choose.choice([1, len(expected[epoch]), len(expected[epoch])])
    for step, batch in enumerate(loader):
        if digest(batch) != expected[epoch][step]:
            raise SystemExit(f"batch {epoch}:{step} is not what it must be")
        if choose.random() < 0.02:
            time.sleep(choose.random() / 10)
        if step + 1 == leave_after:
            break
    return leave_after


class Reader:
    def __init__(self, kind: str, address: str, folder: Path, seconds: float, seed: int) -> None:
        self.kind = kind
        words = ["--reader", kind, "--address", address, "--reference", str(folder / f"{kind}.json")]
        self.process = subprocess.Popen(
            [sys.executable, __file__, *words, "--seconds", str(seconds), "--seed", str(seed)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def end(self, blow: int) -> None:
        """Kills it; it must not have ended by itself."""
        if self.process.poll() is not None:
            raise SystemExit(f"{self.kind}: a reader ended: {self.process.communicate()[0]}")
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(blow)
        self.process.wait(60)
        self.process.stdout.close()

    def batches(self) -> int:
        out = self.process.communicate(timeout=120)[0]
        if self.process.returncode != 0:
            raise SystemExit(f"{self.kind}: a reader failed: {out}")
        return json.loads(out.splitlines()[-1])["batches"]


# ---- blows ----


class Chaos:
    def __init__(self, folder: Path, segments: Path, seconds: float, seed: int) -> None:
        self.folder, self.segments, self.seconds = folder, segments, seconds
        self.address = str(folder / "s")
        self.choose = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.seed = seed
        self.readers: list[Reader] = []  # they are left alone
        self.victims: list[Reader] = []
        self.daemon = self.start_daemon()

    def start_daemon(self) -> subprocess.Popen[bytes]:
        options = {
            "--socket": self.address,
            "--cache-dir": self.folder / "cache",
            "--shm-dir": self.segments,
            "--root": SAMPLES,
            # Room for what all readers hold at once: who waits for a batch with another in hand waits for ever otherwise.
            "--arena-bytes": self.choose.choice(["96MiB", "256MiB"]),
            "--segment-bytes": self.choose.choice(["4MiB", "16MiB"]),
            "--workers": self.choose.choice([0, 1, 2, 2, 3]),
            "--part-deadline": 2,
            "--drain-deadline": self.choose.choice([0.1, 5]),
        }
        words = [str(word) for option in options.items() for word in option]
        with open(self.folder / "log", "ab") as log:
            return subprocess.Popen([os.environ["STOKERD"], *words], stderr=log)

    def client(self) -> stoker.Client:
        deadline = time.monotonic() + 30
        while True:
            try:
                client = stoker.connect(self.address)
                if client.health():
                    return client
            except stoker.Unavailable:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.02)

    def start_reader(self, kind: str) -> Reader:
        self.seed += 1
        return Reader(kind, self.address, self.folder, self.seconds, self.seed)

    def workers(self) -> list[int]:
        threads = Path(f"/proc/{self.daemon.pid}/task").glob("*/children")
        return [int(pid) for children in threads for pid in children.read_text().split()]

    def hit_worker(self) -> None:
        workers = self.workers()
        if workers:
            blow = self.choose.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP])
            os.kill(self.choose.choice(workers), blow)
            self.done[f"worker {blow.name}"] += 1

    def hit_client(self) -> None:
        if len(self.victims) < 4:
            self.victims.append(self.start_reader(self.choose.choice(list(KINDS))))
            self.done["client started"] += 1
            return
        victim = self.choose.choice(self.victims)
        blow = self.choose.choice([signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        if blow in (signal.SIGSTOP, signal.SIGCONT):
            victim.process.send_signal(blow)
        else:
            self.victims.remove(victim)
            victim.end(blow)
        self.done[f"client {blow.name}"] += 1

    def hit_daemon(self) -> None:
        blow = self.choose.choice([signal.SIGKILL, signal.SIGTERM])
        self.daemon.send_signal(blow)
        code = self.daemon.wait(60)
        if code not in (0, -signal.SIGKILL):
            raise SystemExit(f"the daemon ended with {code}")
        time.sleep(self.choose.choice([0, 0, 0.3]))
        self.daemon = self.start_daemon()
        self.done[f"daemon {blow.name}"] += 1

    def hit_lane(self) -> None:
        os.unlink(self.address + ".lane")
        self.done["lane removed"] += 1

    def run(self) -> dict[str, int]:
        client = self.client()
        client.ingest("series", SAMPLES / "air_handling_unit", window=96, stride=24, label_from_file_name=True)
        client.ingest("crystals", SAMPLES / "textbook_crystals" / "structures.json", target="density")
        for kind in KINDS:
            write_reference(kind, client, self.folder / f"{kind}.json")
        self.readers += [self.start_reader(kind) for kind in KINDS]
        end = time.monotonic() + self.seconds
        blows = [self.hit_worker] * 8 + [self.hit_client] * 10 + [self.hit_daemon] * 2 + [self.hit_lane]
        while time.monotonic() < end:
            time.sleep(self.choose.random() * 0.4)
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # who was to be hit had gone
                self.choose.choice(blows)()
        for victim in self.victims:
            victim.end(signal.SIGKILL)
        read = {reader.kind: reader.batches() for reader in self.readers}
        if min(read.values()) == 0:
            raise SystemExit(f"a reader has read nothing: {read}")
        self.check_end()
        return read

    def check_end(self) -> None:
        client = self.client()
        deadline = time.monotonic() + 30
        while client.status().sessions:
            if time.monotonic() > deadline:
                raise SystemExit(f"sessions are left: {client.status().sessions}")
            time.sleep(0.02)
        self.daemon.terminate()
        if self.daemon.wait(60) != 0:
            raise SystemExit(f"the daemon ended with {self.daemon.returncode}")
        left = os.listdir(self.segments)
        if left:
            raise SystemExit(f"segments are left: {left}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--reader", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    parser.add_argument("--reference", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.reader:
        return read(arguments.reader, arguments.address, arguments.reference, arguments.seconds, arguments.seed)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir="/dev/shm") as segments:
        chaos = Chaos(Path(folder), Path(segments), arguments.seconds, seed)
        try:
            read_batches = chaos.run()
        except BaseException:
            sys.stderr.write((Path(folder) / "log").read_text()[-4000:])
            raise
        finally:
            for reader in chaos.readers + chaos.victims:
                reader.process.kill()
            chaos.daemon.kill()
    print("blows:", json.dumps(chaos.done))
    print("batches read, all as they must be:", json.dumps(read_batches))


if __name__ == "__main__":
    main()
