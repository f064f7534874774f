# SPDX-License-Identifier: Apache-2.0
"""What a wheel holds works by itself: `pip install ./client/python` puts the same files into an environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import stoker

BUILD = Path(stoker.__file__).parents[2]
PACKAGE = Path(__file__).parents[2] / "client" / "python"

PROGRAM = """
import json, os, numpy, stoker
numpy.save("x.npy", numpy.random.default_rng(0).normal(size=(20, 2, 16)))
with stoker.embedded(arena_bytes="16MiB", workers=1) as daemon:
    daemon.client.ingest("x", "x.npy")
    with stoker.Loader("x", client=daemon.client, batch_size=8) as loader:
        seen = [i for batch in loader for i in batch.index.tolist()]
    program = os.readlink(f"/proc/{daemon.pid}/exe")
print(json.dumps({"package": stoker.__file__, "program": program, "seen": seen}))
"""


@pytest.fixture
def site(tmp_path):
    if not (BUILD / "cmake_install.cmake").exists() or shutil.which("cmake") is None:
        pytest.skip("the package is not in a build folder, or there is no cmake")
    place = tmp_path / "site"
    subprocess.run(["cmake", "--install", BUILD, "--component", "python", "--prefix", place], check=True, timeout=60)
    return place


def test_it_finds_the_programs_that_it_carries(site, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ("STOKERD", "STOKER_ADDRESS")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        env={**environment, "PYTHONPATH": str(site), "PATH": "/nowhere"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["package"] == str(site / "stoker" / "__init__.py")
    assert result["program"] == str(site / "stoker" / "bin" / "stokerd")
    assert result["seen"] == list(range(20))


def test_it_holds_all_modules_and_nothing_else(site):
    modules = {path.name for path in (PACKAGE / "stoker").iterdir() if path.suffix in (".py", ".pyi", ".typed")}
    programs = {"stokerd", "stoker-worker", "stokerctl"}
    found = {path.name for path in site.rglob("*") if path.is_file()}
    assert {name for name in found if not name.startswith("_stoker.cpython")} == modules | programs
    assert len(found) == len(modules | programs) + 1
