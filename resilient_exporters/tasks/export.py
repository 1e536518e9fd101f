"""Export: the bridge from a task's output to any exporter or pool."""

from __future__ import annotations

import time
from typing import Any, ClassVar, NamedTuple

from resilient_exporters.exporter import Exporter
from resilient_exporters.tasks.errors import TaskError
from resilient_exporters.tasks.frames import records
from resilient_exporters.tasks.placeholder import REQUIRED_ATTRIBUTE
from resilient_exporters.tasks.rows import chunks
from resilient_exporters.tasks.task import BaseTask, formatted

__all__ = ["Export", "ExportReport"]

_BATCH = 1000
_SAVING = 60.0  # seconds: a disk that is slow is no reason to fail, one that hangs is


class ExportReport(NamedTuple):
    """What became of the records of an `Export`.

    Attributes:
        accepted: records that the exporter took.
        delivered: of these, at targets (of a pool: summed over them).
        pending: what waits in the exporter's queue, others' records included; it is delivered later.
        seconds: how long it took.
    """

    accepted: int
    delivered: int
    pending: int
    seconds: float


class Export(BaseTask, abstract=True):
    """Send an input to an exporter or pool. The output is an `ExportReport`.

    The task succeeds once every record is in the exporter's queue and saved, whether or not the link is there: what
    waits is delivered later, by this program or the next that opens the same exporter. It fails if records were
    dropped, or refused for good.

    Attributes:
        input: a DataFrame, rows, a mapping, a text, or an iterable of these.
        exporter: an exporter or pool; a URL (``sqlite:///x.db?table=t``); or a callable without arguments that makes
            one. What the task makes it closes; what it is given stays open.
        timeout: seconds for the delivery.
        require_delivery: fail, too, if something waits after that time.
        options: for ``send``, of each record.
    """

    formatted_attributes = ("exporter",)
    input: Any = REQUIRED_ATTRIBUTE
    exporter: Any = REQUIRED_ATTRIBUTE
    timeout: ClassVar[float] = 30.0
    require_delivery: ClassVar[bool] = False
    options: Any = {}  # noqa: RUF012 - replaced by a subclass, never changed

    def run(self) -> ExportReport:
        """Send, save, deliver for a while."""
        given = type(self).exporter  # a plain function would turn into a method of the instance
        exporter = given if isinstance(given, Exporter) else self._made(given)
        try:
            return self._send(exporter)
        finally:
            if exporter is not given:
                exporter.close(0)  # what flush left waits in its queue

    def _send(self, exporter: Exporter) -> ExportReport:
        begun = time.monotonic()
        before = exporter.stats()
        count = 0
        for some in chunks(records(self.input), _BATCH):
            exporter.send(some, **self.options)
            count += len(some)
        saved = exporter.save(max(_SAVING, self.timeout))
        report = exporter.flush(self.timeout)
        after = exporter.stats()
        delivered = _sum(after, "delivered") - _sum(before, "delivered")
        made = ExportReport(count, delivered, report.pending, time.monotonic() - begun)
        self._judge(exporter, before, after, saved=saved, complete=report.complete)
        return made

    def _judge(self, exporter: Exporter, before: Any, after: Any, *, saved: bool, complete: bool) -> None:
        dropped = _dropped(after) - _dropped(before)
        dead = _sum(after, "dead") - _sum(before, "dead")
        name = f"{type(exporter).__name__} {exporter.name}"
        if dropped:
            raise TaskError(f"{name} dropped {dropped} records: its queue was too small; give it more max_disk, or "
                            "on_full='block'")  # fmt: skip
        if dead > 0:
            raise TaskError(f"{name}: {dead} records were refused for good; see dead_letters()")
        if not complete and not saved:
            raise TaskError(f"{name}: the records could not be saved, and are not all delivered")
        if not complete and self.require_delivery:
            errors = {name: target.last_error for name, target in after.targets.items() if target.pending}
            raise TaskError(f"{name}: records wait after {self.timeout:g} s, and will be delivered later: {errors}")

    def _made(self, given: Any) -> Exporter:
        if isinstance(given, str):
            from resilient_exporters.urls import from_url

            url = formatted(self, given, "exporter")
            return from_url(url, **({} if "on_full=" in url else {"on_full": "block", "full_timeout": self.timeout}))
        made = given() if callable(given) else given
        if not isinstance(made, Exporter):
            raise TaskError(
                f"exporter={made!r:.60} is not possible; give an exporter or pool, a URL, or a callable that makes one"
            )
        return made


def _sum(stats: Any, name: str) -> int:
    return sum(getattr(target, name) for target in stats.targets.values())


def _dropped(stats: Any) -> int:
    return sum(sum(target.dropped.values()) for target in stats.targets.values())
