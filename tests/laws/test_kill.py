"""Laws 3, 5 and 8 against SIGKILL: a program that sends at full speed is killed at random moments, again and again."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.laws.sender import Journal
from tests.programs import PATIENCE, run, start

SENDER = Path(__file__).parent / "sender.py"


def killed(
    folder: Path, kills: int, target: str, ring: str = "file", loss_window: str = "1.0"
) -> list[tuple[int, float]]:
    """Run the sender and kill it, ``kills`` times. Returns where it had got to, and when, at each kill.

    A third of the kills may come while it starts; the others come once it sends, however busy the machine is.
    """
    dice = random.Random()
    moments: list[tuple[int, float]] = []
    for _ in range(kills):
        child = start(SENDER, folder, target, ring, loss_window)
        if dice.random() < 2 / 3:
            before = moments[-1][0] if moments else 0
            while child.poll() is None and _following(folder) <= before:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(0.01)
        try:
            child.wait(dice.uniform(0.05, 0.6))
        except subprocess.TimeoutExpired:
            moment = time.monotonic()
            child.kill()
        else:
            raise AssertionError(f"the sender ended by itself: {child.communicate()[1]}")
        _, complaint = child.communicate(timeout=PATIENCE)
        assert "Traceback" not in complaint, complaint
        moments.append((_following(folder), moment))
    return moments


def _following(folder: Path) -> int:
    path = folder / "journal"
    return Journal(path).following if path.exists() and path.stat().st_size else 0


def drained(folder: Path, target: str, ring: str = "file", loss_window: str = "1.0") -> list[int]:
    """Deliver what is left, with the target healthy. Returns what the target has, in its order."""
    complete, dropped, pending, rest = run(SENDER, folder, target, ring, loss_window, "drain").split()
    assert (complete, pending) == ("True", "0")
    if ring == "file":
        assert (dropped, rest) == ("0", "0")
    else:
        assert dropped == rest  # what was lost with the memory is counted as far as anyone can know of it
    if target == "list":
        return [int(line) for line in (folder / "target.txt").read_text().split()]
    with sqlite3.connect(folder / "target.db") as database:
        found = [seq for (seq,) in database.execute("SELECT seq FROM got ORDER BY place")]
    database.close()
    return found


def accepted(folder: Path, moments: list[tuple[int, float]], window: float = 0.0) -> set[int]:
    """The numbers whose send had returned, and at least ``window`` seconds before the next kill."""
    journal = Journal(folder / "journal")
    found: set[int] = set()
    first = 0
    for following, killed_at in moments:
        found.update(
            seq for seq in range(first, following) if 0 < journal.time(seq) < (killed_at - window if window else 1e18)
        )
        first = following
    return found


def check(folder: Path, kills: int, target: str, loss_window: str = "1.0") -> None:
    # Given / When
    moments = killed(folder, kills, target, "file", loss_window)
    got = drained(folder, target, "file", loss_window)

    # Then
    sent = accepted(folder, moments)
    assert len(sent) > kills * 100, "it hardly sent anything"
    assert sent - set(got) == set(), "accepted and lost"
    assert len(got) == len(set(got)), "delivered twice"
    assert got == sorted(got), "out of order"


@pytest.mark.parametrize("target", ["database", "list"])
def test_kill_loses_nothing_doubles_nothing_and_keeps_the_order(tmp_path: Path, target: str) -> None:
    check(tmp_path, 10, target)


def test_kill_with_records_in_memory_only(tmp_path: Path) -> None:
    check(tmp_path, 8, "list", "None")


def test_kill_without_shared_memory_takes_the_window_at_most(tmp_path: Path) -> None:
    # Given / When
    moments = killed(tmp_path, 6, "list", "anonymous", "0.4")
    got = drained(tmp_path, "list", "anonymous", "0.4")

    # Then
    assert accepted(tmp_path, moments, window=0.4) - set(got) == set(), "accepted before the window and lost"
    assert len(got) == len(set(got)), "delivered twice"
    assert got == sorted(got), "out of order"


@pytest.mark.soak
@pytest.mark.parametrize(
    ("target", "loss_window"), [("database", "1.0"), ("list", "1.0"), ("database", "None"), ("list", "0.05")]
)
def test_two_hundred_kills(tmp_path: Path, target: str, loss_window: str) -> None:
    check(tmp_path, 200, target, loss_window)


@pytest.mark.soak
def test_two_hundred_kills_without_shared_memory(tmp_path: Path) -> None:
    moments = killed(tmp_path, 200, "database", "anonymous", "1.0")
    got = drained(tmp_path, "database", "anonymous", "1.0")
    assert accepted(tmp_path, moments, window=1.0) - set(got) == set(), "accepted before the window and lost"
    assert len(got) == len(set(got)), "delivered twice"
    assert got == sorted(got), "out of order"
