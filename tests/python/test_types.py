# SPDX-License-Identifier: Apache-2.0
"""The package is typed, and says so."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import stoker

PACKAGE = Path(__file__).parents[2] / "client" / "python"


USE = """
import stoker
from torch import Tensor

whole = stoker.Loader("x", batch_size=8)
for batch in whole:
    one: stoker.Batch = batch
for count in stoker.Loader("x", transform=lambda batch: batch.samples):
    two: int = count
three: dict[str, Tensor] = one.torch()
"""


def test_mypy_is_silent_about_the_package_and_its_use(tmp_path):
    pytest.importorskip("mypy")
    use = tmp_path / "use.py"
    use.write_text(USE)
    examples = sorted((PACKAGE / "examples").glob("*.py"))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", PACKAGE / "pyproject.toml", "--cache-dir", tmp_path / "cache",
         *sorted((PACKAGE / "stoker").glob("*.py")), *examples, use],
        cwd=PACKAGE, env={**environment, "MYPYPATH": str(PACKAGE)}, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_is_silent():
    pytest.importorskip("ruff")
    places = [PACKAGE, Path(__file__).parent]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--config", PACKAGE / "pyproject.toml", *places],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_marker_is_there():
    assert (Path(stoker.__file__).parent / "py.typed").exists()


def test_what_is_public_is_documented():
    for name in stoker.__all__:
        each = getattr(stoker, name)
        assert inspect.getdoc(each), name
        if inspect.isclass(each) and not issubclass(each, Exception):
            for method, value in vars(each).items():
                if callable(value) and not method.startswith("_"):
                    assert inspect.getdoc(value), f"{name}.{method}"
