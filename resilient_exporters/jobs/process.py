"""ExportProcess: one slot. Today's job goes into the backlog first, then every entry is run, oldest first."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec

from resilient_exporters.delivery.clock import Clock, QueueClock
from resilient_exporters.errors import EncodingError, InvalidConfigError
from resilient_exporters.jobs.backlog import Backlog
from resilient_exporters.jobs.codes import ERR_LOAD, ERR_MULTIPLE, ERR_NONE, ERR_UNEXPECTED, error_text
from resilient_exporters.jobs.errors import CorruptEntryError
from resilient_exporters.jobs.holding import Holding, put_new
from resilient_exporters.jobs.job import EventsExportJob, policy_of
from resilient_exporters.units import parse_callable, parse_count, parse_seconds

__all__ = ["ExportProcess", "ProcessReport"]


class ProcessReport(msgspec.Struct):
    """What became of the entries of a slot.

    Attributes:
        job: id of this slot's own job.
        leftovers: ids that waited from earlier slots.
        succeeded: ids that were run well, and are gone from the backlog.
        failed: id to code of those that wait for the next slot, are dead, or could not be read.
        errors: id to what the failure said.
        skipped: ids that another process runs, or was faster with.
        finished: ids that had succeeded before, in a run that was killed before it could remove them; not run again.
        dead: ids that were given up after this run.
        corrupt: id to the file in which an unreadable entry was set aside.
        code: 0, the code of the one that failed, or 999.
        seconds: how long it took.
    """

    job: str = ""
    leftovers: list[str] = []
    succeeded: list[str] = []
    failed: dict[str, int] = {}
    errors: dict[str, str] = {}
    skipped: list[str] = []
    finished: list[str] = []
    dead: list[str] = []
    corrupt: dict[str, str] = {}
    code: int = ERR_NONE
    seconds: float = 0.0

    def __str__(self) -> str:
        counts = (
            (len(self.succeeded), "succeeded"), (len(self.failed), "failed"), (len(self.dead), "of them dead now"),
            (len(self.corrupt), "of them unreadable"), (len(self.skipped), "run elsewhere"),
            (len(self.finished), "had succeeded before"),
        )  # fmt: skip
        what = ", ".join(f"{count} {text}" for count, text in counts if count) or "nothing to do"
        return f"{what}; {error_text(self.code)}"


class ExportProcess:
    """One slot of a scheduled export: today's job, and what earlier slots could not do.

    Killed at any instant, the next slot goes on: an entry is in the backlog before it is run, and a success is noted
    before anything else is done. Two slots at once share the entries; none is run by both.

    Args:
        job_class: an ``EventsExportJob``; or a function that takes its arguments (jobname, jobid, parms).
        backlog: of this export.
        parms: of today's job, beside ``date``; or a function of the date that returns them.
        jobname: default: the name of the backlog.
        date_offset: ``date`` is today (UTC) less so many days.
        max_attempts: runs after which an entry is given up, and kept with the dead; None: never.
        max_age: seconds after which an entry that fails is given up; None: never.
        logger: for the process and its jobs.
        clock: of the machine, for tests.

    Raises:
        InvalidConfigError: an option cannot be what was given.

    Attributes:
        report: on the last run.
    """

    def __init__(
        self,
        job_class: Callable[..., EventsExportJob],
        backlog: Backlog,
        parms: Mapping[str, Any] | Callable[[Any], Mapping[str, Any]] | None = None,
        *,
        jobname: str | None = None,
        date_offset: int = 1,
        max_attempts: int | None = None,
        max_age: float | timedelta | None = None,
        logger: logging.Logger | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._job_class = parse_callable(job_class, "job_class")
        if not isinstance(backlog, Backlog):
            raise InvalidConfigError(f"backlog={backlog!r} is not possible; give a Backlog")
        if not (parms is None or isinstance(parms, Mapping) or callable(parms)):
            raise InvalidConfigError(f"parms={parms!r:.80} is not possible; give a mapping, or a function of the date")
        if isinstance(date_offset, bool) or not isinstance(date_offset, int):
            raise InvalidConfigError(f"date_offset={date_offset!r} is not possible; give a number of days")
        self.backlog = backlog
        self.jobname = jobname or backlog.name
        self.report = ProcessReport()
        self._parms = parms
        self._days = abs(date_offset)
        self._max_attempts = parse_count(max_attempts, "max_attempts", none_ok=True)
        self._max_age = parse_seconds(max_age, "max_age", none_ok=True)
        self._logger = logger
        self._log = logger or logging.getLogger(f"resilient_exporters.jobs.{self.jobname}")
        self._clock = clock or Clock()
        self._begun: float | None = self._clock.now()

    @property
    def failed_jobs(self) -> dict[str, int]:
        """Id to code of the jobs that failed in the last run."""
        return self.report.failed

    def run(self, max_try: int = 3, retry_delay: float | timedelta = 10) -> int:
        """Run the slot.

        Args:
            max_try, retry_delay: of ``EventsExportJob.run``, for each entry.

        Returns:
            0 if all went well, the code of the job that failed, or 999 if several did. As the exit code of a program
            it would be cut to 8 bits: 256 would be a success. ``rexport jobs run`` exits with 1.

        Raises:
            ValueError: a parameter cannot be.
            EncodingError: ``parms`` hold something that cannot be kept.
        """
        policy_of(max_try, retry_delay)  # before anything is stored
        begun = time.monotonic()
        since, self._begun = self._clock.now() if self._begun is None else self._begun, None
        self.report = report = ProcessReport(leftovers=list(self.backlog))
        if report.leftovers:
            self._log.info("%s: %d jobs wait from earlier slots", self.jobname, len(report.leftovers))
        report.job, parms = self._make_jobid(), self._todays_parms()
        kept = self._put(report.job, parms, since)
        self._run_all(max_try, retry_delay)
        if not kept:
            self._note(report.job, *self._run_job(report.job, parms, None, max_try, retry_delay))
        codes = list(report.failed.values())
        report.code = ERR_NONE if not codes else codes[0] if len(codes) == 1 else ERR_MULTIPLE
        report.seconds = time.monotonic() - begun
        self._log.log(logging.WARNING if codes else logging.INFO, "%s: %s", self.jobname, report)
        return report.code

    def _make_jobid(self) -> str:
        make = getattr(self._job_class, "make_jobid", EventsExportJob.make_jobid)
        job_id: str = make()
        return job_id

    def _todays_parms(self) -> dict[str, Any]:
        now = datetime.fromtimestamp(self._clock.time(), timezone.utc)
        date = (now - timedelta(days=self._days)).date()
        given = self._parms(date) if callable(self._parms) else self._parms
        return {"date": date, **(given or {})}

    def _put(self, job_id: str, parms: dict[str, Any], since: float) -> bool:
        """Keep today's job. False: there is no way to, and it has to be run without a net."""
        try:
            self.backlog.tidy(self._clock)
            if not put_new(self.backlog, job_id, parms, self._clock, since):
                self._log.info("%s: %s is in the backlog already, or another process has run it", self.jobname, job_id)
                if job_id not in self.backlog:
                    self.report.skipped.append(job_id)
        except EncodingError:
            raise
        except OSError as error:
            text = "%s: the backlog cannot be written (%s): job %s is run, but will be lost if it fails"
            self._log.error(text, self.jobname, error, job_id)
            return False
        return True

    def _run_all(self, max_try: int, retry_delay: float | timedelta) -> None:
        try:
            clock = self.backlog.clock(self._clock)
        except OSError as error:
            self._log.error("%s: the backlog's clock cannot be kept: %s", self.jobname, error)
            clock = QueueClock(self._clock)
        for job_id in list(self.backlog):
            try:
                self._run_entry(job_id, clock, max_try, retry_delay)
            except KeyError:
                self.report.skipped.append(job_id)
            except CorruptEntryError as error:
                aside = self.backlog.set_aside(job_id, str(error))
                if aside is not None:
                    self._note(job_id, ERR_LOAD, str(error))
                    self.report.corrupt[job_id] = str(aside)
            except OSError as error:
                self._log.error("%s: entry %s cannot be read or noted just now: %s", self.jobname, job_id, error)
                self._note(job_id, ERR_LOAD, str(error))

    def _run_entry(self, job_id: str, clock: QueueClock, max_try: int, retry_delay: float | timedelta) -> None:
        holding = Holding.take(self.backlog, job_id, clock)
        if holding is None:
            self._log.info("%s: %s runs elsewhere", self.jobname, job_id)
            self.report.skipped.append(job_id)
            return
        with holding:
            if holding.finished:
                holding.remove()
                self.report.finished.append(job_id)
                return
            parms = holding.begin()
            code, error = self._run_job(job_id, parms, holding, max_try, retry_delay)
            self._note(job_id, code, error)
            try:
                if code == ERR_NONE:
                    holding.remove()
                else:
                    holding.failed(code, error)
                    self._bury_if_due(job_id, holding)
            except OSError as trouble:
                self._log.error("%s: what became of %s cannot be noted: %s", self.jobname, job_id, trouble)

    def _bury_if_due(self, job_id: str, holding: Holding) -> None:
        worn = self._max_attempts is not None and holding.state.attempts >= self._max_attempts
        if worn or (self._max_age is not None and holding.age > self._max_age):
            holding.bury()
            self.report.dead.append(job_id)
            text = "%s: %s is given up after %d attempts in %d s: rexport jobs retry brings it back"
            self._log.error(text, self.jobname, job_id, holding.state.attempts, holding.age)

    def _run_job(
        self, job_id: str, parms: Any, holding: Holding | None, max_try: int, retry_delay: float | timedelta
    ) -> tuple[int, str]:
        noted = _Once(holding.succeeded if holding is not None else _nothing, self._log)
        try:
            more = {} if self._logger is None else {"logger": self._logger}
            job = self._job_class(self.jobname, job_id, parms, **more)
            job._notes = holding
            if getattr(type(job), "run", None) is EventsExportJob.run:
                job._on_success = noted  # before cleanup; a ``run`` of the class's own may yet think otherwise
            code: Any = job.run(max_try, retry_delay)
        except Exception as error:  # noqa: BLE001 - one job must not stop the others
            self._log.exception("%s: %s ended in an unexpected way", self.jobname, job_id)
            return ERR_UNEXPECTED, repr(error)
        if isinstance(code, bool) or not isinstance(code, int):
            return ERR_UNEXPECTED, f"run() returned {code!r:.80}, which is no code"
        if code == ERR_NONE:
            noted()
            return code, ""
        return code, str(job.last_error or error_text(code))

    def _note(self, job_id: str, code: int, error: str) -> None:
        if code == ERR_NONE:
            self.report.succeeded.append(job_id)
            return
        self.report.failed[job_id] = code
        self.report.errors[job_id] = error
        self._log.error("%s: %s: %s (%s)", self.jobname, job_id, error_text(code), error)


class _Once:
    """Notes a success once; a disk that does not take the note must not make a failure of it."""

    def __init__(self, note: Callable[[], None], log: logging.Logger) -> None:
        self._note = note
        self._log = log
        self._noted = False

    def __call__(self) -> None:
        if self._noted:
            return
        try:
            self._note()
            self._noted = True
        except OSError as error:
            self._log.error("a success cannot be noted, the job may run again: %s", error)


def _nothing() -> None:
    """Where there is no entry there is nothing to note."""
