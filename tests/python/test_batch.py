# SPDX-License-Identifier: Apache-2.0
"""stoker.Batch: views without a copy, their lifetime, other libraries."""

from __future__ import annotations

import gc
import pickle
import random
import time
import timeit
import weakref

import numpy as np
import pytest
import stoker
from conftest import digest

torch = pytest.importorskip("torch")

DTYPES = {"f32": "float32", "f16": "float16", "bf16": "uint16", "u8": "uint8", "u16": "uint16"}


@pytest.fixture
def batch(loader):
    return next(iter(loader(stoker.gaf())))


def test_it_is_a_mapping_with_attributes(batch):
    assert list(batch) == ["gasf", "gadf", "target", "index"]
    assert len(batch) == 4
    assert "gasf" in batch and "nothing" not in batch
    assert batch.gasf is batch["gasf"] is dict(batch)["gasf"]
    assert batch.get("nothing") is None
    assert "gasf" in dir(batch)
    assert repr(batch).startswith("Batch(epoch=0, step=0, samples=8, gasf: f32 [8, 2, 16, 16]")
    with pytest.raises(KeyError, match="this batch has gasf, gadf"):
        batch["nothing"]
    with pytest.raises(AttributeError, match="no tensor 'nothing'"):
        batch.nothing  # noqa: B018


def test_arrays_are_read_only_views_of_the_batch(batch):
    for array in batch.values():
        assert not array.flags.writeable and not array.flags.owndata and array.flags.c_contiguous
        assert array.__array_interface__["data"][0] % 256 == 0
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


@pytest.mark.parametrize("name", DTYPES)
def test_each_type_comes_as_itself(loader, name):
    whole = next(iter(loader(stoker.gaf("gasf"))))
    batch = next(iter(loader(stoker.gaf("gasf", dtype=name))))
    assert batch.dtype("gasf") == name
    assert batch.gasf.dtype == DTYPES[name]
    tensor = batch.torch()["gasf"]
    assert str(tensor.dtype) == "torch." + {**DTYPES, "bf16": "bfloat16"}[name]
    expected = torch.from_numpy(whole.gasf.copy())
    if name.startswith("u"):
        expected = torch.round((expected + 1) * {"u8": 127.5, "u16": 32767.5}[name])
    torch.testing.assert_close(tensor.float(), expected, atol=1 if name.startswith("u") else 4e-3, rtol=0)
    if name == "bf16":
        np.testing.assert_array_equal(tensor.view(torch.uint16).numpy(), batch.gasf)


def test_torch_shares_the_memory(batch):
    tensors = batch.torch()
    assert set(tensors) == set(batch)
    for name, tensor in tensors.items():
        assert tensor.data_ptr() == batch[name].__array_interface__["data"][0]
        assert tensor.shape == batch[name].shape
    assert list(batch.torch(names=["target"])) == ["target"]


def test_torch_copies_when_asked(batch):
    tensor = batch.torch(copy=True)["gasf"]
    before = batch.gasf.copy()
    tensor.mul_(2)
    np.testing.assert_array_equal(batch.gasf, before)
    assert batch.to("cpu")["gasf"].data_ptr() == batch.gasf.__array_interface__["data"][0]
    assert batch.torch("cpu", copy=True)["gasf"].data_ptr() != batch.gasf.__array_interface__["data"][0]


def test_dlpack_goes_to_numpy_and_torch_and_says_read_only(batch):
    array = np.from_dlpack(batch.dlpack("gasf"))
    assert not array.flags.writeable
    np.testing.assert_array_equal(array, batch.gasf)
    assert batch.dlpack("gasf").__dlpack_device__() == (1, 0)
    torch.testing.assert_close(torch.from_dlpack(batch.dlpack("gasf")), batch.torch()["gasf"], rtol=0, atol=0)
    with pytest.raises(KeyError, match="nothing"):
        batch.dlpack("nothing")


def test_a_batch_may_be_made_of_arrays_and_tensors_without_a_copy():
    array, tensor = np.arange(4), torch.arange(6.0)
    batch = stoker.Batch.from_arrays({"index": array, "x": tensor, "b": tensor.bfloat16()})
    assert batch.samples == 4
    assert batch.index is array
    assert batch.x.__array_interface__["data"][0] == tensor.data_ptr()
    assert batch.torch()["x"] is tensor
    assert batch.dtype("b") == "bf16" and batch.b.dtype == np.uint16
    assert batch.torch()["b"].dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["f32", "bf16"])
