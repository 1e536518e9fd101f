"""Law 5, loss window: what a power cut and what a kill may take. (The power is really cut in test_power_cut.py.)

Where a window is judged in real time, a witness says whether the machine let the program keep it.
"""

from __future__ import annotations

import itertools
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from resilient_exporters.delivery.archive import Archive
from resilient_exporters.delivery.ring import ring_path
from resilient_exporters.delivery.spool import Spool
from tests.laws.witness import Standstill, Witness, conclusive
from tests.programs import PATIENCE, start
from tests.targets import PATIENCE as SECONDS
from tests.targets import FakeClock, Target, numbers

PROGRAM = """
import sys, time
from pathlib import Path
from resilient_exporters import Exporter

class Down(Exporter):
    def export(self, batch):
        raise ConnectionError("down")

window = None if sys.argv[2] == "None" else float(sys.argv[2])
e = Down(directory=Path(sys.argv[1]) / "queue", name="target", loss_window=window)
for n in range(10**9):
    e.send(n)
    print(n, time.monotonic(), flush=True)
    if window != 0 and n % 20 == 19:
        sys.stdin.readline()
"""


def cut(
    tmp_path: Path, window: str, seconds: float, promised: float = SECONDS
) -> tuple[list[tuple[int, float]], float, Standstill]:
    """Run it for a while and kill it.

    Returns what it had accepted, when it was killed, and for how long the machine stood still before that: it is killed
    when a promise of ``promised`` seconds has to be kept, if such a moment comes.
    """
    child = start(PROGRAM, tmp_path, window)
    orders, said = child.stdin, child.stdout
    assert orders is not None
    assert said is not None
    accepted: list[tuple[int, float]] = []

    def note(line: str) -> None:
        number, moment = line.split()
        accepted.append((int(number), float(moment)))

    def go_on() -> None:
        note(said.readline())
        if accepted[-1][0] % 20 == 19 and window != "0":
            orders.write("\n")
            orders.flush()

    with Witness(child.pid, tmp_path) as witness:
        go_on()
        while time.monotonic() < accepted[0][1] + seconds or len(accepted) < 40:
            go_on()
        moment, still = witness.quiet(promised, go_on)
        child.send_signal(signal.SIGKILL)
    child.wait(PATIENCE)
    for line in said.read().splitlines(keepends=True):
        if line.endswith("\n"):
            note(line)
    child.communicate(timeout=PATIENCE)
    return accepted, moment, still


def found(tmp_path: Path) -> list[int]:
    later = Target(directory=tmp_path / "queue")
    assert later.flush(SECONDS).complete
    return later.taken


def forget_memory(tmp_path: Path) -> None:
    ring = ring_path(tmp_path / "queue")
    assert ring is not None
    ring.unlink()


@pytest.mark.parametrize("window", ["0.4", "1.0"])
def test_what_is_older_than_the_window_is_on_disk(tmp_path: Path, window: str) -> None:
    fresh = itertools.count()

    def trial() -> tuple[Standstill, tuple[list[int], list[int]]]:
        # Given
        place = tmp_path / str(next(fresh))
        place.mkdir()
        accepted, moment, still = cut(place, window, 2.0, float(window))

        # When: the power is cut, and with it goes what is in memory
        forget_memory(place)
        got = found(place)
        assert got == list(range(len(got)))
        return still, ([number for number, then in accepted if then < moment - float(window)], got)

    # Then
    for old, got in conclusive(trial, 2, float(window)):
        assert len(old) > 20
        assert got[: len(old)] == old


@pytest.mark.parametrize("seed", range(3))
def test_a_save_begins_at_half_of_the_window(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a clock that stands still while the disk is busy, and somebody who notes each save
    dice, clock, window = random.Random(seed), FakeClock(), 2.0
    save, saved = Archive.save, threading.Semaphore(0)

    def noted(self: Archive, done_so_far: Callable[[], None]) -> None:
        save(self, done_so_far)
        saved.release()

    monkeypatch.setattr(Archive, "save", noted)
    exporter = Target(
        ConnectionError("down"), retry=10**6, loss_window=window, clock=clock, directory=tmp_path / "queue"
    )
    engine = exporter._open()
    queue = engine.queue
    accepted: list[float] = []

    # When records come at any time, and time passes
    for _ in range(30):
        for _ in range(dice.randrange(4)):
            exporter.send({"n": len(accepted)})
            accepted.append(clock.now())
        clock.advance(dice.choice([0.01, 0.2, 0.5, 0.9]))
        while (born := queue.oldest_unsaved()) is not None and born + window / 2 < queue.clock.now() - 1e-6:
            assert saved.acquire(timeout=SECONDS), "half of the window is over, and nothing is saved"

    # Then what a power cut leaves has all that is older than half of the window
    engine.keeper.call(lambda: shutil.copytree(tmp_path / "queue", tmp_path / "left"))
    later = Target(directory=tmp_path / "left", clock=FakeClock(boot="next"))
    assert later.flush(SECONDS).complete
    old = [number for number, then in enumerate(accepted) if then < clock.now() - window / 2]
    assert len(old) > 20
    assert later.taken == numbers(len(later.taken))
    assert len(later.taken) >= len(old)


def test_with_window_zero_send_returns_when_it_is_on_disk(tmp_path: Path) -> None:
    accepted, *_ = cut(tmp_path, "0", 0.5)
    forget_memory(tmp_path)
    got = found(tmp_path)
    assert len(accepted) > 3
    assert got[: len(accepted)] == [number for number, _ in accepted]
    assert len(got) <= len(accepted) + 1


@pytest.mark.parametrize("window", ["None", "3600", "0.2"])
def test_a_kill_takes_nothing_whatever_the_age(tmp_path: Path, window: str) -> None:
    accepted, *_ = cut(tmp_path, window, 0.5)
    got = found(tmp_path)
    assert got[: len(accepted)] == [number for number, _ in accepted]
    assert len(got) <= len(accepted) + 1


def test_memory_only_writes_nothing_to_disk(tmp_path: Path) -> None:
    cut(tmp_path, "None", 1.5)
    assert not (tmp_path / "queue" / "cache.db").exists()


def test_a_save_that_came_late_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given: a disk that takes longer than the window
    write = Spool.write
    gate = threading.Event()

    def slow(self: Spool, *arguments: object) -> None:
        gate.wait()
        write(self, *arguments)  # type: ignore[arg-type] # handed on as they came

    monkeypatch.setattr(Spool, "write", slow)
    exporter = Target(ConnectionError("down"), retry=3600, loss_window=0.05)
    exporter.send(1)

    # When
    assert not exporter.save(0.2)
    gate.set()
    assert exporter.save(SECONDS)

    # Then
    assert exporter.stats().late_saves == 1
