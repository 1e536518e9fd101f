from __future__ import annotations

import logging
import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from resilient_exporters import retrying
from resilient_exporters.jobs import ERR_MULTIPLE, EventsExportJob, ExportError


class Job(EventsExportJob):
    """Does what its parameters say, and keeps what happened."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: list[Any] = []

    def _do(self, step: str) -> Any:
        self.calls.append(step)
        what = self.parms.get(step)
        if isinstance(what, list):
            what = what.pop(0) if what else None
        if isinstance(what, BaseException):
            raise what
        return what

    def prepare(self) -> None:
        self._do("prepare")

    def export_events(self) -> int:
        self._do("export")
        return self.parms.get("count", 3)

    def send_data(self) -> None:
        self._do("send")

    def cleanup(self, error: ExportError | None = None) -> None:
        self.calls.append(("cleanup", error))
        self._do("clean")


def job(**parms: Any) -> Job:
    return Job("nightly", "260101000000000000", parms)


def test_a_job_runs_its_steps_in_order() -> None:
    made = job()
    assert made.run() == 0
    assert made.calls == ["prepare", "export", "send", ("cleanup", None), "clean"]
    assert made.last_error is None


@pytest.mark.parametrize(
    ("parms", "code", "calls"),
    [
        ({"prepare": ExportError("no", 7)}, 107, ["prepare"]),
        ({"export": ExportError("no", 105)}, 205, ["prepare", "export"]),
        ({"send": [ExportError("no", 2), ExportError("no", 2)]}, 302, ["prepare", "export", "send", "send"]),
        ({"send": [ExportError("once")]}, 0, ["prepare", "export", "send", "send"]),
        ({"send": [OSError("no link"), OSError("no link")]}, 300, ["prepare", "export", "send", "send"]),
        ({"prepare": ValueError("a bug")}, 100, ["prepare"]),
        ({"count": 0}, 0, ["prepare", "export"]),
    ],
)
def test_the_code_is_that_of_the_step_and_only_send_is_retried(parms: dict, code: int, calls: list[str]) -> None:
    made = job(**parms)
    assert made.run(max_try=2, retry_delay=0) == code
    assert made.calls == [*calls, ("cleanup", made.last_error), "clean"]
    assert (made.last_error is None) == (code == 0)


def test_an_unexpected_exception_is_logged_cleaned_up_after_and_kept_as_the_cause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Before: it escaped from run, and cleanup was never called.
    cause = RuntimeError("disk on fire")
    made = job(export=cause)

    assert made.run() == 200
    assert isinstance(made.last_error, ExportError)
    assert made.last_error.__cause__ is cause
    assert made.calls[-2] == ("cleanup", made.last_error)
    assert any(record.exc_info and record.exc_info[1] is cause for record in caplog.records)


def test_cleanup_is_called_when_somebody_presses_ctrl_c() -> None:
    made = job(send=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        made.run(max_try=3, retry_delay=0)
    assert made.calls[-2] == ("cleanup", made.last_error)
    assert "KeyboardInterrupt" in str(made.last_error)


def test_a_cleanup_that_fails_does_not_make_a_failure_of_what_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    assert job(clean=OSError("busy")).run() == 0
    assert "cleanup failed" in caplog.text


def test_nothing_to_send_is_a_success_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    made = job(count=0)
    assert made.run() == 0
    assert "send" not in made.calls
    assert [record.levelname for record in caplog.records if "no events" in record.message] == ["WARNING"]


def test_the_wait_between_tries_is_that_of_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    defaults = retrying.retrying.__kwdefaults__ or {}
    monkeypatch.setattr(retrying.retrying, "__kwdefaults__", {**defaults, "sleep": waits.append})
    made = job(send=[OSError()] * 3)
    assert made.run(max_try=3, retry_delay=timedelta(minutes=1)) == 300
    assert waits == [60.0, 60.0]


@pytest.mark.parametrize(
    "arguments",
    [{"max_try": 0}, {"max_try": -1}, {"max_try": 1.5}, {"max_try": "2"}, {"max_try": True}, {"max_try": None},
     {"retry_delay": -1}, {"retry_delay": "10"}, {"retry_delay": None}, {"retry_delay": float("inf")}],
    ids=repr,
)  # fmt: skip
def test_parameters_of_run_that_cannot_be_are_refused_before_anything_runs(arguments: dict) -> None:
    made = job()
    with pytest.raises(ValueError, match=f"{next(iter(arguments))}=|wait="):
        made.run(**arguments)
    assert made.calls == []


@pytest.mark.parametrize("arguments", [("", "1", {}), ("n", "", {}), ("n", "1", None), (None, "1", {})], ids=repr)
def test_a_job_without_name_id_or_parameters_is_refused(arguments: tuple) -> None:
    with pytest.raises(ValueError, match="is not possible"):
        Job(*arguments)


def test_a_job_without_its_mandatory_steps_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="export_events"):
        EventsExportJob("n", "1", {})  # type: ignore[abstract] # that is the point


@pytest.mark.parametrize(
    ("code", "text"),
    [(0, "no error"), (100, "prepare failed"), (302, "send_data failed (sub-code 2)"), (999, "several jobs failed"),
     (1, "unexpected error"), (450, "entry unreadable (sub-code 50)"), (712, "error 712"), (7, "error 7"),
     (-1, "error -1")],
)  # fmt: skip
def test_every_code_has_a_text(code: int, text: str) -> None:
    # Before: KeyError for 302, which broke the report of the chain.
    assert Job.error_text(code) == text


def test_a_subclass_may_name_codes_of_its_own() -> None:
    class Named(Job):
        ERR_NAMES = {**Job.ERR_NAMES, 302: "the other side is full"}

    assert Named.error_text(302) == "the other side is full"
    assert Named.error_text(303) == "send_data failed (sub-code 3)"


@pytest.mark.parametrize("subcode", [-1, "a", 1.5, None])
def test_a_sub_code_that_is_none_is_refused(subcode: Any) -> None:
    with pytest.raises(ValueError, match="subcode="):
        ExportError("no", subcode)


def test_ids_are_never_the_same_twice_and_sort_by_time() -> None:
    # Before: the time of the import, for ever.
    ids: list[str] = []

    def make() -> None:
        mine = [EventsExportJob.make_jobid() for _ in range(2000)]
        assert mine == sorted(mine)
        ids.extend(mine)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 8000
    assert {len(one) for one in ids} == {18}


def test_an_id_of_a_given_time_is_that_time() -> None:
    moment = datetime(2015, 6, 19, 17, 7, 36, 658131)
    assert EventsExportJob.make_jobid(moment) == "150619170736658131"
    assert EventsExportJob.make_jobid(moment, digits=12) == "150619170736"
    east = moment.replace(tzinfo=timezone(timedelta(hours=2)))
    assert EventsExportJob.make_jobid(east, digits=12) == "150619150736"
    with pytest.raises(ValueError, match="digits=14"):
        EventsExportJob.make_jobid(digits=14)


def test_short_ids_of_one_second_differ() -> None:
    ids = [EventsExportJob.make_jobid(digits=12) for _ in range(5)]
    assert ids == sorted(set(ids))


def test_the_given_logger_is_used(caplog: pytest.LogCaptureFixture) -> None:
    # Before: it was taken and ignored.
    caplog.set_level(logging.INFO)
    given = logging.getLogger("the.given.one")
    Job("nightly", "1", {}, logger=given).run()
    assert {record.name for record in caplog.records} == {"the.given.one"}

    caplog.clear()
    Job("nightly", "1", {}, None).run()
    assert {record.name for record in caplog.records} == {"resilient_exporters.jobs.nightly"}


def test_an_adapter_will_do_as_a_logger(caplog: pytest.LogCaptureFixture) -> None:
    adapter = logging.LoggerAdapter(logging.getLogger("adapted"), {})
    made = Job("nightly", "1", {"send": [OSError("no link")]}, logger=adapter)
    assert made.run(max_try=2, retry_delay=0) == 0
    assert {record.name for record in caplog.records} == {"adapted"}


def test_parameters_are_logged_without_their_secrets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    job(host="h1", password="hunter2", login={"user": "u", "api_key": "k-123"}, tokens=["t-1"])
    assert "h1" in caplog.text
    assert not [secret for secret in ("hunter2", "k-123", "t-1") if secret in caplog.text]


def test_a_subclass_decides_what_is_displayed(caplog: pytest.LogCaptureFixture) -> None:
    class Quiet(Job):
        def _format_parms(self) -> str:
            return "nothing to see"

    caplog.set_level(logging.INFO)
    Quiet("n", "1", {"host": "h1"})
    assert "nothing to see" in caplog.text
    assert "h1" not in caplog.text


def test_the_log_methods_of_old_are_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    made = job()
    caplog.clear()
    for name in ("debug", "info", "warning", "warn", "error", "critical"):
        getattr(made, f"log_{name}")("%s it is", name)
    try:
        raise ValueError("x")
    except ValueError:
        made.log_exception("%s it is", "exception")
    levels = ["DEBUG", "INFO", "WARNING", "WARNING", "ERROR", "CRITICAL", "ERROR"]
    assert [record.levelname for record in caplog.records] == levels
    assert caplog.records[-1].exc_info


def test_the_codes_are_those_of_old() -> None:
    assert (Job.ERR_NONE, Job.ERR_PREPARE, Job.ERR_EXPORT_EVENTS, Job.ERR_SEND, ERR_MULTIPLE) == (0, 100, 200, 300, 999)
