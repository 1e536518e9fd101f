"""Jobs keep what they promise while they are killed, and while two slots run at once.

``JOB_KILLS`` and ``JOB_SLOTS`` say how often; `make soak` runs them 200 and 100 times.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from resilient_exporters.jobs import Backlog
from tests.laws import slot
from tests.programs import PATIENCE, run, start

WINDOW = 2  # operations on files between the line of the target and the note: the end of its write, its close
PROGRAM = Path(slot.__file__)


def begun(place: Path, seed: int) -> subprocess.Popen[str]:
    """A slot that waits for the word to go."""
    child = start(PROGRAM, place, seed)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()


def ended(child: subprocess.Popen[str]) -> None:
    _, err = child.communicate(timeout=PATIENCE)
    assert child.returncode in (0, 1), err


def runs_after_success(said: list[tuple[str, str]], success: str) -> int:
    over: set[str] = set()
    again = 0
    for what, job_id in said:
        again += what == "begin" and job_id in over
        if what == success:
            over.add(job_id)
    return again


def audit(place: Path) -> dict[str, int]:
    """Everything that was kept has succeeded or waits; nothing ran after its success."""
    said = slot.lines(place)
    kept = {job_id for what, job_id in said if what == "kept"}
    succeeded = {job_id for what, job_id in said if what == "succeeded"}
    taken = {job_id for what, job_id in said if what == "taken"}
    waiting = set(Backlog("nightly", place))
    # An entry whose job was noted as a success, but killed before it could say so, was taken by the target.
    return {
        "kept": len(kept),
        "lost": len(kept - succeeded - taken - waiting),
        "run after success": runs_after_success(said, "succeeded"),
        "run after the target took it": runs_after_success(said, "taken"),
        "taken twice": sum(count > 1 for count in Counter(j for w, j in said if w == "taken").values()),
        "waiting": len(waiting),
    }


def kill_at_random_moments(place: Path, kills: int, seed: int) -> dict[str, int]:
    """Slots over a backlog of five, each killed at a random moment; then slots until nothing waits."""
    chance = random.Random(seed)
    killed, total, number = 0, Counter[str](), 0
    longest = 0.05
    while killed < kills:
        here = place / str(number)
        here.mkdir()
        number += 1
        run(PROGRAM, here, seed, 5)
        for _ in range(4):  # the next slots find what the killed ones left
            child = begun(here, chance.randrange(10**9))
            go(child)
            since = time.monotonic()
            try:
                child.wait(chance.uniform(0, longest))
                longest = max(0.01, min(longest, 2 * (time.monotonic() - since)))
            except subprocess.TimeoutExpired:
                child.kill()
                killed += 1
            child.communicate()
            found = audit(here)
            assert found["lost"] == found["run after success"] == 0, found
        for _ in range(40):
            child = begun(here, chance.randrange(10**9))
            go(child)
            ended(child)
            if not list(Backlog("nightly", here)):
                break
        found = audit(here)
        assert found["waiting"] == found["lost"] == found["run after success"] == 0, found
        said = slot.lines(here)
        assert {one for what, one in said if what == "kept"} <= {one for what, one in said if what == "taken"}
        total.update(found)
    return {"kills": killed, **total}


def start_at_one_instant(place: Path, times: int, seed: int) -> dict[str, int]:
    """Two processes for the same slot, over and over, on one backlog of five."""
    chance, total = random.Random(seed), Counter[str]()
    for number in range(times):
        here = place / str(number)
        here.mkdir()
        run(PROGRAM, here, seed, 5)
        two = [begun(here, chance.randrange(10**9)) for _ in range(2)]
        for child in two:
            go(child)
        for child in two:
            ended(child)
        found = audit(here)
        assert found["lost"] == found["taken twice"] == found["run after the target took it"] == 0, found
        total.update(found)
    return dict(total)


def test_a_kill_loses_no_entry_and_repeats_no_success(tmp_path: Path) -> None:
    found = kill_at_random_moments(tmp_path, 6, 1)
    assert found["kept"] > 8


def test_a_kill_at_any_operation_on_a_file_loses_nothing_and_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    # Given a slot of two jobs, killed before and after everything that it does to a file, once for each
    killed = int(run(PROGRAM, tmp_path, "sweep"))
    assert killed > 100
    doubles = 0
    for place in sorted(tmp_path.iterdir()):
        # When the next slots come
        for seed in range(50):
            slot.made(place, seed).run(3, 0)
            if not list(Backlog("nightly", place)):
                break

        # Then
        found = audit(place)
        assert found["waiting"] == found["lost"] == found["run after success"] == 0, (place, found)
        doubles += found["taken twice"]
        assert not list(Backlog("nightly", place).directory.glob(".*.tmp"))
    # Only who is killed between the answer of the target and the note of it asks it twice: once for each job.
    assert doubles <= 2 * WINDOW


def test_two_slots_at_once_run_no_entry_twice(tmp_path: Path) -> None:
    found = start_at_one_instant(tmp_path, 3, 2)
    assert found["kept"] == 3 * 7


@pytest.mark.soak
def test_two_hundred_kills(tmp_path: Path) -> None:
    print(kill_at_random_moments(tmp_path, int(os.environ.get("JOB_KILLS", "200")), 3))


@pytest.mark.soak
def test_a_hundred_double_starts(tmp_path: Path) -> None:
    print(start_at_one_instant(tmp_path, int(os.environ.get("JOB_SLOTS", "100")), 4))
