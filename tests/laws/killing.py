"""kill -9 of a program that goes on with its job whenever it is begun again."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tests import programs
from tests.laws.pipeline_program import job_of

__all__ = ["killed_until_done", "run_to_its_end"]


def begun(program: Path, folder: Path, *arguments: object) -> Any:
    """The program, begun or resumed."""
    child = programs.start(program, folder, *arguments)
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n", child.communicate()
    return child


def run_to_its_end(program: Path, folder: Path, *arguments: object) -> float:
    """Run it, or resume it, and let it be. Returns the seconds that it took."""
    child = begun(program, folder, *arguments)
    started = time.monotonic()
    try:
        _, errors = child.communicate(timeout=programs.PATIENCE)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGABRT)  # faulthandler says where it hangs, if the program asked for that
        _, errors = child.communicate()
        raise AssertionError(f"it does not end:\n{errors}") from None
    assert child.returncode == 0, errors
    return time.monotonic() - started


def killed_until_done(
    program: Path, folder: Path, chance: random.Random, kills: int, longest: float, *arguments: object
) -> int:
    """Run it, kill it at up to so many random moments, resume it until it is done. Returns how often it was killed."""
    folder.mkdir()
    done = 0
    while done < kills and not job_of(folder)[1]:
        child = begun(program, folder, *arguments)
        time.sleep(chance.uniform(0, longest))  # the moment of the kill is what is drawn: nothing is waited for
        child.kill()
        done += child.wait() == -9
        child.communicate()
    if not job_of(folder)[1]:
        run_to_its_end(program, folder, *arguments)
    assert job_of(folder)[1]
    return done
