"""Laws 3, 5 and 8 against SIGKILL: a program that sends at full speed is killed at random moments, again and again."""

from __future__ import annotations

import random
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.laws.sender import Journal
from tests.laws.witness import Standstill, Witness, conclusive
from tests.programs import PATIENCE, run, start

SENDER = Path(__file__).parent / "sender.py"


def killed(folder: Path, kills: int, target: str, loss_window: str) -> list[int]:
    """Run the sender and kill it, ``kills`` times. Returns where it had got to at each kill."""
    places = [0]
    for _ in range(kills):
        with _running(folder, places[-1], target, "file", loss_window) as child:
            child.kill()
        places.append(_following(folder))
    return places[1:]


@contextmanager
def _running(folder: Path, before: int, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A sender for the block to kill.

    A third of the kills may come while it starts; the others come once it sends, however busy the machine is.
    """
    dice = random.Random()
    child = start(SENDER, folder, *options)
    if dice.random() < 2 / 3:
        while child.poll() is None and _following(folder) <= before:
            with suppress(subprocess.TimeoutExpired):
                child.wait(0.01)
    try:
        child.wait(dice.uniform(0.05, 0.6))
    except subprocess.TimeoutExpired:
        yield child
    else:
        raise AssertionError(f"the sender ended by itself: {child.communicate()[1]}")
    _, complaint = child.communicate(timeout=PATIENCE)
    assert "Traceback" not in complaint, complaint


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


def accepted(folder: Path, first: int, following: int, until: float = 1e18) -> set[int]:
    """The numbers whose send had returned, before a moment."""
    journal = Journal(folder / "journal")
    return {seq for seq in range(first, following) if 0 < journal.time(seq) < until}


def check(folder: Path, kills: int, target: str, loss_window: str = "1.0") -> None:
    # Given / When
    places = killed(folder, kills, target, loss_window)
    got = drained(folder, target, "file", loss_window)

    # Then
    sent = accepted(folder, 0, places[-1])
    assert len(sent) > kills * 100, "it hardly sent anything"
    assert sent - set(got) == set(), "accepted and lost"
    assert len(got) == len(set(got)), "delivered twice"
    assert got == sorted(got), "out of order"


def check_without_shared_memory(folder: Path, kills: int, target: str, window: float) -> None:
    """The memory goes with the program: a kill is a power cut, and a witness says whether the window is to be kept.

    The sender pauses, so that there is room on the disk: what a full one does not take has to wait in memory.
    """
    due: set[int] = set()
    options = target, "anonymous", str(window)

    def kill() -> tuple[Standstill, set[int]]:
        first = _following(folder)
        with _running(folder, first, *options, "slowly") as child, Witness(child.pid, folder) as witness:
            with suppress(subprocess.TimeoutExpired):
                child.wait(window)  # longer than the others, so that something is due
            moment, still = witness.quiet(window)
            child.kill()
        return still, accepted(folder, first, _following(folder), moment - window)

    try:
        # Given / When
        for old in conclusive(kill, kills, window, "kills"):
            due |= old
    finally:
        # Then, also where too few of them say something
        got = drained(folder, *options)
        assert due - set(got) == set(), "accepted before the window and lost"
        assert len(got) == len(set(got)), "delivered twice"
        assert got == sorted(got), "out of order"
    assert len(due) > kills * 100, "it hardly sent anything"


@pytest.mark.parametrize("target", ["database", "list"])
def test_kill_loses_nothing_doubles_nothing_and_keeps_the_order(tmp_path: Path, target: str) -> None:
    check(tmp_path, 10, target)


def test_kill_with_records_in_memory_only(tmp_path: Path) -> None:
    check(tmp_path, 8, "list", "None")


def test_kill_without_shared_memory_takes_the_window_at_most(tmp_path: Path) -> None:
    check_without_shared_memory(tmp_path, 6, "list", 0.4)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("target", "loss_window"), [("database", "1.0"), ("list", "1.0"), ("database", "None"), ("list", "0.05")]
)
def test_two_hundred_kills(tmp_path: Path, target: str, loss_window: str) -> None:
    check(tmp_path, 200, target, loss_window)


@pytest.mark.soak
def test_two_hundred_kills_without_shared_memory(tmp_path: Path) -> None:
    check_without_shared_memory(tmp_path, 200, "database", 1.0)
