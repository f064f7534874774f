# SPDX-License-Identifier: Apache-2.0
"""Loaders that bring their batches to a device: with this process' memory for one, and without a GPU."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import stoker
from conftest import run_python, series

torch = pytest.importorskip("torch")
CRYSTALS = Path(__file__).parents[2] / "deploy" / "samples" / "textbook_crystals"
IMAGES = stoker.gaf()
CPU, CUDA = 1, 2  # of DLPack


def without_gpu():
    return pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def assert_same(one, other):
    """A batch in shared memory, and the same on the device."""
    assert (one.epoch, one.step, one.samples) == (other.epoch, other.step, other.samples)
    want, have = one.torch(), other.torch()
    assert list(want) == list(have) == list(other)
    for name in want:
        assert have[name].dtype == want[name].dtype and torch.equal(have[name], want[name]), name


def read(loader):
    return [(batch.epoch, batch.step, batch.torch()["index"].tolist()) for batch in loader]


# ---- batches ----


def test_batches_are_those_of_the_loader_in_every_type(loader):
    for dtype in ("f32", "bf16", "u16", "u8"):
        options = {"shuffle": True, "seed": 5, "prefetch_factor": 2}
        plain, device = (loader(stoker.gaf(dtype=dtype), **options) for _ in range(2))
        assert device.to("host") is device
        for _ in range(2):
            for one, other in zip(plain, device, strict=True):
                assert_same(one, other)


def test_a_tensor_tells_what_it_is_and_is_shared_by_dlpack(loader):
    batch = next(iter(loader(IMAGES).to("host")))
    gasf = batch["gasf"]
    assert (gasf.dtype, gasf.shape, gasf.__dlpack_device__()) == ("f32", (8, 2, 16, 16), (CPU, 0))
    assert repr(batch).startswith("DeviceBatch(epoch=0, step=0, samples=8, gasf: f32 [8, 2, 16, 16]")
    tensor = torch.from_dlpack(gasf)
    tensor.mul_(2)  # it is the caller's
    assert np.shares_memory(np.from_dlpack(gasf), tensor.numpy())
    assert torch.equal(batch.torch()["gasf"], tensor)
    with pytest.raises(stoker.InvalidRequest, match="stream=7: the batch is in host memory"):
        gasf.__dlpack__(stream=7)
    with pytest.raises(KeyError, match="no_such: this batch has gasf, gadf, target, index"):
        batch["no_such"]


def test_a_tensor_keeps_its_place_when_batch_and_loader_are_gone(loader):
    reader = loader(IMAGES).to("host", depth=3)
    iterator = iter(reader)
    first = next(iterator)
    tensor = first.torch()["gasf"]
    before = tensor.clone()
    del first
    for _ in range(3):
        next(iterator)
    assert torch.equal(tensor, before)
    reader.close()
    del reader, iterator
    gc.collect()
    assert torch.equal(tensor, before)


def test_when_every_place_is_held_the_next_batch_does_not_come_and_then_it_does(loader):
    for timeout, error in ((0.2, stoker.Timeout), (0, stoker.Exhausted)):
        reader = loader(timeout=timeout).to("host", depth=2)
        iterator = iter(reader)
        held = [next(iterator), next(iterator)]
        with pytest.raises(error):
            next(iterator)
        held.pop(0)
        assert next(iterator).step == 2


def test_a_place_that_another_thread_lets_go_of_is_waited_for(loader):
    iterator = iter(loader().to("host", depth=2))
    held = [next(iterator), next(iterator)]
    timer = threading.Timer(0.2, held.clear)
    timer.start()
    assert next(iterator).step == 2
    timer.join()


def test_a_transform_gets_the_device_batch(loader):
    reader = loader(transform=lambda batch: batch.torch()["index"]).to("host")
    assert [step.tolist() for step in reader][:2] == [list(range(8)), list(range(8, 16))]


# ---- made on the device ----


def test_images_are_made_on_the_device_as_the_daemon_makes_them(client, tmp_path):
    # Of float64 values the daemon makes images of all digits, and `series` has float32.
    np.save(tmp_path / "f32.npy", series().astype(np.float32))
    client.ingest("f32", tmp_path / "f32.npy")

    def loader(recipe, **options):
        return stoker.Loader("f32", recipe, client=client, batch_size=8, rank=0, world_size=1, **options)

    for recipe in (stoker.gaf(dtype="u8", scale="channel"), stoker.gaf("gadf", image_size=8, dtype="bf16")):
        compact = loader(stoker.gaf("series"), shuffle=True).to("host", expand=recipe)
        for one, other in zip(loader(recipe, shuffle=True), compact, strict=True):
            want, have = one.torch(), other.torch()
            for name in want:
                assert torch.equal(have[name], want[name]), name
            assert other.expanded_bytes == sum(tensor.nbytes for name, tensor in want.items() if name.startswith("ga"))


def test_a_line_graph_is_made_on_the_device(client):
    client.ingest("line_graphs", CRYSTALS / "structures.json", target="density")
    compact = stoker.graph(["edge_index", "r", "num_nodes", "num_edges", "num_triplets"])
    budget = {"nodes": 24, "edges": 500, "triplets": 20000}
    whole = stoker.Loader("line_graphs", stoker.graph(), budget=budget, client=client, rank=0, world_size=1)
    reader = stoker.Loader("line_graphs", compact, budget=budget, client=client, rank=0, world_size=1)
    for one, other in zip(whole, reader.to("host", expand=stoker.graph(["lg_edge_index", "cos"])), strict=True):
        want, have = one.torch(), other.torch()
        # Triplets of the device stand in order of their first edge.
        order = (lambda pairs: np.lexsort((pairs[1], pairs[0])))(want["lg_edge_index"].numpy())
        assert torch.equal(want["lg_edge_index"][:, order], have["lg_edge_index"])
        assert torch.allclose(want["cos"][order], have["cos"], atol=1e-5)
    whole.close()
    reader.close()


@pytest.mark.parametrize("cut", [{"batch_size": 4}, {"budget": {"nodes": 24}, "epoch": 5}])
def test_batches_of_later_epochs_are_larger_and_fit_all_the_same(client, cut):
    client.ingest("growing", CRYSTALS / "structures.json", target="density")
    options = {"client": client, "shuffle": True, "seed": 3, "rank": 0, "world_size": 1, **cut}
    whole = stoker.Loader("growing", **options)
    compact = stoker.graph(["edge_index", "r", "num_nodes", "num_edges", "num_triplets"])
    uploaded = stoker.Loader("growing", **options).to("host")
    made = stoker.Loader("growing", compact, **options).to("host", expand=stoker.graph(["lg_edge_index", "cos"]))
    largest = []
    for _ in range(12):
        largest.append(0)
        for one, other, third in zip(whole, uploaded, made, strict=True):
            assert torch.equal(other.torch()["r"], one.torch()["r"])
            assert third.torch()["cos"].shape == one.cos.shape
            largest[-1] = max(largest[-1], sum(array.nbytes for array in one.values()))
    assert largest[0] < max(largest)  # else this shows nothing
    for loader in (whole, uploaded, made):
        loader.close()


def test_what_cannot_be_made_of_the_batches_is_refused(loader):
    with pytest.raises(stoker.InvalidRequest, match="series"):
        loader(stoker.gaf("gasf")).to("host", expand=stoker.gaf("gadf"))


# ---- places in the epoch ----


def test_state_counts_what_was_yielded(loader):
    options = {"shuffle": True, "seed": 9}
    plain, device = loader(**options), loader(**options).to("host", depth=3)
    ones, others = iter(plain), iter(device)
    for _ in range(3):
        next(ones)
        next(others)
        assert device.state_dict() == plain.state_dict() and device.position == plain.position
    state = device.state_dict()
    rest = read(others)
    for resumed in (loader(**options), loader(**options).to("host")):
        resumed.load_state_dict(state)
        assert read(resumed) == rest
        assert [place[0] for place in read(resumed)] == [1] * 7
    with pytest.raises(stoker.WrongState):
        device.load_state_dict(loader(shuffle=True, seed=10).state_dict())
    assert device.position == (1, 0)


def test_a_move_in_the_middle_of_an_epoch_goes_on_there(loader):
    reader = loader(shuffle=True)
    iterator = iter(reader)
    before = [next(iterator).index.tolist() for _ in range(2)]
    reader.to("host")
    after = [batch.torch()["index"].tolist() for batch in iterator]
    assert before + after == [batch.index.tolist() for batch in loader(shuffle=True)]
    assert reader.to("host") is reader and reader.position == (1, 0)


def test_loops_that_are_left_are_followed_by_the_next_epoch(loader):
    reader, plain = loader(shuffle=True).to("host"), loader(shuffle=True)
    bytes_of_device = reader.device_report["device_bytes"]
    for epoch in range(4):
        with pytest.raises(ZeroDivisionError):
            for batch in reader:
                assert (batch.epoch, batch.step) == (epoch, 0)
                raise ZeroDivisionError
    for batch in reader:
        assert batch.epoch == 4
        break
    # The batch that the loop left is still held; no more memory was taken for all that.
    assert reader.device_report["device_bytes"] == bytes_of_device
    plain.set_epoch(5)
    assert read(plain) == read(reader)
    reader.set_epoch(0)
    assert read(reader) == read(loader(shuffle=True))


def test_len_is_that_of_the_epoch_that_is_yielded(client):
    client.ingest("budgets", CRYSTALS / "structures.json", target="density")
    reader = stoker.Loader(
        "budgets", None, budget={"nodes": 24}, shuffle=True, seed=1, client=client, rank=0, world_size=1
    ).to("host", depth=4)
    lengths = []
    for _ in range(3):
        expected = len(reader)
        seen = 0
        for _batch in reader:
            seen += 1
            assert len(reader) == expected
        lengths.append((expected, seen))
    assert all(expected == seen for expected, seen in lengths)
    reader.close()


# ---- devices ----


@without_gpu()
def test_cuda_without_a_gpu_is_an_error_and_the_loader_goes_on(loader):
    reader = loader()
    for device in ("cuda", "cuda:3", torch.device("cuda", 0)):
        with pytest.raises(stoker.Unavailable, match="CUDA"):
            reader.to(device)
    assert isinstance(next(iter(reader)), stoker.Batch)


@without_gpu()
def test_auto_without_a_gpu_says_that_batches_stay_on_the_host(loader):
    with pytest.warns(UserWarning, match="batches stay in host memory: .*CUDA"):
        reader = loader().to("auto")
    assert (reader.device_report["name"], reader.device_report["on_device"]) == ("host", False)
    assert len(read(reader)) == 7


def test_wrong_options_name_themselves(loader):
    reader = loader()
    for device in ("tpu", "host:1", "cuda:x", "cpu"):
        with pytest.raises(stoker.InvalidRequest, match=f"device {device}: there are"):
            reader.to(device)
    with pytest.raises(stoker.InvalidRequest, match=r"depth: 65 is outside \[1, 64\]"):
        reader.to("host", depth=65)
    with pytest.raises(stoker.InvalidRequest, match="depth 1: must be at least 2"):
        reader.to("host", depth=1)
    with pytest.raises(stoker.InvalidRequest, match="memory_limit 0"):
        reader.to("host", memory_limit=0)


def test_a_limit_below_one_batch_is_refused_at_once_and_a_small_one_makes_fewer_places(loader):
    reader = loader(IMAGES)
    with pytest.raises(stoker.Exhausted, match="needs up to .*, and 2 have to be there, and the limit is 1000 B"):
        reader.to("host", memory_limit=1000)
    assert isinstance(next(iter(reader)), stoker.Batch)
    reader.to("host", depth=8, memory_limit=100_000)
    report = reader.device_report
    assert report["depth"] < 8 and report["device_bytes"] <= 100_000
    assert "instead of 8 batches on the device" in reader.notice
    assert len(read(reader)) == 7


def test_loaders_that_share_upload_each_batch_once_and_read_the_same(loader):
    plain = loader(IMAGES, shuffle=True)
    readers = [loader(IMAGES, shuffle=True).to("host", share=True) for _ in range(2)]
    for _ in range(4):
        for one, *others in zip(plain, *readers, strict=True):
            for other in others:
                assert_same(one, other)
    reports = [reader.device_report for reader in readers]
    assert sum(report["borrowed_batches"] for report in reports) > 0
    assert all(reader.notice == "" for reader in readers)


def test_a_loader_that_shares_with_nobody_reads_as_any_other(loader):
    plain, alone = loader(), loader().to("host", share=True)
    for _ in range(2):
        for one, other in zip(plain, alone, strict=True):
            assert_same(one, other)
    assert alone.device_report["borrowed_batches"] == 0


# ---- processes ----

OPEN = """
import os, sys, stoker, torch
client = stoker.connect(sys.argv[1])
reader = stoker.Loader("numbers", stoker.gaf("gasf"), client=client, batch_size=8, rank=0, world_size=1, shuffle=True)
reader.to("host")
def index(batch):
    return (batch.epoch, batch.step, batch.torch()["index"].tolist())
