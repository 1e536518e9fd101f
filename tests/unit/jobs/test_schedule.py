from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from resilient_exporters import MissingModuleError
from resilient_exporters.jobs import Backlog, EventsExportJob, ExportProcess, add_slot
from tests.programs import run
from tests.targets import PATIENCE

background = pytest.importorskip("apscheduler.schedulers.background")


class Job(EventsExportJob):
    def export_events(self) -> int:
        return 1

    def send_data(self) -> None:
        """Gone."""


@pytest.fixture
def process(tmp_path: Path) -> ExportProcess:
    return ExportProcess(Job, Backlog("nightly", tmp_path))


def test_a_slot_runs_at_its_time_and_a_missed_one_too(process: ExportProcess) -> None:
    # Given a slot that was due an hour ago
    from apscheduler.triggers.date import DateTrigger

    done = threading.Event()
    codes: list[int] = []

    def then(code: int) -> None:
        codes.append(code)
        done.set()

    scheduler = background.BackgroundScheduler(timezone=timezone.utc)
    due = datetime.now(timezone.utc) - timedelta(hours=1)
    made = add_slot(scheduler, process, DateTrigger(due), then=then, id="night")

    # When
    scheduler.start()
    try:
        assert done.wait(PATIENCE)
    finally:
        scheduler.shutdown()

    # Then
    assert codes == [0]
    assert len(process.report.succeeded) == 1
    assert made.id == "night"


def test_cron_is_understood_and_slots_never_overlap(process: ExportProcess) -> None:
    scheduler = background.BackgroundScheduler(timezone=timezone.utc)
    made = add_slot(scheduler, process, "15 2 * * *")
    after = datetime(2026, 11, 21, tzinfo=timezone.utc)
    assert made.trigger.get_next_fire_time(None, after).hour == 2
    assert made.trigger.get_next_fire_time(None, after).minute == 15
    scheduler.start(paused=True)
    try:
        assert (made.max_instances, made.coalesce, made.misfire_grace_time) == (1, True, None)
        assert made.name == "nightly"
    finally:
        scheduler.shutdown()


def test_what_cannot_be_is_refused(process: ExportProcess) -> None:
    scheduler = background.BackgroundScheduler(timezone=timezone.utc)
    with pytest.raises(ValueError, match="Wrong number of fields"):
        add_slot(scheduler, process, "every night")
    with pytest.raises(ValueError, match="max_try=0"):
        add_slot(scheduler, process, "15 2 * * *", max_try=0)
    with pytest.raises(ValueError, match="then="):
        add_slot(scheduler, process, "15 2 * * *", then=5)  # type: ignore[arg-type] # that is the mistake


def test_a_missing_apscheduler_is_named() -> None:
    out = run("""
        import sys
        sys.modules["apscheduler"] = None
        from resilient_exporters.jobs import add_slot
        try:
            add_slot(None, None, "* * * * *")
        except ModuleNotFoundError as error:
            print(error)
    """)
    assert "pip install 'resilient-exporters[schedule]'" in out
    assert issubclass(MissingModuleError, ModuleNotFoundError)
