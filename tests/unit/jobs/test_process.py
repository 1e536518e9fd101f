from __future__ import annotations

import errno
import logging
import warnings
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from resilient_exporters import EncodingError
from resilient_exporters.jobs import Backlog, EventsExportJob, ExportError, ExportProcess, ProcessReport
from resilient_exporters.jobs.claim import Claim, read_state
from resilient_exporters.testing import FakeClock
from tests.programs import start


class Job(EventsExportJob):
    """Fails for as long as ``broken`` says; keeps which jobs were sent."""

    sent: ClassVar[list[str]] = []
    broken: ClassVar[dict[str, Any]] = {}
    seen: ClassVar[list[Any]] = []

    def export_events(self) -> int:
        self.seen.append(self.parms)
        return 1

    def send_data(self) -> None:
        what = self.broken.get(self.job_id, self.broken.get("*"))
        if what is not None:
            raise what
        self.sent.append(self.job_id)


@pytest.fixture(autouse=True)
def _fresh_jobs() -> None:
    Job.sent, Job.broken, Job.seen = [], {}, []


@pytest.fixture
def backlog(tmp_path: Path) -> Backlog:
    return Backlog("nightly", tmp_path)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(time=1_700_000_000.0)  # 2023-11-14 22:13 UTC


def slot(backlog: Backlog, make: Callable = Job, **options: Any) -> ExportProcess:
    return ExportProcess(make, backlog, **options)


def run(process: ExportProcess, tries: int = 1) -> int:
    return process.run(max_try=tries, retry_delay=0)


def test_a_slot_runs_todays_job_and_leaves_nothing(backlog: Backlog, clock: FakeClock) -> None:
    process = slot(backlog, clock=clock, parms={"site": 7})
    assert run(process) == 0
    assert Job.seen == [{"date": date(2023, 11, 13), "site": 7}]
    assert Job.sent == [process.report.job] == process.report.succeeded
    assert backlog.is_empty()
    assert process.failed_jobs == {}


@pytest.mark.parametrize("offset", [3, -3, 0])
def test_the_date_is_today_less_some_days(backlog: Backlog, clock: FakeClock, offset: int) -> None:
    run(slot(backlog, clock=clock, date_offset=offset, parms=lambda day: {"file": f"{day:%j}.csv"}))
    day = date(2023, 11, 14) - timedelta(days=abs(offset))
    assert Job.seen == [{"date": day, "file": f"{day:%j}.csv"}]


def test_what_failed_waits_for_the_next_slot_oldest_first(backlog: Backlog) -> None:
    # Given two slots that fail
    Job.broken = {"*": ExportError("down", 4)}
    first = slot(backlog)
    assert run(first, 3) == 304
    assert first.failed_jobs == {first.report.job: 304}
    second = slot(backlog)
    assert run(second) == 999
    assert second.failed_jobs == {first.report.job: 304, second.report.job: 304}
    assert second.report.leftovers == [first.report.job]
    assert list(backlog) == [first.report.job, second.report.job]

    # When the other side is back
    Job.broken, Job.seen = {}, []
    third = slot(backlog)

    # Then
    assert run(third) == 0
    assert Job.sent == [first.report.job, second.report.job, third.report.job]
    assert backlog.is_empty()


def test_one_that_fails_gives_its_code_and_stops_no_other(backlog: Backlog) -> None:
    for job_id in ("000001", "000002", "000003"):
        backlog[job_id] = {"id": job_id}
    Job.broken = {"000002": RuntimeError("a bug")}
    process = slot(backlog)
    assert run(process) == 300
    assert process.failed_jobs == {"000002": 300}
    assert Job.sent == ["000001", "000003", process.report.job]
    assert list(backlog) == ["000002"]
    assert "a bug" in process.report.errors["000002"]


def test_todays_job_is_in_the_backlog_before_it_runs(backlog: Backlog) -> None:
    found: list[list[str]] = []

    class Looks(Job):
        def prepare(self) -> None:
            found.append(list(backlog))

    process = slot(backlog, Looks)
    run(process)
    assert found == [[process.report.job]]


