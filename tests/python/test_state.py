# SPDX-License-Identifier: Apache-2.0
"""state_dict and load_state_dict: what was yielded, at any place, twice in a row, elsewhere."""

from __future__ import annotations

import json
import timeit

import pytest
import stoker
from conftest import SAMPLES, digest


def places(reader):
    return [(batch.epoch, batch.step, batch.index.tolist()) for batch in reader]


@pytest.fixture
def twin(loader):
    """Loaders of one configuration."""
    return lambda **options: loader(shuffle=True, seed=11, **options)


def test_a_state_before_every_batch_gives_the_same_rest(twin):
    reader = twin()
    states, batches = [], []
    for _ in range(2):
        for batch in reader:
            batches.append(digest(batch))
            states.append(reader.state_dict())
    states.insert(0, twin().state_dict())
    for done, state in enumerate(states[:-1]):
        resumed = twin()
        resumed.load_state_dict(state)
        rest = [digest(batch) for _ in range(3) for batch in resumed if batch.epoch < 2]
        assert rest == batches[done:], f"after {done} batches"


def test_it_is_small_plain_json(twin):
    reader = twin()
    next(iter(reader))
    state = reader.state_dict()
    text = json.dumps(state)
    assert len(text) < 1024
    assert json.loads(text) == state
    resumed = twin()
    resumed.load_state_dict(json.loads(text))
    assert next(iter(resumed)).step == 1


def test_it_takes_less_than_100_microseconds(twin):
    reader = twin()
    next(iter(reader))
    # The best of many: other programs may run beside this one.
    assert min(timeit.repeat(reader.state_dict, number=10, repeat=50)) / 10 < 100e-6


def test_it_counts_what_was_yielded_not_what_was_prefetched(twin):
    reader = twin(prefetch_factor=6)
    iterator = iter(reader)
    for step in range(7):
        assert (reader.state_dict()["epoch"], reader.state_dict()["step"]) == (0, step)
        next(iterator)
    assert reader.position == (0, 7)
    assert next(iterator, None) is None
    assert reader.position == (1, 0)


def test_before_the_first_batch(twin):
    whole = places(twin())
    resumed = twin()
    resumed.load_state_dict(twin().state_dict())
    assert places(resumed) == whole


def test_at_the_last_batch_the_loop_ends_at_once_and_epochs_count_on(twin):
    reader = twin()
    for _ in reader:
        state = reader.state_dict()
    following = places(reader)
    resumed = twin()
    resumed.load_state_dict(state)
    assert places(resumed) == []
    assert places(resumed) == following


def test_after_the_loop_it_is_the_next_epoch(twin):
    reader = twin()
    places(reader)
    state = reader.state_dict()
    resumed = twin()
    resumed.load_state_dict(state)
    assert places(resumed) == places(reader)
    assert resumed.epoch == 2


def test_twice_in_a_row(twin):
    whole = places(twin())
    state = twin().state_dict()
    for start in (0, 2, 4):
        reader = twin()
        reader.load_state_dict(state)
        iterator = iter(reader)
        got = [next(iterator) for _ in range(2)]
        assert [(b.epoch, b.step, b.index.tolist()) for b in got] == whole[start : start + 2]
        state = reader.state_dict()
    reader = twin()
    reader.load_state_dict(state)
    assert reader.state_dict() == state  # nothing read in between
    again = twin()
    again.load_state_dict(reader.state_dict())
    assert places(again) == whole[6:]


def test_into_a_loader_that_has_read_other_batches(twin):
    reader = twin()
    iterator = iter(reader)
    next(iterator)
    state = reader.state_dict()
    next(iterator)
    rest = places(iterator)
    reader.load_state_dict(state)
    assert places(reader)[1:] == rest
    iterator = iter(reader)
    next(iterator)
    reader.load_state_dict(state)
    with pytest.raises(stoker.WrongState, match="another iterator"):
        next(iterator)


