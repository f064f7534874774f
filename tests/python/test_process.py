# SPDX-License-Identifier: Apache-2.0
"""Processes and threads: fork, spawn, pickle, signals, the end of the interpreter, sharing."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import stoker
from conftest import digest, run_python

# What programs of their own begin with; sys.argv[1] is the daemon's address.
OPEN = """
import os, sys, stoker
client = stoker.connect(sys.argv[1])
def open_loader(**options):
    return stoker.Loader("numbers", stoker.gaf("gasf"), client=client, batch_size=8, rank=0, world_size=1, **options)
"""


def read(loader):
    return [digest(batch) for batch in loader]


# ---- pickle and spawn ----


def test_a_pickled_loader_goes_on_where_it_was(loader):
    reader = loader(shuffle=True)
    iterator = iter(reader)
    next(iterator)
    next(iterator)
    copied = pickle.loads(pickle.dumps(reader))
    assert copied.position == (0, 2)
    assert read(copied) == read(iterator)
    assert len(read(copied)) == 7
    copied.close()


def send(reader, pipe):
    pipe.send(read(reader))
    pipe.close()


def test_a_spawned_process_gets_a_loader(loader):
    context = multiprocessing.get_context("spawn")
    reader = loader(shuffle=True)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=send, args=(reader, theirs))
    process.start()
    theirs.close()
    assert ours.poll(60)
    assert ours.recv() == read(reader)
    process.join(60)
    assert process.exitcode == 0


# ---- fork ----


def test_a_forked_child_goes_on_at_the_same_place_and_so_does_the_parent(daemon):
    code = OPEN + """
reader = open_loader(shuffle=True, seed=3)
iterator = iter(reader)
next(iterator)  # and let go of it
out, into = os.pipe()
if os.fork() == 0:
    os.write(into, repr([(b.epoch, b.step, b.index.tolist()) for b in iterator]).encode())
    os._exit(0)
os.close(into)
mine = [(b.epoch, b.step, b.index.tolist()) for b in iterator]
theirs = eval(os.fdopen(out).read())
assert theirs == mine and len(mine) == 6, (theirs, mine)
assert os.wait()[1] == 0
assert len(list(reader)) == 7
print(client.health(), "done")
"""
    done = run_python(code, daemon.address)
    assert (done.stdout, done.returncode) == ("True done\n", 0), done.stderr


def test_a_fork_leaves_the_segments_of_the_parent_mapped(daemon):
    code = OPEN + """
import pickle
def mapped():
    return [line.split()[0] for line in open("/proc/self/maps") if "/stoker." in line]
reader = open_loader()
other = open_loader(shuffle=True)
assert len(list(reader)) == 7 == len(list(other))
before = mapped()
assert len(set(before)) == len(before) > 0 and len(before) == len(client.status().arena.segments), before
if os.fork() == 0:
    assert not mapped(), mapped()
    assert len(list(reader)) == 7
    os._exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
assert mapped() == before
assert len(pickle.loads(pickle.dumps(reader))) == 7
assert len(list(reader)) == 7 and mapped() == before
reader.close()
other.close()
assert not mapped()
print("done")
"""
    done = run_python(code, daemon.address)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_children_of_a_pool_read_side_by_side(daemon):
    code = OPEN + """
import multiprocessing
reader = open_loader()
assert len(list(reader)) == 7
def work(rank):
    part = stoker.Loader("numbers", stoker.gaf("gasf"), client=client, batch_size=8, rank=rank, world_size=3)
    return [i for batch in part for i in batch.index.tolist()]
with multiprocessing.get_context("fork").Pool(3) as pool:
    print(sorted(sum(pool.map(work, range(3)), [])) == list(range(50)))
assert len(list(reader)) == 7
"""
    done = run_python(code, daemon.address)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


def test_a_child_forked_while_a_batch_was_held_is_told_and_the_parent_is_untouched(daemon):
    code = OPEN + """
reader = open_loader()
iterator = iter(reader)
held = next(iterator)
before = held.gasf.copy()
if os.fork() == 0:
    assert (held.gasf == before).all()  # memory is readable
    try:
        next(iterator)
        os._exit(1)
    except stoker.WrongState as error:
        os._exit(0 if "let go of all batches before the fork" in str(error) else 2)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
