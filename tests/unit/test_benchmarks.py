"""Whether each benchmark runs. What it finds is for a machine at rest, and for its reader."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import QUICK

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", QUICK)
def test_it_runs(name: str) -> None:
    command = [sys.executable, "-m", "benchmarks", "--smoke", name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"== {name}" in done.stdout
