"""The page of pycstbox.export, member by member, by the old names and as its users write."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters import compat
from resilient_exporters.compat.pycstbox_export import Backlog, EventsExportJob, ExportError
from resilient_exporters.jobs import ExportProcess


class Upload(EventsExportJob):
    """As users write them: a file is written, and sent."""

    def __init__(self, jobname: str, jobid: str, parms: dict, logger: Any = None) -> None:
        EventsExportJob.__init__(self, jobname, jobid, parms, logger)
        self._path = Path(parms["dir"]) / f"{jobid}.csv"
        self.trace: list[Any] = []

    def prepare(self) -> None:
        self.trace.append("prepare")
        if self._parms.get("prepare"):
            raise ExportError("cannot prepare", self._parms["prepare"])

    def export_events(self) -> int:
        self.trace.append("export")
        if self._parms.get("export"):
            raise ExportError("cannot export", subcode=self._parms["export"])
        self._path.write_text("a\nb\n")
        return self._parms.get("count", 2)

    def send_data(self) -> None:
        self.trace.append("send")
        self.log_info("sending %s", self._path)
        if self.trace.count("send") <= self._parms.get("fails", 0):
            raise ExportError("no answer", subcode=self._parms.get("send", 0))

    def cleanup(self, error: ExportError | None = None) -> None:
        self.trace.append(("cleanup", error))
        self._path.unlink(missing_ok=True)


@pytest.fixture
def parms(tmp_path: Path) -> dict[str, Any]:
    return {"dir": str(tmp_path)}


# -- class pycstbox.export.EventsExportJob(jobname, jobid, parms, logger=None) --------------------------------------


def test_mandatory_parameters_are_not_empty(parms: dict) -> None:
    for arguments in (("", "1", parms), ("n", "", parms), ("n", "1", None)):
        with pytest.raises(ValueError, match="is not possible"):
            Upload(*arguments)


def test_make_jobid_is_the_time_and_can_be_overridden() -> None:
    assert EventsExportJob.make_jobid(datetime(2015, 6, 19, 17, 7, 36, 658131)).startswith("150619170736")
    assert EventsExportJob.make_jobid(ts=datetime(2015, 6, 19, 17, 7, 36), digits=12) == "150619170736"

    # If not specified, the current UTC date and time
    before, made, after = (datetime.now(timezone.utc), EventsExportJob.make_jobid(), datetime.now(timezone.utc))
    pattern = "%y%m%d%H%M%S%f"
    assert before.strftime(pattern) <= made <= (after + timedelta(seconds=1)).strftime(pattern)

    class Numbered(Upload):
        @staticmethod
        def make_jobid(ts: Any = None) -> str:  # type: ignore[override] # as users of old have it
            return "job-42"

    assert Numbered.make_jobid() == "job-42"


def test_run_goes_through_the_steps(parms: dict) -> None:
    job = Upload("upload", "1", parms)
    assert job.run() == 0
    assert job.trace == ["prepare", "export", "send", ("cleanup", None)]
    assert job.job_id == "1"
    assert job.last_error is None


@pytest.mark.parametrize(
    ("more", "max_try", "code", "sends"),
    [({}, 1, 0, 1), ({"fails": 9, "send": 2}, 2, 302, 2), ({"fails": 1}, 2, 0, 2), ({"prepare": 7}, 1, 107, 0),
     ({"export": 105}, 1, 205, 0), ({"fails": 1}, 1, 300, 1), ({"count": 0}, 1, 0, 0)],
    ids=repr,
)  # fmt: skip
def test_run_retries_the_transfer_and_returns_a_code(
    parms: dict, more: dict, max_try: int, code: int, sends: int
) -> None:
    job = Upload("upload", "1", {**parms, **more})
    assert job.run(max_try=max_try, retry_delay=0) == code
    assert job.trace.count("send") == sends
    assert job.trace[-1] == ("cleanup", job.last_error)
    assert isinstance(job.last_error, ExportError) == (code != 0)
    if job.last_error is not None:
        assert job.last_error.subcode == code % 100


@pytest.mark.parametrize("arguments", [(0, 10), (-1, 10), (1, -1), ("1", 10), (1.5, 10), (1, "10")], ids=repr)
def test_run_refuses_invalid_parameters(parms: dict, arguments: tuple) -> None:
    with pytest.raises(ValueError, match="is not possible"):
        Upload("upload", "1", parms).run(*arguments)


def test_codes_are_pre_defined_for_the_steps() -> None:
    names = EventsExportJob.ERR_NAMES
    codes = [EventsExportJob.ERR_NONE, EventsExportJob.ERR_PREPARE]
    codes += [EventsExportJob.ERR_EXPORT_EVENTS, EventsExportJob.ERR_SEND]
    assert codes == [0, 100, 200, 300]
    assert [EventsExportJob.error_text(code) for code in codes] == [names[code] for code in codes]


def test_prepare_and_cleanup_are_optional_export_and_send_are_not() -> None:
    class Least(EventsExportJob):
        def export_events(self) -> int:
            return 1

        def send_data(self) -> None:
            """Gone."""

    assert Least("least", "1", {}).run() == 0

    class TooLittle(EventsExportJob):
        def export_events(self) -> int:
            return 1

    with pytest.raises(TypeError, match="send_data"):
        TooLittle("n", "1", {})  # type: ignore[abstract] # that is the point


def test_a_job_that_failed_is_put_aside_and_attempted_again_at_the_next_slot(tmp_path: Path) -> None:
    # Given "the two steps retry mechanism": both tries of a slot fail
    backlog = Backlog("upload", tmp_path)
    parms = {"dir": str(tmp_path), "fails": 2}
    first = ExportProcess(Upload, backlog, parms)
    assert first.run(max_try=2, retry_delay=0) == 300
    assert list(backlog) == [first.report.job]

    # When the next slot has one more try
    second = ExportProcess(Upload, backlog, {"dir": str(tmp_path)})
    assert second.run(max_try=3, retry_delay=0) == 0

    # Then
    assert second.report.succeeded == [first.report.job, second.report.job]
    assert backlog.is_empty()


# -- class pycstbox.export.Backlog(name, root=None) -----------------------------------------------------------------


def test_a_backlog_is_a_sub_directory_of_the_root_made_with_its_parents(tmp_path: Path) -> None:
    backlog = Backlog("upload", str(tmp_path / "not" / "yet"))
    assert (tmp_path / "not" / "yet" / "upload").is_dir()
    assert backlog.is_empty()


def test_without_a_root_it_is_the_default_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Backlog.DEFAULT_LOCATION_ROOT == "/var/spool/cstbox/export"
    monkeypatch.setattr(Backlog, "DEFAULT_LOCATION_ROOT", str(tmp_path / "spool"))
    Backlog("upload")
    assert (tmp_path / "spool" / "upload").is_dir()


def test_a_path_that_does_not_comply_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, root in (("", tmp_path), ("file", tmp_path), ("a/b", tmp_path)):
        with pytest.raises(ValueError, match=r"name=|cannot be made"):
            Backlog(name, root)


def test_another_format_by_store_and_load(tmp_path: Path) -> None:
    class Text(Backlog):
        def _store(self, job_id: str, parms: Any) -> None:
            self.entry_path(job_id).write_text(repr(parms))

        def _load(self, job_id: str) -> Any:
            import ast

            return ast.literal_eval(self.entry_path(job_id).read_text())

    backlog = Text("text", tmp_path)
    backlog["1"] = {"a": (1, 2)}
    assert backlog["1"] == {"a": (1, 2)}
    assert backlog.entry_path("1").read_text() == "{'a': (1, 2)}"


def test_clear_and_delete(tmp_path: Path) -> None:
    backlog = Backlog("upload", tmp_path)
    backlog["1"], backlog["2"] = {}, {}
    with pytest.raises(IOError, match="not empty") as caught:
        backlog.delete()
    assert caught.value.errno == errno.ENOTEMPTY
    backlog.clear()
    assert len(backlog) == 0
    backlog.delete()
    assert not (tmp_path / "upload").exists()
    with pytest.raises(IOError, match="deleted"):
        backlog["1"] = {}


# -- the old name itself --------------------------------------------------------------------------------------------


@pytest.fixture
def installed() -> Iterator[None]:
    compat.install("pycstbox")
    yield
    for name in ("pycstbox", "pycstbox.export"):
        sys.modules.pop(name, None)


def test_old_code_runs_as_it_is_once_the_name_is_installed(installed: None) -> None:
    from pycstbox import export  # type: ignore[import-not-found] # it is there once installed
    from pycstbox.export import Backlog as Old  # type: ignore[import-not-found] # as above

    assert export.EventsExportJob is EventsExportJob
    assert Old is Backlog