"""


def test_a_forked_child_and_its_parent_go_on_at_the_same_place_with_a_batch_held(daemon):
    code = OPEN + """
iterator = iter(reader)
held = next(iterator)
before = held.torch()["gasf"].clone()
out, into = os.pipe()
if os.fork() == 0:
    mine = [index(batch) for batch in iterator]
    os.write(into, repr(mine).encode())
    os._exit(0)
os.close(into)
mine = [index(batch) for batch in iterator]
theirs = eval(os.fdopen(out).read())
assert theirs == mine and len(mine) == 6, (theirs, mine)
assert os.wait()[1] == 0
assert torch.equal(held.torch()["gasf"], before)
assert len(list(map(index, reader))) == 7
print(client.health(), "done")
"""
    done = run_python(code, daemon.address)
    assert (done.stdout, done.returncode) == ("True done\n", 0), done.stderr


def test_a_program_may_end_in_the_middle_with_everything_open(daemon):
    code = OPEN + """
iterator = iter(reader)
held = [next(iterator), torch.from_dlpack(next(iterator)["gasf"])]
print("done")
"""
    done = run_python(code, daemon.address)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


def test_a_pickled_loader_goes_to_the_same_device(loader):
    reader = loader(shuffle=True).to("host")
    iterator = iter(reader)
    next(iterator)
    copied = pickle.loads(pickle.dumps(reader))
    assert copied.device_report["name"] == "host"
    assert read(copied) == read(iterator)
    copied.close()


def test_a_signal_ends_the_wait_and_nothing_is_lost(own_daemon):
    client = stoker.connect(own_daemon.socket)
    reader = stoker.Loader("numbers", IMAGES, client=client, batch_size=8, rank=0, world_size=1).to("host", depth=2)
    iterator = iter(reader)
    held = [next(iterator), next(iterator)]
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(iterator)  # all places are held
    timer.join()
    held.clear()
    assert [place[1] for place in read(iterator)] == list(range(2, 7))
    reader.close()


def test_close_on_another_thread_ends_the_wait(loader):
    reader = loader().to("host", depth=2)
    iterator = iter(reader)
    held = [next(iterator), next(iterator)]
    timer = threading.Timer(0.1, reader.close)
    timer.start()
    with pytest.raises(stoker.Closed):
        next(iterator)
    timer.join()
    assert held[0].torch()["index"].tolist() == list(range(8))


def test_the_daemon_may_be_killed_and_started_again(own_daemon):
    client = stoker.connect(own_daemon.socket)
    reader = stoker.Loader("numbers", IMAGES, client=client, batch_size=8, rank=0, world_size=1).to("host")
    places = []
    for batch in reader:
        places.append((batch.epoch, batch.step))
        if batch.step == 2:
            own_daemon.kill()
            own_daemon.start()
    assert places == [(0, step) for step in range(7)]
    reader.close()


def test_after_an_error_the_same_batch_is_asked_for_again(own_daemon):
    client = stoker.connect(own_daemon.socket)
    reader = stoker.Loader(
        "numbers", IMAGES, client=client, batch_size=8, rank=0, world_size=1, reconnect_timeout=0, prefetch_factor=0
    ).to("host", depth=2)
    iterator = iter(reader)
    held = [next(iterator), next(iterator)]
    own_daemon.kill()
    held.clear()
    with pytest.raises(stoker.Unavailable):
        next(iterator)
    assert reader.position == (0, 2)
    own_daemon.start()
    assert [place[1] for place in read(iterator)] == list(range(2, 7))
    reader.close()
