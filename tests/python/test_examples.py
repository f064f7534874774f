# SPDX-License-Identifier: Apache-2.0
"""The examples run, and training on Stoker's batches is training on a DataLoader's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SHARED

pytest.importorskip("torch")
EXAMPLES = Path(__file__).parents[2] / "client" / "python" / "examples"


def run(name, *arguments):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_images_of_the_sample():
    result = run("train_gaf.py", "--epochs", "3")
    assert result["difference"] < 1e-3 and result["last"] < result["first"]


@pytest.mark.skipif(not SHARED.exists(), reason="no ../shared beside the checkout")
def test_images_of_a_real_data_set():
    result = run("train_gaf.py", str(SHARED / "data" / "timeseries" / "BasicMotions_TRAIN.ts"), "--epochs", "4")
    assert result["difference"] < 1e-3 and result["last"] < result["first"]


def test_crystals():
    result = run("train_crystals.py", "--epochs", "5")
    assert result["difference"] < 1e-3 and result["last"] < result["first"]