assert [b.step for b in iterator] == [1, 2, 3, 4, 5, 6]
assert (held.gasf == before).all()
print("done")
"""
    done = run_python(code, daemon.address)
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_a_child_that_ends_leaves_loaders_and_daemons_of_its_parent_alone():
    code = """
import os, stoker
daemon = stoker.embedded(arena_bytes="8MiB", workers=0)
client = daemon.client
pid = os.fork()
if pid == 0:
    raise SystemExit(0)  # with all of Python's end
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
print(client.health())
"""
    done = run_python(code)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


def test_subprocesses_do_not_disturb(loader):
    reader = loader()
    for batch in reader:
        assert subprocess.run([sys.executable, "-c", ""], check=True).returncode == 0
        batch.check()


# ---- signals and threads ----


def copied_crystals(folder):
    """Below the root of `own_daemon`."""
    source = Path(__file__).parents[2] / "deploy" / "samples" / "textbook_crystals" / "structures.json"
    return shutil.copy(source, folder)



@pytest.mark.parametrize("where", ["next", "open", "status", "set_epoch"])
def test_control_c_ends_a_wait(tmp_path, own_daemon, where):
    own_daemon_client = stoker.connect(own_daemon.socket)
    own_daemon_client.ingest("crystals", copied_crystals(tmp_path), target="density")
    code = OPEN + """
import signal
reader = open_loader(prefetch_factor=0)
# Under a budget the daemon is asked how long an epoch is.
planned = stoker.Loader("crystals", client=client, budget={"nodes": 40}, rank=0, world_size=1, open_timeout=600)
iterator = iter(reader)
os.kill(int(sys.argv[2]), signal.SIGSTOP)
tasks = f"/proc/{sys.argv[2]}/task"
while any(" T " not in open(f"{tasks}/{task}/stat").read() for task in os.listdir(tasks)):
    pass  # the kernel stops one thread, and that the others
try:
    print("waiting", flush=True)
    {"next": lambda: list(zip(range(100), iterator)), "open": lambda: open_loader(seed=9, shuffle=True),
     "status": client.status, "set_epoch": lambda: planned.set_epoch(3)}[sys.argv[3]]()
    print("went through")
except KeyboardInterrupt:
    print("interrupted", flush=True)
finally:
    os.kill(int(sys.argv[2]), signal.SIGCONT)
"""
    arguments = [str(own_daemon.socket), str(own_daemon.process.pid), where]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "waiting\n"
        for _ in range(600):  # the signal may come before the wait
            process.send_signal(signal.SIGINT)
            try:
                process.wait(0.1)
                break
            except subprocess.TimeoutExpired:
                pass
        assert process.stdout.read() == "interrupted\n"
    finally:
        own_daemon.process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        process.stdout.close()


def test_waits_leave_the_interpreter_to_other_threads(own_daemon):
    client = stoker.connect(own_daemon.socket)
    reader = stoker.Loader("numbers", client=client, batch_size=8, prefetch_factor=0, rank=0, world_size=1)
    iterator = iter(reader)
    own_daemon.freeze()
    got = []
    thread = threading.Thread(target=lambda: got.append(next(iterator)))
    thread.start()
    counted = 0
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        counted += 1
    assert thread.is_alive() and counted > 1000
    with pytest.raises(stoker.WrongState, match="another thread"):
        while True:
            reader._native.next(0.01)
    own_daemon.process.send_signal(signal.SIGCONT)
    thread.join(60)
    assert got[0].step == 0
    reader.close()


def test_a_timeout_is_a_timeout_and_the_batch_comes_later(own_daemon):
    client = stoker.connect(own_daemon.socket)
    reader = stoker.Loader("numbers", client=client, prefetch_factor=0, timeout=0.2, rank=0, world_size=1)
    iterator = iter(reader)
    own_daemon.freeze()
    with pytest.raises(stoker.Timeout) as caught:
        next(iterator)
    assert isinstance(caught.value, TimeoutError)
    own_daemon.process.send_signal(signal.SIGCONT)
    reader._timeout = 60.0
    assert next(iterator).step == 0
    reader.close()


def test_close_from_another_thread_wakes_a_wait(own_daemon):
    client = stoker.connect(own_daemon.socket)
    reader = stoker.Loader("numbers", client=client, prefetch_factor=0, rank=0, world_size=1)
    iterator = iter(reader)
    own_daemon.freeze()
    errors = []

    def wait():
        try:
            next(iterator)
        except stoker.Closed as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    reader.close()
    thread.join(60)
    own_daemon.process.send_signal(signal.SIGCONT)
    assert len(errors) == 1


# ---- the end ----

THREAD = """
import threading
reader = open_loader()
def read():
    try:
        while True:
            sum(batch.samples for batch in reader)
    except stoker.Closed:
        pass
