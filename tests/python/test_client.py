# SPDX-License-Identifier: Apache-2.0
"""stoker.Client and stoker.embedded: health, status, data sets, ingest, errors."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import stoker
from conftest import SHARED, series


def test_health(client):
    assert client.health() is True
    with pytest.raises(stoker.NotFound, match="no service"):
        client.health("nothing")


def test_status_is_typed(client, loader):
    reader = loader()
    batch = next(iter(reader))
    status = client.status()
    assert status.state == "SERVING" and status.version == stoker.__version__
    assert status.arena.mode == "shm" and status.arena.capacity_bytes > 0
    assert status.arena.segments[0].size_bytes <= 32 << 20
    assert isinstance(status.uptime_seconds, float)
    (session,) = [each for each in status.sessions if each.leases > 0]
    assert session.pid == os.getpid() and session.position.step >= batch.step
    (stream,) = [each for each in status.streams if each.id == session.stream]
    assert stream.dataset == "numbers" and stream.plan["batch_size"] == 8
    assert "batches" in [worker.role for worker in status.workers]
    assert [dataset.name for dataset in status.datasets] == [dataset.name for dataset in client.datasets()]


def test_ingest_is_immediate_the_second_time_and_drop_forgets(client, tmp_path):
    np.save(tmp_path / "a.npy", series())
    first = client.ingest("again", tmp_path / "a.npy", window=8, stride=4)
    assert first.dataset.samples == 50 * 3 and not first.unchanged
    second = client.ingest("again", str(tmp_path / "a.npy"), window=8, stride=4)
    assert second.unchanged and second.dataset == client.dataset("again")
    assert "again" in [dataset.name for dataset in client.datasets()]
    assert client.drop("again") is True
    with pytest.raises(stoker.NotFound, match="again"):
        client.dataset("again")


def test_ingest_tells_its_progress(client, tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(3000, 4, 64)))
    told = []
    client.ingest("told", tmp_path / "a.npy", progress=told.append)
    assert told and set(told[-1]) >= {"phase", "bytes_done", "bytes_total"}
    assert all(isinstance(each["bytes_done"], int) for each in told)


def test_ingest_shows_a_bar_where_tqdm_is(client, tmp_path, capsys):
    pytest.importorskip("tqdm")
    np.save(tmp_path / "a.npy", series())
    client.ingest("bar", tmp_path / "a.npy", progress=True)
    assert "bar: " in capsys.readouterr().err


def test_an_error_in_the_progress_function_stops_the_ingest(client, tmp_path):
    np.save(tmp_path / "a.npy", series())

    def fail(_):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        client.ingest("failed", tmp_path / "a.npy", progress=fail)


def test_options_of_ingest_reach_the_daemon(client, tmp_path):
    (tmp_path / "unit.csv").write_text("time,a,b,fault\n" + "\n".join(f"{i},{i % 7},{i * 2},{i // 8}" for i in range(32)))
    done = client.ingest("csv", tmp_path / "unit.csv", window=8, time_column="time", label="fault", exclude="b")
    assert done.dataset.classes == ["0", "1", "2", "3"]
    assert done.dataset.manifest["time_series"]["channels"] == ["a"]
    assert done.dataset.options["csv"]["exclude"] == ["b"]
    np.savez(tmp_path / "two.npz", data=series().transpose(0, 2, 1), goal=np.arange(50.0))
    done = client.ingest(
        "npz", tmp_path / "two.npz", layout="ntc", data_array="data", target_array="goal", target="value", channels=["1"]
    )
    assert done.dataset.manifest["target"] == "TARGET_VALUE"
    assert done.dataset.manifest["time_series"]["channels"] == ["1"]
    np.save(tmp_path / "x.npy", series())
    np.save(tmp_path / "y.npy", np.arange(50) % 2)
    done = client.ingest("npy", [tmp_path / "x.npy"], target_array=tmp_path / "y.npy", options={"window": 8})
    assert done.dataset.samples == 100


def test_errors_of_ingest_name_the_place(client, tmp_path):
    (tmp_path / "bad.csv").write_text("time,a\n0,1\n1,oops\n")
    with pytest.raises(stoker.InvalidRequest, match=r"bad\.csv:3") as caught:
        client.ingest("bad", tmp_path / "bad.csv")
    assert caught.value.code == "INVALID_ARGUMENT" and isinstance(caught.value, ValueError)
    with pytest.raises(stoker.StokerError, match=r"nowhere\.csv"):
        client.ingest("bad", tmp_path / "nowhere.csv")
    with pytest.raises(stoker.InvalidRequest, match="missing"):
        client.ingest("bad", tmp_path / "bad.csv", missing="maybe")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": 5}, "ingest: name 5: must be a string"),
        ({"source": 5}, "ingest: source 5: must be a path or several"),
        ({"source": [b"/x"]}, "ingest: source b'/x': must be a path"),
        ({"target": 5}, "ingest: target 5: must be a string or several"),
        ({"missing": 0}, "ingest: missing 0: must be a string"),
        ({"sidecar": {"text": 5}}, "ingest: sidecar text 5: must be a path"),
        ({"window": -1}, "options.window"),
    ],
)
def test_options_of_ingest_of_the_wrong_kind_are_named(client, options, said):
    with pytest.raises(stoker.InvalidRequest, match=said):
        client.ingest(**{"name": "wrong", "source": "/nowhere", **options})


def test_paths_outside_the_roots_are_not_allowed(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside.csv").write_text("a\n1\n2\n")
    with stoker.embedded(arena_bytes="8MiB", workers=0, roots=[inside]) as daemon:
        with pytest.raises(stoker.NotAllowed, match="outside"):
            daemon.client.ingest("x", tmp_path / "outside.csv")


def test_a_data_set_that_is_read_cannot_be_dropped(client, loader):
    loader()
    with pytest.raises(stoker.WrongState, match="numbers"):
        client.drop("numbers")


def test_clients_are_pickled_by_address(client):
    assert pickle.loads(pickle.dumps(client)).status().instance_id == client.status().instance_id
    assert client.address in repr(client)


def test_the_address_comes_from_the_environment(client, monkeypatch):
    monkeypatch.setenv("STOKER_ADDRESS", client.address)
    assert stoker.connect().address == client.address


def test_nobody_there_is_unavailable_and_names_the_remedy(tmp_path):
    with pytest.raises(stoker.Unavailable, match="no daemon answers there.*start stokerd") as caught:
        stoker.connect(tmp_path / "nothing")
    assert isinstance(caught.value, ConnectionError)


def test_exceptions_are_one_tree_and_pickle():
    kinds = [getattr(stoker, name) for name in stoker.errors.__all__]
    assert all(issubclass(kind, stoker.StokerError) for kind in kinds)
    error = pickle.loads(pickle.dumps(stoker.errors.from_status(11, "all epochs are read")))
    assert isinstance(error, stoker.InvalidRequest)
    assert (error.code, str(error)) == ("OUT_OF_RANGE", "all epochs are read")
    assert isinstance(stoker.errors.from_status(99, "?"), stoker.InternalError)


def test_embedded_leaves_nothing():
    with stoker.embedded(arena_bytes="8MiB", workers=1) as daemon:
        directory, pid = Path(daemon.address).parent, daemon.pid
        segments = [segment.name for segment in daemon.client.status().arena.segments]
        assert all(Path("/dev/shm", name).exists() for name in segments)
        assert directory.exists() and daemon.log
    daemon.close()
    assert not directory.exists()
    assert not Path("/proc", str(pid)).exists()
    assert not any(Path("/dev/shm", name).exists() for name in segments)


@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), signal.SIGKILL)", "os.kill(os.getpid(), signal.SIGTERM)", "os._exit(3)"])
def test_embedded_leaves_nothing_however_its_program_ends(tmp_path, ending):
    program = f"""