def test_copies_and_pickles_stand_alone(loader, name):
    reader = loader(stoker.gaf(dtype=name))
    batch = next(iter(reader))
    before = digest(batch)
    copied, pickled = batch.copy(), pickle.loads(pickle.dumps(batch))
    del batch
    for _ in zip(range(40), reader, strict=False):
        pass
    for each in (copied, pickled, copied.copy()):
        assert digest(each) == before
        assert each.dtype("gasf") == name
        assert each.torch()["gasf"].dtype == {"f32": torch.float32, "bf16": torch.bfloat16}[name]
        assert each.gasf.flags.writeable
    assert copied.size_bytes > 0
    copied.check()


def leases(client):
    return sum(session.leases for session in client.status().sessions)


def await_leases(client, count):
    """Leases go back in the background."""
    deadline = time.monotonic() + 20
    while leases(client) != count:
        assert time.monotonic() < deadline, f"{leases(client)} leases, expected {count}"
        time.sleep(0.005)


@pytest.mark.parametrize("keep", ["array", "slice", "torch", "dlpack", "batch"])
def test_any_view_holds_the_lease_and_the_last_gives_it_back(loader, client, keep):
    reader = loader(stoker.gaf("gadf"))
    batch = next(iter(reader))
    before = batch.gadf.copy()
    view = {
        "array": lambda: batch.gadf,
        "slice": lambda: batch.gadf[2:, 1][:, ::2],
        "torch": lambda: batch.torch()["gadf"][3:],
        "dlpack": lambda: batch.dlpack("gadf"),
        "batch": lambda: batch,
    }[keep]()
    batch = None
    gc.collect()
    for _ in range(3):
        assert sum(other.samples for other in reader) == 50
    reader.close()  # what was prefetched goes back
    await_leases(client, 1)
    if keep == "array":
        np.testing.assert_array_equal(view, before)
    if keep == "torch":
        np.testing.assert_array_equal(view.numpy(), before[3:])
    if keep == "slice":
        np.testing.assert_array_equal(view, before[2:, 1][:, ::2])
    del view
    gc.collect()
    await_leases(client, 0)


def test_views_live_through_the_loader_and_random_deaths(loader):
    rng = random.Random(4)
    reader = loader(stoker.gaf("gadf"), shuffle=True)
    expected = [batch.gadf.copy() for batch in reader]
    reader.set_epoch(0)
    kept = []
    for step, batch in enumerate(reader):
        kept.append((step, rng.choice([batch, batch.gadf, batch.torch()["gadf"]])))
    del batch
    reader.close()
    rng.shuffle(kept)
    while kept:
        for step, view in kept:
            array = view.gadf if isinstance(view, stoker.Batch) else np.asarray(view)
            np.testing.assert_array_equal(array, expected[step])
        kept.pop()
        gc.collect()


def test_a_batch_is_freed_without_the_cycle_collector(batch, loader):
    gc.disable()
    try:
        other = next(iter(loader()))
        _ = other.gasf, other.torch()
        dead = weakref.ref(other)
        del other, _
        assert dead() is None
    finally:
        gc.enable()


def test_holding_too_many_is_an_error_that_says_so(loader):
    reader = loader(batch_size=1, tail="drop")
    held = []
    with pytest.raises(stoker.Exhausted, match=r"batches are held.*let go of some, or copy") as caught:
        for _ in range(3):
            for batch in reader:
                held.append(batch)
    assert caught.value.code == "RESOURCE_EXHAUSTED"
    position = reader.position
    assert len(held) == position[0] * 50 + position[1]
    del batch
    held.clear()
    gc.collect()
    reader.load_state_dict(reader.state_dict())
    assert next(iter(reader)).step == position[1]


def test_a_batch_costs_python_less_than_30_microseconds(loader):
    reader = loader(batch_size=1)
    raw = reader._handle().next(0)

    def touch():
        batch = stoker.Batch(raw)
        return batch.gasf, batch.target

    assert min(timeit.repeat(touch, number=10, repeat=50)) / 10 < 30e-6


def test_texts():
    texts = ["Gallium arsenide.", "", "Ångström"]
    data = [text.encode() for text in texts]
    batch = stoker.Batch.from_arrays(
        {
            "index": np.arange(3),
            "text_bytes": np.frombuffer(b"".join(data), np.uint8),
            "text_offsets": np.cumsum([0, *map(len, data)]),
        }
    )
    assert batch.texts() == texts