threading.Thread(target=read, daemon=True).start()
"""


@pytest.mark.parametrize(
    "left",
    [
        "reader = open_loader()",
        "reader = open_loader(); it = iter(reader); batch = next(it)",
        "reader = open_loader(); array = next(iter(reader)).gasf[1:]",
        "readers = [open_loader(seed=i, shuffle=True) for i in range(4)]; held = [next(iter(r)) for r in readers]",
        "reader = open_loader(); cycle = [reader, next(iter(reader))]; cycle.append(cycle)",
        "reader = open_loader(); import builtins; builtins.kept = next(iter(reader)); reader.close()",
        "reader = open_loader(); next(iter(reader)); raise RuntimeError('as meant')",
        THREAD,
        "own = stoker.embedded(arena_bytes='8MiB', workers=1); own.client.health()",
    ],
)
def test_the_interpreter_ends_whatever_is_left_open(daemon, left):
    for _ in range(3):
        done = run_python(OPEN + left, daemon.address, timeout=30)
        meant = "as meant" in left
        assert done.returncode == int(meant), done.stderr
        assert ("as meant" in done.stderr) if meant else (done.stderr == "")


def test_an_embedded_daemon_dies_with_a_killed_process():
    code = """
import os, signal, stoker
daemon = stoker.embedded(arena_bytes="8MiB", workers=1)
print(daemon.pid, *[s.name for s in daemon.client.status().arena.segments], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = run_python(code)
    pid, *segments = done.stdout.split()
    assert segments
    deadline = time.monotonic() + 30
    left = [f"/proc/{pid}/exe", *(f"/dev/shm/{name}" for name in segments)]
    while any(map(os.path.lexists, left)):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


# ---- sharing ----


def test_eight_processes_share_one_stream_that_is_made_once(daemon):
    code = OPEN + """
import hashlib
reader = stoker.Loader("numbers", stoker.gaf(("gasf", "gadf"), dtype="f16"), client=client, batch_size=5, shuffle=True,
                       seed=77, rank=0, world_size=1)
print("open", flush=True)
sys.stdin.readline()
print(hashlib.sha256(b"".join(b.gadf.tobytes() + b.index.tobytes() for b in reader)).hexdigest(), flush=True)
sys.stdin.readline()
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, daemon.address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    try:
        assert all(process.stdout.readline() == "open\n" for process in processes)
        (stream,) = [each for each in daemon.client.status().streams if each.plan["seed"] == "77"]
        assert stream.clients == 8
        for process in processes:
            print(file=process.stdin, flush=True)
        assert len({process.stdout.readline() for process in processes}) == 1
        (stream,) = [each for each in daemon.client.status().streams if each.plan["seed"] == "77"]
        # The epoch, and what was prefetched of the next one: not eight times.
        assert 10 <= stream.batches_made <= 10 + 10
        assert stream.batches_delivered >= 80
    finally:
        for process in processes:
            process.communicate("\n", timeout=60)
    assert [process.returncode for process in processes] == [0] * 8


def test_a_second_clients_first_batch_is_there_at_once(daemon, loader):
    first = loader(shuffle=True, seed=5)
    next(iter(first))
    times = []
    for _ in range(10):
        start = time.perf_counter()
        second = loader(shuffle=True, seed=5)
        next(iter(second))
        times.append(time.perf_counter() - start)
        second.close()
    assert min(times) < 0.1
