"""The bridge to exporters: rows that are durable in a queue are sent, as far as a job is concerned."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, Protocol

from resilient_exporters.errors import ResilientExporterException
from resilient_exporters.exporter import Exporter
from resilient_exporters.jobs.errors import ExportError

__all__ = ["Notes", "Sending"]


class Notes(Protocol):
    """Keeps how far the rows of a job came, over runs that are killed."""

    def begin_sending(self, exporter: Exporter) -> int:
        """Rows follow. How many of them the queue has already."""

    def end_sending(self, exporter: Exporter, queued: int) -> None:
        """No more rows follow; so many are queued."""


_LOSSES = ("overflow", "full", "corrupt", "unsaved")


class Sending:
    """The rows of one job on their way into the queue of one exporter, over several tries.

    Args:
        exporter: whose queue it is.
        notes: where it is noted how far they came, for runs after this one; None: nowhere.
    """

    def __init__(self, exporter: Exporter, notes: Notes | None = None) -> None:
        self._exporter = exporter
        self._notes = notes
        self._accepted = 0

    def send(self, rows: Iterable[Any], save_timeout: float, options: dict[str, Any]) -> int:
        """Queue rows beginning with the first that is not queued yet, and make them durable.

        Raises:
            ExportError: it did not work.
        """
        if self._notes is None:
            return self._send(rows, save_timeout, options)
        self._accepted = self._notes.begin_sending(self._exporter)
        try:
            return self._send(rows, save_timeout, options)
        finally:
            self._notes.end_sending(self._exporter, self._accepted)

    def _send(self, rows: Iterable[Any], save_timeout: float, options: dict[str, Any]) -> int:
        exporter = self._exporter
        try:
            exporter.mark()  # opens the queue, so that what it lost before is known
            lost = self._lost()
            for row in islice(rows, self._accepted, None):
                if exporter.send(row, **options).id is None:
                    raise ExportError(f"{exporter.name}: the queue is full, row {self._accepted + 1} was turned away")
                self._accepted += 1
            saved = exporter.save(save_timeout)
        except ExportError:
            raise
        except ResilientExporterException as error:
            raise ExportError(f"row {self._accepted + 1} was not accepted: {error}") from error
        if not saved:
            trouble = exporter.stats().disk_trouble or f"its disk did not answer within {save_timeout:g} s"
            raise ExportError(f"{exporter.name}: the rows are queued but not on disk: {trouble}")
        if self._lost() > lost:
            accepted, self._accepted = self._accepted, 0  # nobody knows which rows they were: all of them again
            raise ExportError(
                f"{exporter.name}: its queue was too small for {accepted} rows, {self._lost() - lost} records were "
                'dropped: give it on_full="block", or more max_disk'
            )
        return self._accepted

    def _lost(self) -> int:
        targets = self._exporter.stats().targets.values()
        return sum(target.dropped.get(reason, 0) for target in targets for reason in _LOSSES)