def test_a_loop_after_a_resumed_one_is_a_whole_epoch(twin):
    reader = twin()
    iterator = iter(reader)
    next(iterator)
    resumed = twin()
    resumed.load_state_dict(reader.state_dict())
    assert [batch.epoch for batch in resumed] == [0] * 6
    assert [batch.epoch for batch in resumed] == [1] * 7


def test_set_epoch_of_the_same_epoch_keeps_the_place(twin):
    reader = twin()
    iterator = iter(reader)
    next(iterator)
    next(iterator)
    state = reader.state_dict()
    resumed = twin()
    resumed.load_state_dict(state)
    resumed.set_epoch(0)  # as loops over epochs do
    assert [step for _, step, _ in places(resumed)] == [2, 3, 4, 5, 6]
    resumed.load_state_dict(state)
    resumed.set_epoch(3)
    assert [batch.epoch for batch in resumed] == [3] * 7


def test_in_the_second_epoch(twin):
    reader = twin()
    places(reader)
    iterator = iter(reader)
    for _ in range(3):
        next(iterator)
    state = reader.state_dict()
    rest = places(iterator)
    resumed = twin()
    resumed.load_state_dict(state)
    assert places(resumed) == rest
    assert rest[0][:2] == (1, 3)


@pytest.mark.parametrize(("world", "batch_size"), [(1, 8), (2, 4), (4, 2)])
def test_on_another_world_size_the_rest_is_the_rest(loader, world, batch_size):
    def ranks(count, size):
        return [loader(shuffle=True, seed=2, rank=r, world_size=count, batch_size=size) for r in range(count)]

    before = ranks(2, 4)
    seen = []
    for reader in before:
        iterator = iter(reader)
        for _ in range(3):
            seen += next(iterator).index.tolist()
    state = before[0].state_dict()
    after = ranks(world, batch_size)
    rest = []
    for reader in after:
        reader.load_state_dict(state)
        for batch in reader:
            rest += batch.index.tolist()
    assert sorted(seen + rest) == list(range(SAMPLES))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"seed": 12}, "the seed differs"),
        ({"shuffle": False}, "shuffle differs"),
        ({"drop_last": True}, "tail differs"),
        ({"batch_size": 4}, "batch size times world"),
        ({"world_size": 2}, "batch size times world"),
        ({"recipe": stoker.gaf("gadf")}, "the recipe differs"),
    ],
)
def test_of_another_configuration_it_is_refused(loader, options, reason):
    base = {"shuffle": True, "seed": 11}
    state = loader(**base).state_dict()
    reader = loader(**{**base, **options})
    with pytest.raises(stoker.WrongState, match=reason):
        reader.load_state_dict(state)
    assert reader.position == (0, 0)


@pytest.mark.parametrize("state", [None, [1], {}, {"version": 99}, {"epoch": 3, "step": 1}, {"_snapshot": {"_main": 1}}])
def test_what_is_no_state_is_refused(twin, state):
    reader = twin()
    with pytest.raises(stoker.InvalidRequest, match="load state"):
        reader.load_state_dict(state)
    assert len(places(reader)) == 7


def test_a_step_beyond_the_epoch_is_refused(twin):
    reader = twin()
    with pytest.raises(stoker.InvalidRequest, match="step 8 of an epoch of 7"):
        reader.load_state_dict({**reader.state_dict(), "step": 8})


def test_torchs_checkpoints_take_it(twin, tmp_path):
    checkpoint = pytest.importorskip("torch.distributed.checkpoint")
    reader = twin()
    iterator = iter(reader)
    next(iterator)
    checkpoint.save({"loader": reader}, checkpoint_id=tmp_path, no_dist=True)
    rest = places(iterator)
    resumed = twin()
    checkpoint.load({"loader": resumed}, checkpoint_id=tmp_path, no_dist=True)
    assert places(resumed) == rest
