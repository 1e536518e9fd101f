"""What pycstbox.export got wrong, fault by fault; each would fail on the old behaviour.

FACTS C.4 in its order. The parts' own tests (tests/unit/jobs, tests/laws/test_jobs.py) go further.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.jobs import Backlog, EventsExportJob, ExportError, ExportProcess


class Job(EventsExportJob):
    """Sends by calling ``act``."""

    act: Callable[[Job], None] = staticmethod(lambda job: None)
    cleaned: Any = "never"

    def export_events(self) -> int:
        return 1

    def send_data(self) -> None:
        type(self).act(self)

    def cleanup(self, error: ExportError | None = None) -> None:
        self.cleaned = error


def that(act: Callable[[Any], None]) -> type[Job]:
    return type("Acting", (Job,), {"act": staticmethod(act)})


def fails(job: Any) -> None:
    raise ExportError("down", 2)


@pytest.fixture
def backlog(tmp_path: Path) -> Backlog:
    return Backlog("nightly", tmp_path)


def test_two_jobs_of_one_program_have_two_ids_and_two_entries(backlog: Backlog) -> None:
    # Before: the default id was that of the import, and the second job overwrote the first in the backlog.
    for _ in range(2):
        ExportProcess(that(fails), backlog).run(1, 0)
    assert len(backlog) == 2


def test_an_unexpected_exception_is_cleaned_up_after() -> None:
    # Before: it escaped from run, without cleanup.
    def explodes(job: Any) -> None:
        raise ZeroDivisionError

    job = that(explodes)("n", "1", {})
    assert job.run() == 300
    assert job.cleaned is job.last_error
    assert isinstance(job.last_error, ExportError)
    assert isinstance(job.last_error.__cause__, ZeroDivisionError)


def test_one_corrupt_entry_does_not_block_the_chain(backlog: Backlog) -> None:
    # Before: UnpicklingError, at every slot, for ever.
    sent: list[str] = []
    backlog["000001"], backlog["000002"] = {}, {}
    backlog.entry_path("000001").write_bytes(b"\x80\x02}q")
    process = ExportProcess(that(lambda job: sent.append(job.job_id)), backlog)
    process.run(1, 0)
    assert sent == ["000002", process.report.job]
    assert list(process.report.corrupt) == ["000001"]


def test_an_id_cannot_leave_the_directory(backlog: Backlog, tmp_path: Path) -> None:
    # Before: the check looked at the beginning only.
    for job_id in ("../escaped", "..", "a/../../b", "ok\n../x"):
        if job_id != "..":
            with pytest.raises(ValueError, match="job id"):
                backlog[job_id] = {}
    backlog[".."] = {}  # letters, digits and -_. only: and a name inside of the directory
    assert {path.name for path in tmp_path.iterdir()} == {"nightly"}


def test_a_write_that_breaks_off_leaves_the_entry_as_it_was(backlog: Backlog, monkeypatch: pytest.MonkeyPatch) -> None:
    # Before: the file was truncated first, and then written.
    backlog["1"] = {"n": 1}

    def full(*arguments: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            backlog["1"] = {"n": 2}
    assert backlog["1"] == {"n": 1}


def test_an_entry_is_no_program(backlog: Backlog, tmp_path: Path) -> None:
    # Before: pickle.load, which calls what the file names.
    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "owned"),))

    for name in ("1.json", "1.blog"):
        (backlog.directory / name).write_bytes(pickle.dumps(Evil()))
    ExportProcess(Job, backlog).run(1, 0)
    assert not (tmp_path / "owned").exists()


def test_clear_runs_no_other_program_and_is_silent_when_empty(
    backlog: Backlog, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # Before: `rm`, which complained.
    def refused(*arguments: Any, **options: Any) -> None:
        raise AssertionError("another program was started")

    monkeypatch.setattr(os, "system", refused)
    monkeypatch.setattr(subprocess, "Popen", refused)
    backlog.clear()
    backlog["1"] = {}
    backlog.clear()
    assert backlog.is_empty()
    assert capfd.readouterr() == ("", "")


def test_the_text_of_a_sub_coded_error_does_not_crash_the_report(
    backlog: Backlog, caplog: pytest.LogCaptureFixture
) -> None:
    # Before: KeyError for 302, inside of the chain's own report.
    assert Job.error_text(302) == "send_data failed (sub-code 2)"
    assert ExportProcess(that(fails), backlog).run(1, 0) == 302
    assert "send_data failed (sub-code 2)" in caplog.text


def test_tests_need_not_wait() -> None:
    # Before: ValueError for retry_delay=0.
    assert that(fails)("n", "1", {}).run(max_try=3, retry_delay=0) == 302


def test_an_entry_that_can_never_succeed_is_given_up_when_asked_to(backlog: Backlog) -> None:
    # Before: it was tried for ever.
    for _ in range(3):
        backlog.setdefault("000001", {})
        ExportProcess(lambda *a: (that(fails) if a[1] == "000001" else Job)(*a), backlog, max_attempts=3).run(1, 0)
    assert backlog.dead() == ["000001"]
    assert backlog.is_empty()


def test_the_given_logger_is_the_one_that_is_used(caplog: pytest.LogCaptureFixture) -> None:
    # Before: it was taken, and another one used.
    caplog.set_level(logging.INFO)
    Job("n", "1", {}, logging.getLogger("mine")).run()
    assert {record.name for record in caplog.records} == {"mine"}


def test_two_overlapping_slots_do_not_run_an_entry_twice(backlog: Backlog) -> None:
    # Before: no lock. Here the second slot begins while the first is in the middle of an entry.
    runs: list[str] = []

    def nested(job: Any) -> None:
        runs.append(job.job_id)
        if job.job_id == "000001":
            inner = ExportProcess(that(lambda other: runs.append(other.job_id)), backlog)
            assert inner.run(1, 0) == 0
            assert inner.report.skipped == ["000001"]

    backlog["000001"], backlog["000002"] = {}, {}
    ExportProcess(that(nested), backlog).run(1, 0)
    assert len(runs) == len(set(runs)) == 4
    assert backlog.is_empty()
