# SPDX-License-Identifier: Apache-2.0
"""Data sets and daemons for the tests. Small numbers: what is tested is the client, not the images."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import stoker

SAMPLES = 50
CHANNELS = 2
POINTS = 16
SHARED = Path(__file__).parents[2].parent / "shared"


def series() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(SAMPLES, CHANNELS, POINTS))


def write_numbers(folder: Path) -> Path:
    path = folder / "numbers.npz"
    np.savez(path, x=series(), y=np.arange(SAMPLES) % 3)
    return path


def ingest_numbers(client: stoker.Client, folder: Path) -> None:
    client.ingest("numbers", write_numbers(folder), data_array="x", target_array="y", target="class")


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stoker.Embedded]:
    """One that has the data set `numbers`."""
    with stoker.embedded(arena_bytes="32MiB", workers=1) as started:
        ingest_numbers(started.client, tmp_path_factory.mktemp("data"))
        yield started


@pytest.fixture(scope="session")
def client(daemon: stoker.Embedded) -> stoker.Client:
    return daemon.client


@pytest.fixture
def loader(client: stoker.Client) -> Iterator[Callable[..., stoker.Loader]]:
    """Makes loaders of `numbers`, and closes them."""
    made: list[stoker.Loader] = []

    def make(recipe: dict | None = None, **options: object) -> stoker.Loader:
        defaults = {"batch_size": 8, "rank": 0, "world_size": 1, "client": client}
        made.append(stoker.Loader("numbers", recipe or stoker.gaf("gasf"), **{**defaults, **options}))
        return made[-1]

    yield make
    for each in made:
        each.close()


class Daemon:
    """A stokerd at a place of its own, that can be killed and started again."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.socket = folder / "s"
        self._command = [
            os.environ["STOKERD"],
            *("--socket", str(self.socket), "--cache-dir", str(folder / "cache"), "--root", str(folder)),
            *("--arena-bytes", "32MiB", "--workers", "1", *arguments),
        ]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            try:
                if stoker.connect(self.socket).health():
                    return
            except stoker.Unavailable:
                pass
            assert time.monotonic() < deadline and self.process.poll() is None, "stokerd does not serve"
            time.sleep(0.01)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.send_signal(signal.SIGCONT)  # a test may have failed while it was frozen
        self.process.wait()

    def freeze(self) -> None:
        """Returns when it is stopped; SIGCONT wakes it."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)


@pytest.fixture
def own_daemon(tmp_path: Path) -> Iterator[Daemon]:
    started = Daemon(tmp_path)
    ingest_numbers(stoker.connect(started.socket), tmp_path)
    yield started
    started.stop()


def run_python(code: str, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """A program of its own; it gets `sys.argv[1:]`. A program that hangs fails the test."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


def digest(batch: stoker.Batch) -> tuple[object, ...]:
    """All that a batch holds."""
    return (batch.epoch, batch.step, *((name, batch[name].tobytes()) for name in batch))
