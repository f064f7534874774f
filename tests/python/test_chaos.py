# SPDX-License-Identifier: Apache-2.0
"""A little of `make chaos`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_readers_of_every_kind_read_on_whatever_is_killed():
    command = [sys.executable, Path(__file__).with_name("chaos.py"), "--seconds", "15"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
