"""What holds for every test: queues in the test's own folder, nothing left in shared memory, no thread left behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from resilient_exporters import ClosedError
from resilient_exporters.delivery import engine
from resilient_exporters.delivery.ring import ring_path
from tests.programs import end_all
from tests.targets import PATIENCE

# How long an example takes says something about the machine, and nothing about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A shell starts what goes on in the background with Ctrl-C ignored, and so would be every program of a test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_queues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Queue directories lie under ``tmp_path``. What a test leaves open is closed, its rings are removed."""
    root = tmp_path / "queues"
    monkeypatch.setenv("RESILIENT_EXPORTERS_DIR", str(root))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    open_before = set(engine._LIVE)
    yield root
    for left in set(engine._LIVE) - open_before:
        with suppress(ClosedError):  # it may be closing itself: nobody holds its exporter any more
            left.close(0.0)
    for lock in tmp_path.rglob("lock"):
        ring = ring_path(lock.parent)
        if ring is not None:
            ring.unlink(missing_ok=True)
            for aside in ring.parent.glob(f"{ring.stem}.*.damaged"):
                aside.unlink()


@pytest.fixture(autouse=True)
def no_program_left() -> Iterator[None]:
    """What a test that failed left running is ended."""
    yield
    end_all()


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """A thread that keeps the program from ending is a defect."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in set(threading.enumerate()) - before if not thread.daemon]
    for thread in left:
        thread.join(PATIENCE)
    alive = [thread.name for thread in left if thread.is_alive()]
    assert not alive, f"non-daemon threads left: {alive}"