def test_a_corrupt_entry_blocks_nobody(backlog: Backlog) -> None:
    # Before: UnpicklingError out of the whole chain, at every slot.
    for job_id in ("000001", "000002", "000003"):
        backlog[job_id] = {}
    backlog.entry_path("000001").write_bytes(b"\x80\x04 half a pickle")
    process = slot(backlog)
    assert run(process) == 400
    assert Job.sent == ["000002", "000003", process.report.job]
    assert list(process.report.corrupt) == ["000001"]
    assert Path(process.report.corrupt["000001"]).read_bytes() == b"\x80\x04 half a pickle"
    assert run(slot(backlog)) == 0  # said once


def test_a_constructor_that_raises_is_a_failure_of_that_job(backlog: Backlog) -> None:
    class Picky(Job):
        def __init__(self, name: str, job_id: str, parms: Any, logger: Any = None) -> None:
            if "bad" in parms:
                raise LookupError("bad parameters")
            super().__init__(name, job_id, parms, logger)

    backlog["000001"] = {"bad": 1}
    process = slot(backlog, Picky)
    assert run(process) == 1
    assert process.failed_jobs == {"000001": 1}
    assert Job.sent == [process.report.job]


def test_an_interrupt_keeps_the_job(backlog: Backlog) -> None:
    Job.broken = {"*": KeyboardInterrupt()}
    process = slot(backlog)
    with pytest.raises(KeyboardInterrupt):
        run(process)
    assert list(backlog) == [process.report.job]
    Job.broken = {}
    assert run(slot(backlog)) == 0
    assert process.report.job in Job.sent


