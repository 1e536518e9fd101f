"""EventsExportJob: one run that prepares, exports, sends with retries, and cleans up on every path."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar, Final

from resilient_exporters.errors import InvalidConfigError
from resilient_exporters.exporter import Exporter
from resilient_exporters.jobs import codes
from resilient_exporters.jobs.bridge import Notes, Sending
from resilient_exporters.jobs.errors import ExportError
from resilient_exporters.jobs.loggable import Loggable
from resilient_exporters.policy import RetryPolicy
from resilient_exporters.retrying import retrying
from resilient_exporters.units import parse_count, parse_seconds

__all__ = ["EventsExportJob", "policy_of", "veiled"]

_DIGITS: Final = {18: ("%y%m%d%H%M%S%f", timedelta(microseconds=1)), 12: ("%y%m%d%H%M%S", timedelta(seconds=1))}
_SECRET: Final = ("passw", "passphrase", "pwd", "secret", "token", "credential", "apikey", "api_key", "auth")


class EventsExportJob(Loggable, ABC):
    """Extracts data and sends it somewhere; written once, run for each slot by an ``ExportProcess``.

    A subclass defines ``export_events`` and ``send_data``, and ``prepare`` and ``cleanup`` if it needs them. A step
    fails by raising: an ``ExportError`` with a sub-code, or anything else.

    Args:
        jobname: unique across the application.
        jobid: unique; ids in alphabetical order are in the order of time.
        parms: what to export; whatever the subclass understands. ``{}`` is fine.
        logger: used for all that is logged. Default: one named after the job.

    Attributes:
        jobname, parms: as given.

    Raises:
        ValueError: no name, no id, or ``parms`` is None.
    """

    ERR_NONE: ClassVar[int] = codes.ERR_NONE
    ERR_PREPARE: ClassVar[int] = codes.ERR_PREPARE
    ERR_EXPORT_EVENTS: ClassVar[int] = codes.ERR_EXPORT_EVENTS
    ERR_SEND: ClassVar[int] = codes.ERR_SEND
    ERR_NAMES: ClassVar[dict[int, str]] = codes.ERR_NAMES

    def __init__(self, jobname: str, jobid: str, parms: Any, logger: logging.Logger | None = None) -> None:
        for name, value in (("jobname", jobname), ("jobid", jobid)):
            if not value or not isinstance(value, str):
                raise InvalidConfigError(f"{name}={value!r} is not possible; give a text that is not empty")
        if parms is None:
            raise InvalidConfigError("parms=None is not possible; give the parameters of the job, {} if it has none")
        super().__init__(jobname, logger)
        self.jobname = self._jobname = jobname
        self._jobid = jobid
        self.parms = self._parms = parms
        self._last_error: ExportError | None = None
        self._sending: dict[int, Sending] = {}
        self._notes: Notes | None = None
        self._on_success: Callable[[], None] = _nothing
        self.log_info("job %s (%s) created with %s", jobid, jobname, self._format_parms())

    # -- for subclasses ------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Get ready. Called before anything else."""

    @abstractmethod
    def export_events(self) -> int:
        """Export the events in whatever form suits the process.

        Returns:
            How many there are. 0: there is nothing to send, and the job has succeeded.
        """

    @abstractmethod
    def send_data(self) -> None:
        """Send what was exported. Called again after a failure, up to ``max_try`` times."""

    def cleanup(self, error: ExportError | None = None) -> None:
        """Tidy up. Called at the end of every run, whatever happened.

        Args:
            error: what went wrong, if anything did.
        """

    def _format_parms(self) -> str:
        """The parameters as the log may show them: values whose names sound secret are hidden."""
        return str(veiled(self._parms))

    # -- what it is ----------------------------------------------------------------------------------------------

    @property
    def job_id(self) -> str:
        """The id of the job."""
        return self._jobid

    @property
    def last_error(self) -> ExportError | None:
        """Why the last run failed; None if it did not. The exception behind it is its ``__cause__``."""
        return self._last_error

    @classmethod
    def error_text(cls, code: int) -> str:
        """What a result code means; a sub-code is named."""
        return codes.error_text(code, cls.ERR_NAMES)

    @staticmethod
    def make_jobid(ts: datetime | None = None, *, digits: int = 18) -> str:
        """An id that sorts by time: YYMMDDHHMMSS and, with 18 digits, microseconds.

        Args:
            ts: a time, UTC if it has no zone. Default: now, or a little later: never the same id twice in a process.
            digits: 18, or the 12 of old.
        """
        if digits not in _DIGITS:
            raise InvalidConfigError(f"digits={digits!r} is not possible; give 18 or 12")
        pattern, step = _DIGITS[digits]
        if ts is not None:
            return (ts if ts.tzinfo is None else ts.astimezone(timezone.utc)).strftime(pattern)
        with _making:
            now = datetime.now(timezone.utc)
            now = max(now if digits == 18 else now.replace(microsecond=0), _last.get(digits, now - step) + step)
            _last[digits] = now
        return now.strftime(pattern)

    # -- running -------------------------------------------------------------------------------------------------

    def run(self, max_try: int = 1, retry_delay: float | timedelta = 10) -> int:
        """Prepare, export, send, clean up.

        Args:
            max_try: how often ``send_data`` is tried at most.
            retry_delay: seconds between two tries; not too short, or the other side takes it for an attack. A tenacity
                ``wait_*`` strategy will do as well.

        Returns:
            0, or the code of the step that failed plus the sub-code of the error; then ``last_error`` says more.

        Raises:
            ValueError: a parameter cannot be.
        """
        policy = policy_of(max_try, retry_delay)
        self._last_error, step, code = None, self.ERR_PREPARE, self.ERR_NONE
        try:
            self.prepare()
            step = self.ERR_EXPORT_EVENTS
            count = self.export_events()
            if count:
                step = self.ERR_SEND
                self.log_info("job %s: %s events to send", self._jobid, count)
                retrying(self.send_data, f"job {self._jobid}: send_data", policy, log=self._plain_logger())
            else:
                self.log_warning("job %s: no events (export_events returned %r), nothing to send", self._jobid, count)
            self._on_success()
        except Exception as error:  # noqa: BLE001 - whatever a step raises is that step's failure
            self._last_error = self._as_export_error(error, step)
            code = step + self._last_error.subcode
        except BaseException as error:
            self._last_error = ExportError(f"interrupted by {type(error).__name__}")
            raise
        finally:
            self._clean_up()
        return code

    def _as_export_error(self, error: Exception, step: int) -> ExportError:
        if isinstance(error, ExportError):
            self.log_error("job %s: %s: %s", self._jobid, self.error_text(step + error.subcode), error)
            return error
        self.logger.error("job %s: %s: %r", self._jobid, self.error_text(step), error, exc_info=error)
        wrapped = ExportError(f"{type(error).__name__}: {error}")
        wrapped.__cause__ = error
        return wrapped

    def _clean_up(self) -> None:
        try:
            self.cleanup(self._last_error)
        except Exception:  # noqa: BLE001 - what was sent is sent: a leftover is no reason to send it again
            self.log_exception("job %s: cleanup failed", self._jobid)

    def _plain_logger(self) -> logging.Logger:
        return self.logger.logger if isinstance(self.logger, logging.LoggerAdapter) else self.logger

    # -- the bridge to exporters ---------------------------------------------------------------------------------

    def send_with(
        self,
        exporter: Exporter,
        rows: Iterable[Any],
        *,
        save_timeout: float = 60.0,
        resume: bool = False,
        **options: Any,
    ) -> int:
        """Hand rows to an exporter. The job has succeeded once they are durable in the exporter's queue.

        They are delivered in the exporter's own time, also after this program has ended, by the next one that opens
        it. A further try goes on after the rows that were accepted before, so ``rows`` must be the same again.

        Args:
            exporter: an exporter or a pool. ``on_full="block"`` makes a full queue wait instead of dropping.
            rows: records.
            save_timeout: seconds that the queue's disk may take.
            resume: nobody but the jobs of this backlog sends to this exporter, and each job once. Then a slot after one
                that was killed goes on after the rows that were accepted, and none comes twice.
            **options: of ``exporter.send``, for each row.

        Returns:
            How many rows are in the queue.

        Raises:
            ExportError: rows were refused or dropped, or could not be saved.
        """
        notes = self._notes if resume else None
        sending = self._sending.setdefault(id(exporter), Sending(exporter, notes))
        return sending.send(rows, save_timeout, options)


def policy_of(max_try: int, retry_delay: Any) -> RetryPolicy:
    """The policy that the two old numbers stand for.

    Raises:
        InvalidConfigError: they cannot be.
    """
    attempts = parse_count(max_try, "max_try")
    if retry_delay is None or isinstance(retry_delay, (int, float, timedelta)):
        retry_delay = parse_seconds(retry_delay, "retry_delay")
    return RetryPolicy(RetryPolicy.parse(retry_delay, "retry_delay").wait, stop=attempts)


def veiled(value: Any, name: str = "") -> Any:
    """A value as it may be shown: what is under a name that sounds secret is hidden."""
    if isinstance(value, Mapping):
        return {key: veiled(one, str(key)) for key, one in value.items()}
    if any(word in name.lower() for word in _SECRET):
        return "***"
    return [veiled(one) for one in value] if isinstance(value, list) else value


def _nothing() -> None:
    """What is done at success by a job that runs for itself."""


_making = threading.Lock()
_last: dict[int, datetime] = {}
