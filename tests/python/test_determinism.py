# SPDX-License-Identifier: Apache-2.0
"""A batch is a pure function of (data set, recipe, plan, epoch, step), whoever makes and whoever reads it."""

from __future__ import annotations

import pytest
import stoker
from conftest import Daemon, digest, ingest_numbers

RECIPE = stoker.gaf(("gasf", "series"), dtype="u8", image_size=8)


def read(client, epochs=2, **options):
    plan = {"batch_size": 8, "shuffle": True, "seed": 3, "rank": 0, "world_size": 1, **options}
    with stoker.Loader("numbers", RECIPE, client=client, **plan) as loader:
        return [digest(batch) for _ in range(epochs) for batch in loader]


@pytest.fixture(scope="module")
def expected(client):
    return read(client)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_workers_change_nothing(tmp_path, expected, workers):
    with stoker.embedded(arena_bytes="16MiB", workers=workers) as daemon:
        ingest_numbers(daemon.client, tmp_path)
        assert read(daemon.client) == expected


@pytest.mark.parametrize("prefetch", [0, 1, 16])
def test_prefetch_changes_nothing(client, expected, prefetch):
    assert read(client, prefetch_factor=prefetch) == expected


def test_clients_side_by_side_change_nothing(client, expected):
    readers = [
        iter(stoker.Loader("numbers", RECIPE, client=client, batch_size=8, shuffle=True, seed=3, rank=0, world_size=1))
        for _ in range(3)
    ]
    for step in range(7):
        for lag, reader in enumerate(readers):
            if lag <= step:
                assert digest(next(reader)) == expected[step - lag]


def test_ranks_share_out_the_same_samples(client):
    def samples(world, size):
        steps = {}
        for rank in range(world):
            with stoker.Loader(
                "numbers", RECIPE, client=client, batch_size=size, shuffle=True, seed=3, rank=rank, world_size=world
            ) as loader:
                for batch in loader:
                    steps.setdefault(batch.step, []).extend(batch.index.tolist())
        return {step: sorted(indices) for step, indices in steps.items()}

    assert samples(1, 8) == samples(2, 4) == samples(4, 2)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_restart_in_the_middle_changes_nothing(own_daemon: Daemon, expected, how):
    client = stoker.connect(own_daemon.socket)
    loader = stoker.Loader("numbers", RECIPE, client=client, batch_size=8, shuffle=True, seed=3, rank=0, world_size=1)
    got, kept = [], []
    for _ in range(2):
        for batch in loader:
            got.append(digest(batch))
            kept.append(batch)
            if batch.step == 3:
                getattr(own_daemon, how)()
                own_daemon.start()
    assert got == expected
    assert [digest(batch) for batch in kept] == expected  # those of the daemon that died are still readable
    loader.close()


def test_no_daemon_comes_back(own_daemon: Daemon):
    client = stoker.connect(own_daemon.socket)
    options = {"batch_size": 8, "reconnect_timeout": 0.2, "rank": 0, "world_size": 1}
    # One batch ahead: of an epoch that is here as a whole nobody would miss the daemon.
    loader = stoker.Loader("numbers", RECIPE, client=client, prefetch_factor=1, **options)
    iterator = iter(loader)
    next(iterator)
    own_daemon.kill()
    with pytest.raises(stoker.Unavailable, match="lost the daemon"):
        for _ in iterator:
            pass
    place = loader.position
    own_daemon.start()
    steps = []
    while len(steps) < 7 - place[1]:  # and asking again goes on
        try:
            steps.append(next(iterator).step)
        except stoker.Unavailable:
            assert loader.position == (0, place[1] + len(steps))
    assert steps == list(range(place[1], 7))
    loader.close()
