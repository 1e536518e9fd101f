"""Law 5, loss window: what a power cut and what a kill may take. (The power is really cut in test_power_cut.py.)"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from resilient_exporters.delivery.ring import ring_path
from tests.programs import PATIENCE, start
from tests.targets import PATIENCE as SECONDS
from tests.targets import Target

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


def cut(tmp_path: Path, window: str, seconds: float) -> tuple[list[tuple[int, float]], float]:
    """Run it for a while and kill it. Returns what it had accepted, and when it was killed."""
    child = start(PROGRAM, tmp_path, window)
    assert child.stdin is not None
    assert child.stdout is not None
    accepted: list[tuple[int, float]] = []

    def note(line: str) -> None:
        number, moment = line.split()
        accepted.append((int(number), float(moment)))

    note(child.stdout.readline())
    while time.monotonic() < accepted[0][1] + seconds or len(accepted) < 40:
        note(child.stdout.readline())
        if accepted[-1][0] % 20 == 19 and window != "0":
            child.stdin.write("\n")
            child.stdin.flush()
    moment = time.monotonic()
    child.send_signal(signal.SIGKILL)
    child.wait(PATIENCE)
    for line in child.stdout.read().splitlines(keepends=True):
        if line.endswith("\n"):
            note(line)
    child.communicate(timeout=PATIENCE)
    return accepted, moment


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
    # Given
    accepted, moment = cut(tmp_path, window, 2.0)

    # When: the power is cut, and with it goes what is in memory
    forget_memory(tmp_path)
    got = found(tmp_path)

    # Then
    old = [number for number, then in accepted if then < moment - float(window)]
    assert len(old) > 20
    assert got[: len(old)] == old
    assert got == list(range(len(got)))


def test_with_window_zero_send_returns_when_it_is_on_disk(tmp_path: Path) -> None:
    accepted, _ = cut(tmp_path, "0", 0.5)
    forget_memory(tmp_path)
    got = found(tmp_path)
    assert len(accepted) > 3
    assert got[: len(accepted)] == [number for number, _ in accepted]
    assert len(got) <= len(accepted) + 1


@pytest.mark.parametrize("window", ["None", "3600", "0.2"])
def test_a_kill_takes_nothing_whatever_the_age(tmp_path: Path, window: str) -> None:
    accepted, _ = cut(tmp_path, window, 0.5)
    got = found(tmp_path)
    assert got[: len(accepted)] == [number for number, _ in accepted]
    assert len(got) <= len(accepted) + 1


def test_memory_only_writes_nothing_to_disk(tmp_path: Path) -> None:
    cut(tmp_path, "None", 1.5)
    assert not (tmp_path / "queue" / "cache.db").exists()


def test_a_save_that_came_late_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given: a disk that takes longer than the window
    import threading

    from resilient_exporters.delivery.spool import Spool

    write = Spool.write
    gate = threading.Event()

    def slow(self: Spool, *arguments: object) -> None:
        gate.wait()
        write(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Spool, "write", slow)
    exporter = Target(ConnectionError("down"), retry=3600, loss_window=0.05)
    exporter.send(1)

    # When
    assert not exporter.save(0.2)
    gate.set()
    assert exporter.save(SECONDS)

    # Then
    assert exporter.stats().late_saves == 1
