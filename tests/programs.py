"""Programs that a test starts, kills and starts again."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import resilient_exporters

__all__ = ["PATIENCE", "end_all", "environment", "run", "start"]

PATIENCE = 120.0
"""Seconds after which a program has not done what it should."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, in which the package under test and these helpers are found."""
    root = str(Path(resilient_exporters.__file__).resolve().parent.parent)
    here = str(Path(__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys([root, here])), **(extra or {})}


def start(program: str | Path, *arguments: object) -> subprocess.Popen[str]:
    """Start a program: a file, or the text of one. Its stdin and stdout are pipes."""
    what = [str(program)] if isinstance(program, Path) else ["-c", textwrap.dedent(program)]
    child = subprocess.Popen(
        [sys.executable, "-W", "error", *what, *map(str, arguments)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _started.append(child)
    return child


_started: list[subprocess.Popen[str]] = []


def end_all() -> None:
    """Kill what a test that failed left running, and close the pipes."""
    while _started:
        program = _started.pop()
        if program.poll() is None:
            program.kill()
            program.communicate()


def run(program: str | Path, *arguments: object, code: int = 0) -> str:
    """Run a program to its end and return what it printed.

    Args:
        program: a file, or the text of one.
        *arguments: its arguments.
        code: the exit code that is expected.
    """
    child = start(program, *arguments)
    try:
        out, err = child.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        out, err = child.communicate()
        raise AssertionError(f"it does not end:\n{out}\n{err}") from None
    assert child.returncode == code, f"exit code {child.returncode}\n{out}\n{err}"
    return out