@pytest.mark.parametrize("where", ["cleanup", "remove"])
def test_a_success_is_never_run_again_wherever_the_process_ends_after_it(
    backlog: Backlog, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    # Given a process that ends after the success, before the entry is removed
    class Killed(BaseException):
        pass

    class Ends(Job):
        def cleanup(self, error: Any = None) -> None:
            if where == "cleanup":
                raise Killed

    def no_removal(self: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        if where == "remove":
            patched.setattr("resilient_exporters.jobs.holding.Holding.remove", no_removal)
        first = slot(backlog, Ends)
        with pytest.raises(Killed):
            run(first)
    assert list(backlog) == [first.report.job]

    # When
    second = slot(backlog)

    # Then
    assert run(second) == 0
    assert Job.sent == [first.report.job, second.report.job]
    assert second.report.finished == [first.report.job]
    assert backlog.is_empty()


def test_a_run_of_the_classs_own_has_the_last_word(backlog: Backlog) -> None:
    # Given a class that looks at what was sent, and is not content with it
    class Verifies(Job):
        def run(self, max_try: int = 1, retry_delay: Any = 10) -> int:
            return super().run(max_try, retry_delay) or 350

    process = slot(backlog, Verifies)
    assert run(process) == 350
    assert not read_state(backlog.claim_path(process.report.job)).done
    assert run(slot(backlog)) == 0
    assert Job.sent.count(process.report.job) == 2


def test_a_run_that_returns_no_code_has_not_succeeded(backlog: Backlog) -> None:
    class Silent(Job):
        def run(self, max_try: int = 1, retry_delay: Any = 10) -> int:
            return None  # type: ignore[return-value] # that is the mistake

    process = slot(backlog, Silent)
    assert run(process) == 1
    assert "returned None" in process.report.errors[process.report.job]
    assert list(backlog) == [process.report.job]


def test_an_entry_that_runs_elsewhere_is_skipped_not_failed(backlog: Backlog) -> None:
    # Given
    backlog["000001"] = {}
    claim = Claim.take(backlog.claim_path("000001"))
    assert claim is not None

    # Then
    process = slot(backlog)
    assert run(process) == 0
    assert process.report.skipped == ["000001"]
    assert list(backlog) == ["000001"]
    claim.release()
    assert run(slot(backlog)) == 0
    assert "000001" in Job.sent


def test_an_entry_stored_anew_while_it_runs_is_not_lost(backlog: Backlog) -> None:
    class Again(Job):
        def send_data(self) -> None:
            super().send_data()
            if self.parms.get("n") == 1:
                backlog[self.job_id] = {"n": 2}

    backlog["000001"] = {"n": 1}
    run(slot(backlog, Again))
    assert backlog["000001"] == {"n": 2}
    run(slot(backlog, Again))
    assert "000001" not in backlog
    assert Job.sent.count("000001") == 2


def test_an_id_that_succeeded_may_be_stored_again(backlog: Backlog) -> None:
    backlog["000001"] = {"n": 1}
    run(slot(backlog))
    backlog["000001"] = {"n": 1}
    run(slot(backlog))
    assert Job.sent.count("000001") == 2


def test_two_slots_with_the_same_id_begun_at_once_are_one(backlog: Backlog, clock: FakeClock) -> None:
    # Given a class whose ids are those of the slot, and two processes for it
    class Daily(Job):
        @staticmethod
        def make_jobid(ts: Any = None) -> str:  # type: ignore[override] # as users of old have it
            return "20231114"

    first, second = slot(backlog, Daily, clock=clock), slot(backlog, Daily, clock=clock)
    clock.advance(5)

    # When one is through before the other looks
    assert run(first) == 0
    assert run(second) == 0

    # Then
    assert Job.sent == ["20231114"]
    assert second.report.skipped == ["20231114"]

    # But a slot that begins later is asked for, and runs
    clock.advance(5)
    assert run(slot(backlog, Daily, clock=clock)) == 0
    assert Job.sent == ["20231114"] * 2


def test_dead_entries_are_kept_apart_and_can_be_brought_back(backlog: Backlog) -> None:
    # Before: an entry that can never succeed was tried for ever.
    Job.broken = {"000001": ExportError("no such table", 9)}
    backlog["000001"] = {"n": 1}
    for _ in range(2):
        assert run(slot(backlog, max_attempts=3)) == 309
    last = slot(backlog, max_attempts=3)
    assert run(last) == 309
    assert last.report.dead == backlog.dead() == ["000001"]
    assert "000001" not in backlog
    state = read_state(backlog.claim_path("000001", "dead"))
    assert (state.attempts, state.code, state.error) == (3, 309, "no such table")
    assert run(slot(backlog, max_attempts=3)) == 0

    # When
    backlog.retry("000001")
    Job.broken = {}
    assert run(slot(backlog, max_attempts=1)) == 0

    # Then
    assert "000001" in Job.sent
    assert backlog.dead() == []
    with pytest.raises(KeyError):
        backlog.retry("000001")
    with pytest.raises(KeyError):
        backlog.discard("000001")


def test_an_entry_is_given_up_at_its_age_and_no_step_of_the_wall_clock_ages_it(
    backlog: Backlog, clock: FakeClock
) -> None:
    Job.broken = {"000001": ExportError("down")}
    backlog["000001"] = {}
    options: dict[str, Any] = {"max_age": timedelta(days=2), "clock": clock}
    for step in (lambda: None, lambda: clock.step_wall(1e8), lambda: clock.advance(86_400), lambda: clock.reboot(1e7)):
        step()
        process = slot(backlog, **options)
        assert run(process) == 300
        assert process.report.dead == []
    clock.advance(86_401)
    process = slot(backlog, **options)
    assert run(process) == 300
    assert process.report.dead == ["000001"]


def test_a_damaged_clock_makes_nothing_old(backlog: Backlog, clock: FakeClock) -> None:
    Job.broken = {"000001": ExportError("down")}
    backlog["000001"] = {}
    for damage in (b"", b"[1]", b"\xff", b'["b", 0, "x"]'):
        run(slot(backlog, max_age=1e6, clock=clock))
        (backlog.directory / ".clock").write_bytes(damage)
    assert list(backlog) == ["000001"]


class Full(Backlog):
    """Its disk takes nothing."""

    def _store(self, job_id: str, parms: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_does_not_keep_todays_job_from_running(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    process = slot(Full("nightly", tmp_path))
    assert run(process) == 0
    assert Job.sent == [process.report.job]
    assert "will be lost if it fails" in caplog.text


def test_a_success_that_cannot_be_noted_is_a_success(
    backlog: Backlog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_room(self: Any, finished: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Claim, "finish", no_room)
    assert run(slot(backlog)) == 0
    assert "cannot be noted" in caplog.text
    assert backlog.is_empty()


def test_parameters_that_cannot_be_kept_are_an_error_of_the_caller(backlog: Backlog) -> None:
    with pytest.raises(EncodingError, match=r"parms\.handle"):
        run(slot(backlog, parms={"handle": object()}))
    assert backlog.is_empty()


@pytest.mark.parametrize(
    "options",
    [{"job_class": 5}, {"backlog": {}}, {"parms": 5}, {"date_offset": "1"}, {"date_offset": True},
     {"max_attempts": 0}, {"max_age": -1}],
    ids=repr,
)  # fmt: skip
def test_options_that_cannot_be_are_refused(backlog: Backlog, options: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}="):
        ExportProcess(**{"job_class": Job, "backlog": backlog, **options})


def test_bad_parameters_of_run_are_refused_before_anything_is_stored(backlog: Backlog) -> None:
    with pytest.raises(ValueError, match="max_try=0"):
        slot(backlog).run(max_try=0)
    assert backlog.is_empty()


def test_the_jobs_get_the_name_and_the_logger(backlog: Backlog, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    given = logging.getLogger("given")
    names: list[str] = []

    class Named(Job):
        def prepare(self) -> None:
            names.append(self.jobname)

    run(slot(backlog, Named, logger=given, jobname="to-the-warehouse"))
    assert names == ["to-the-warehouse"]
    assert {record.name for record in caplog.records} == {"given"}


def test_a_function_makes_the_jobs_too(backlog: Backlog) -> None:
    assert run(slot(backlog, lambda name, job_id, parms: Job(f"{name}-2", job_id, parms))) == 0
    assert len(Job.sent) == 1


def test_the_report_reads_like_a_sentence() -> None:
    assert str(ProcessReport(succeeded=["1", "2"])) == "2 succeeded; no error"
    failed = ProcessReport(failed={"1": 302}, dead=["1"], code=302)
    assert str(failed) == "1 failed, 1 of them dead now; send_data failed (sub-code 2)"
    assert str(ProcessReport()) == "nothing to do; no error"


def test_a_child_that_outlives_its_job_does_not_keep_the_claim(backlog: Backlog) -> None:
    # Given a job that leaves a forked child behind
    class Forks(Job):
        child: ClassVar[Any] = None
        go: ClassVar[Any] = None

        def send_data(self) -> None:
            import multiprocessing

            Forks.go = multiprocessing.get_context("fork").Event()
            Forks.child = multiprocessing.get_context("fork").Process(target=Forks.go.wait, daemon=True)
            Forks.child.start()
            raise ExportError("after the fork")

    backlog["000001"] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork in a process with threads
        run(slot(backlog, lambda *a: Forks(*a) if a[1] == "000001" else Job(*a)))
    try:
        claim = Claim.take(backlog.claim_path("000001"))
        assert claim is not None
        claim.release()
    finally:
        Forks.go.set()
        Forks.child.join()


def test_a_process_that_dies_in_a_job_leaves_it_to_the_next(backlog: Backlog) -> None:
    program = """
        import os, sys
        from resilient_exporters.jobs import *
        class Dies(EventsExportJob):
            def export_events(self): return 1
            def send_data(self): os.abort()
        ExportProcess(Dies, Backlog("nightly", sys.argv[1])).run(1, 0)
    """
    child = start(program, backlog.directory.parent)
    child.communicate()
    assert child.returncode < 0
    assert len(backlog) == 1
    assert run(slot(backlog)) == 0
    assert len(Job.sent) == 2