import os, signal, stoker
import numpy as np
np.save("numbers.npy", np.zeros((4, 1, 8)))
daemon = stoker.embedded(arena_bytes="8MiB", workers=1)
daemon.client.ingest("numbers", "numbers.npy")
print(daemon.pid, flush=True)
{ending}
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, cwd=tmp_path, stdout=subprocess.PIPE, check=False)
    assert ended.returncode != 0
    assert ended.stdout.strip().isdigit()
    deadline = time.monotonic() + 30
    while list(tmp_path.glob("stoker-embedded-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.npy"]


def test_embedded_lives_as_long_as_its_client(tmp_path):
    np.save(tmp_path / "numbers.npy", np.zeros((4, 1, 8)))

    def open_loader():
        daemon = stoker.embedded(arena_bytes="8MiB", workers=1)
        daemon.client.ingest("numbers", tmp_path / "numbers.npy")
        return stoker.Loader("numbers", batch_size=2, client=daemon.client, rank=0, world_size=1)

    loader = open_loader()
    gc.collect()
    assert sum(batch.samples for batch in loader) == 4
    pid = loader._client._daemon.pid
    loader.close()
    del loader
    gc.collect()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()


def test_embedded_that_cannot_start_says_why(tmp_path, monkeypatch):
    with pytest.raises(stoker.NotFound, match="no such program"):
        stoker.embedded(program=tmp_path / "stokerd")
    with pytest.raises(stoker.Unavailable, match="arena"):
        stoker.embedded(arena_bytes="many")
    monkeypatch.delenv("STOKERD")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(stoker.NotFound, match="no stokerd"):
        stoker.embedded()


def test_embedded_takes_one_root(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros((2, 1, 8), np.float32) + np.arange(8, dtype=np.float32))
    with stoker.embedded(arena_bytes="16MiB", workers=1, roots=str(tmp_path)) as daemon:
        assert daemon.client.ingest("one", tmp_path / "one.npy").dataset.samples == 2
        with pytest.raises(stoker.NotAllowed):
            daemon.client.ingest("other", __file__)


def test_embedded_keeps_its_cache_when_asked(tmp_path):
    np.save(tmp_path / "a.npy", series())
    for unchanged in (False, True):
        with stoker.embedded(arena_bytes="8MiB", workers=0, cache_dir=tmp_path / "cache") as daemon:
            assert daemon.client.ingest("kept", tmp_path / "a.npy").unchanged is unchanged


@pytest.mark.skipif(not SHARED.exists(), reason="no ../shared beside the checkout")
def test_a_real_data_set(client):
    source = SHARED / "data" / "timeseries" / "BasicMotions_TRAIN.ts"
    done = client.ingest("motions", source)
    assert (done.dataset.samples, len(done.dataset.classes)) == (40, 4)
    with stoker.Loader("motions", client=client, batch_size=16, rank=0, world_size=1) as loader:
        assert next(iter(loader)).gasf.shape == (16, 6, 100, 100)


def test_stoker_needs_neither_torch_nor_protobuf():
    from conftest import run_python

    code = "import sys, stoker; print([m for m in ('torch', 'google.protobuf', 'tqdm') if m in sys.modules])"
    assert run_python(code).stdout.strip() == "[]", sys.modules.keys()
