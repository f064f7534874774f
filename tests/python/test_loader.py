# SPDX-License-Identifier: Apache-2.0
"""stoker.Loader: epochs, orders, DataLoader's keywords."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
import stoker
from conftest import SAMPLES, digest, series


def indices(loader):
    return [batch.index.tolist() for batch in loader]


def test_an_epoch_has_every_sample_once(loader):
    batches = indices(loader(batch_size=8))
    assert [len(batch) for batch in batches] == [8] * 6 + [2]
    assert sum(batches, []) == list(range(SAMPLES))


def test_len_is_the_number_of_batches_of_this_rank(loader):
    assert len(loader(batch_size=8)) == 7
    assert len(loader(batch_size=8, drop_last=True)) == 6
    assert len(loader(batch_size=8, world_size=2, rank=1)) == 4
    assert len(iter(loader(batch_size=8))) == 7


def test_epochs_advance_by_themselves(loader):
    reader = loader(shuffle=True, seed=1)
    epochs = [indices(reader) for _ in range(3)]
    assert all(sorted(sum(epoch, [])) == list(range(SAMPLES)) for epoch in epochs)
    assert all(one != other for one, other in pairwise(epochs))
    assert reader.epoch == 3


def test_set_epoch_gives_the_same_order_again(loader):
    reader = loader(shuffle=True, seed=1)
    first, second = indices(reader), indices(reader)
    reader.set_epoch(0)
    assert indices(reader) == first
    assert indices(reader) == second
    fresh = loader(shuffle=True, seed=1, epoch=1)
    assert indices(fresh) == second


def test_set_epoch_as_it_would_be_anyway_changes_nothing(loader):
    reader, plain = loader(shuffle=True), loader(shuffle=True)
    for epoch in range(3):
        reader.set_epoch(epoch)
        assert indices(reader) == indices(plain)


def test_set_epoch_inside_a_loop_is_for_the_next_loop(loader):
    reader = loader(shuffle=True)
    whole = indices(reader)
    reader.set_epoch(0)
    seen = []
    for batch in reader:
        seen.append(batch.index.tolist())
        reader.set_epoch(7)
    assert seen == whole
    assert [batch.epoch for batch in reader] == [7] * 7


def test_a_loop_that_was_left_is_followed_by_the_next_epoch(loader):
    reader = loader()
    for batch in reader:
        if batch.step == 2:
            break
    assert next(iter(reader)).epoch == 1


def test_an_exhausted_iterator_stays_exhausted(loader):
    iterator = iter(loader())
    assert len(list(iterator)) == 7
    assert list(iterator) == []


def test_a_second_iterator_takes_over(loader):
    reader = loader()
    first = iter(reader)
    next(first)
    second = iter(reader)
    with pytest.raises(stoker.WrongState, match="another iterator"):
        next(first)
    assert next(second).step == 0


def test_a_seed_is_an_order(loader):
    one, two = indices(loader(shuffle=True, seed=5)), indices(loader(shuffle=True, seed=6))
    assert one != two
    assert indices(loader(shuffle=True, seed=5)) == one


def test_generator_gives_the_seed(loader):
    torch = pytest.importorskip("torch")
    by_generator = indices(loader(shuffle=True, generator=torch.Generator().manual_seed(5)))
    assert by_generator == indices(loader(shuffle=True, seed=5))


def test_ranks_partition_the_epoch(loader):
    parts = [indices(loader(shuffle=True, rank=rank, world_size=3, batch_size=4)) for rank in range(3)]
    assert len({len(part) for part in parts}) == 1
    assert sorted(sum(sum(parts, []), [])) == list(range(SAMPLES))


def test_pad_fills_the_last_batch(loader):
    batches = indices(loader(tail="pad"))
    assert [len(batch) for batch in batches] == [8] * 7
    assert batches[-1] == [48, 49, 0, 1, 2, 3, 4, 5]


def test_batches_hold_what_the_recipe_says(loader):
    recipe = stoker.gaf(("gasf", "gadf", "series"), image_size=8, dtype="f16", stats="signal_basic")
    batch = next(iter(loader(recipe)))
    shapes = {name: (str(batch[name].dtype), batch[name].shape) for name in batch}
    assert shapes == {
        "gasf": ("float16", (8, 2, 8, 8)),
        "gadf": ("float16", (8, 2, 8, 8)),
        "series": ("float32", (8, 16, 2)),
        "stats": ("float32", (8, 2, 5)),
        "target": ("int64", (8,)),
        "index": ("int64", (8,)),
    }
    np.testing.assert_allclose(batch.series, series()[:8].transpose(0, 2, 1), rtol=1e-6)


def test_images_are_gramian(loader):
    batch = next(iter(loader(stoker.gaf())))
    x = series()[:8]
    low, high = x.min(axis=2, keepdims=True), x.max(axis=2, keepdims=True)
    phi = np.arccos(np.clip((x - low) / (high - low) * 2 - 1, -1, 1))
    np.testing.assert_allclose(batch.gasf, np.cos(phi[..., :, None] + phi[..., None, :]), atol=2e-6)
    np.testing.assert_allclose(batch.gadf, np.sin(phi[..., :, None] - phi[..., None, :]), atol=2e-6)


def test_a_recipe_may_be_a_dictionary_and_may_be_left_out(client, loader):
    by_name = next(iter(loader({"gaf": {"fields": ["GASF"]}})))
    assert digest(by_name) == digest(next(iter(loader(stoker.gaf("gasf")))))
    with stoker.Loader("numbers", client=client, rank=0, world_size=1) as default:
        assert set(next(iter(default))) == {"gasf", "gadf", "target", "index"}


def test_transform_makes_what_is_yielded(loader):
    assert list(loader(transform=lambda batch: batch.samples)) == [8] * 6 + [2]


def test_classes_and_info(loader):
    reader = loader()
    assert reader.classes == ["0", "1", "2"]
    assert reader.info["samples"] == str(SAMPLES)
    next(iter(reader))
    assert reader.transport == "shm"
    assert reader.notice == ""


def test_inline_batches_are_the_same(loader):
    for one, other in zip(loader(), loader(transport="inline"), strict=True):
        assert digest(one) == digest(other)


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 4},
        {"collate_fn": list},
        {"worker_init_fn": print},
        {"multiprocessing_context": "spawn"},
        {"persistent_workers": True},
        {"pin_memory_device": "cuda"},
        {"in_order": False},
        {"snapshot_every_n_steps": 10},
    ],
)
def test_keywords_without_meaning_warn_once(loader, options):
    name = next(iter(options))
    stoker.loader._warned.discard(name)
    with pytest.warns(UserWarning, match=f"{name} has no effect"):
        loader(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loader(**options)


def test_dataloaders_own_defaults_are_silent(loader):
    torch_data = pytest.importorskip("torch.utils.data")
    import inspect

    parameters = inspect.signature(torch_data.DataLoader.__init__).parameters
    known = inspect.signature(stoker.Loader.__init__).parameters
    assert set(parameters) - {"self"} <= set(known)
    defaults = {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}
    defaults["batch_size"] = 8  # there the default is 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(loader(**defaults)) == 7


def test_a_sampler_is_refused(loader):
    for name in ("sampler", "batch_sampler"):
        with pytest.raises(stoker.InvalidRequest, match="a sampler cannot be given"):
            loader(**{name: [0, 1]})


def test_wrong_options_name_themselves(loader, client):
    with pytest.raises(stoker.InvalidRequest, match="rank"):
        loader(rank=2, world_size=2)
    with pytest.raises(stoker.InvalidRequest, match="image_size"):
        loader(stoker.gaf(image_size=1000))
    with pytest.raises(stoker.InvalidRequest, match="must be at least 1"):
        loader(batch_size=0)
    with pytest.raises(stoker.InvalidRequest, match="give one of them"):
        loader(drop_last=True, tail="pad")
    with pytest.raises(stoker.InvalidRequest, match="give one of them"):
        loader(budget={"nodes": 10})
    with pytest.raises(stoker.InvalidRequest, match="must be stoker"):
        stoker.Loader("numbers", 64, client=client)
    with pytest.raises(stoker.NotFound, match="nothing"):
        stoker.Loader("nothing", client=client)
    with pytest.raises(stoker.InvalidRequest, match="client and address: give one"):
        stoker.Loader("numbers", client=client, address=client.address)
    for name in ("seed", "epoch", "prefetch_factor", "rank", "timeout"):
        with pytest.raises(stoker.InvalidRequest, match=f"loader: {name} -1: must be at least 0"):
            loader(**{name: -1})
    with pytest.raises(stoker.InvalidRequest, match="epoch -1: must be at least 0"):
        loader().set_epoch(-1)
    for name in ("batch_size", "seed", "epoch"):
        with pytest.raises(stoker.InvalidRequest, match=f"loader: {name} 2.5: must be a whole number"):
            loader(**{name: 2.5})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dataset": 5}, "loader: dataset 5: must be a string"),
        ({"client": "/run/stoker.sock"}, "client '/run/stoker.sock': must be what .* a path is its address="),
        ({"batch_size": "4"}, "loader: batch_size '4': must be a whole number"),
        ({"batch_size": 2**32}, "loader: batch_size 4294967296: must be at most 4294967295"),
        ({"seed": 2**64}, "loader: seed 18446744073709551616: must be at most 18446744073709551615"),
        ({"budget": "nodes=64"}, "loader: budget 'nodes=64': must be a dictionary, such as {\"nodes\": 2000}"),
        ({"budget": {"nodes": "64"}}, "loader: budget of nodes '64': must be a whole number"),
        ({"budget": {"nodes": 64}, "oversize": 1}, "loader: oversize 1: must be a string"),
        ({"tail": 1}, "loader: tail 1: must be a string"),
        ({"timeout": "1"}, "loader: timeout '1': must be a number"),
        ({"open_timeout": None}, "loader: open_timeout None: must be a number"),
        ({"transport": 1}, "loader: transport 1: must be a string"),
        ({"dataset": ""}, "loader: dataset '': must be a name"),
        ({"dataset": "num\udcff"}, "loader: dataset 'num.*': must be text in UTF-8"),
        ({"shuffle": "no"}, "loader: shuffle 'no': must be True or False"),
        ({"drop_last": 2}, "loader: drop_last 2: must be True or False"),
        ({"timeout": float("nan")}, "loader: timeout nan: must be a number"),
        ({"reconnect_timeout": -1}, "loader: reconnect_timeout -1: must be at least 0"),
        ({"world_size": 0, "rank": 0}, "loader: world_size 0: must be at least 1"),
    ],
)
def test_values_of_the_wrong_kind_are_named(client, options, said):
    with pytest.raises(stoker.InvalidRequest, match=said):
        stoker.Loader(**{"dataset": "numbers", "client": client, **options})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: stoker.gaf(5), "gaf: fields 5: must be a string or several"),
        (lambda: stoker.gaf(["gasf", None]), "gaf: fields .*: must be a string or several"),
        (lambda: stoker.gaf(dtype=8), "gaf: dtype 8: must be a string"),
        (lambda: stoker.gaf(image_size=24.5), "gaf: image_size 24.5: must be a whole number"),
        (lambda: stoker.gaf(sample_range=1), r"gaf: sample_range 1: must be \(low, high\)"),
        (lambda: stoker.gaf(scale=(0, 1, 2)), r"gaf: scale \(0, 1, 2\): must be \(low, high\)"),
        (lambda: stoker.gaf(scale=("0", 1)), "gaf: scale '0': must be a number"),
        (lambda: stoker.gaf(scale=(float("nan"), 1)), "gaf: scale nan: must be a number"),
        (lambda: stoker.gaf(scale=(0, float("inf"))), r"gaf: scale \(0, inf\): must be \(low, high\), both finite"),
        (lambda: stoker.graph(5), "graph: tensors 5: must be a string or several"),
        (lambda: stoker.graph(rbf=(80, 0)), r"graph: rbf \(80, 0\): must be \(bins, low, high\)"),
        (lambda: stoker.graph(line_graph=True), "graph: line_graph True: must be a string"),
        (lambda: stoker.embedded(roots=5), "embedded: roots 5: must be a path or several"),
        (lambda: stoker.embedded(extra=5), "embedded: extra 5: must be a string or several"),
    ],
)
def test_recipes_and_embedded_name_what_does_not_fit(make, said):
    with pytest.raises(stoker.InvalidRequest, match=said):
        make()


def test_one_name_is_a_list_of_one():
    assert stoker.gaf("gasf") == stoker.gaf(["gasf"])
    assert stoker.graph("edge_index") == stoker.graph(["edge_index"])


@pytest.mark.parametrize(
    ("options", "choices"),
    [
        ({"tail": "none"}, "tail.*NONE.*there are.*KEEP.*DROP.*PAD"),
        ({"recipe": stoker.gaf("images")}, r"gaf.fields\[0\].*IMAGES.*there are.*GASF.*GADF"),
        ({"recipe": stoker.gaf(dtype="f8")}, "gaf.dtype.*F8.*there are.*F32.*BF16"),
        ({"recipe": {"gaf": {"size": 3}}}, "gaf.* size: Cannot find field"),
    ],
)
def test_an_unknown_choice_is_answered_with_those_that_there_are(loader, options, choices):
    with pytest.raises(stoker.InvalidRequest, match=choices) as caught:
        loader(**options)
    assert "UNSPECIFIED" not in str(caught.value)


def test_pin_memory_without_a_gpu_warns_and_goes_on(loader):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    stoker.loader._warned.discard("pin_memory")
    with pytest.warns(UserWarning, match="there is no GPU"):
        assert len(list(loader(pin_memory=True))) == 7


def test_close_ends_it(loader, client):
    reader = loader(stoker.gaf("gadf"))
    iterator = iter(reader)
    batch = next(iterator)
    before = batch.gadf.copy()
    reader.close()
    reader.close()
    with pytest.raises(stoker.Closed):
        next(iterator)
    with pytest.raises(stoker.Closed):
        iter(reader)
    np.testing.assert_array_equal(batch.gadf, before)
    with loader() as inner:
        next(iter(inner))
    with pytest.raises(stoker.Closed):
        len(inner)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "4"}, (1, 4)),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3"}, (2, 3)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, (1, 2)),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "5"}, (3, 5)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "5", "SLURM_JOB_NAME": "interactive"}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "4", "SLURM_PROCID": "3", "SLURM_NTASKS": "5"}, (1, 4)),
    ],
)
def test_rank_and_world_come_from_the_launcher(monkeypatch, loader, variables, expected):
    for rank, world in stoker.ranks._LAUNCHERS:
        monkeypatch.delenv(rank, raising=False)
        monkeypatch.delenv(world, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    reader = loader(rank=None, world_size=None)
    assert (reader.rank, reader.world_size) == expected


def test_a_launcher_that_speaks_nonsense_is_named(monkeypatch, loader):
    monkeypatch.setenv("RANK", "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(stoker.InvalidRequest, match="RANK='one'"):
        loader(rank=None, world_size=None)
