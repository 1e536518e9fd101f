"""Text exporters: events as lines of a file, for jobs that send files."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, TextIO

from resilient_exporters.errors import InvalidConfigError
from resilient_exporters.units import parse_choice

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["TEXT_EXPORTERS", "Event", "TextExporter", "text_exporter"]

COLUMNS: Final = ("timestamp", "msec", "var_type", "var_name", "value", "units")


class Event(NamedTuple):
    """One value of one variable.

    Attributes:
        timestamp: a datetime, or seconds since the epoch.
        var_type: kind of the variable.
        var_name: name of the variable.
        value: what it was.
        data: what else is known; ``unit`` is the one that is written.
    """

    timestamp: datetime | float
    var_type: str
    var_name: str
    value: Any
    data: Mapping[str, Any] | None = None


class TextExporter:
    """Writes events to a file: ``starting``, ``export_event`` for each, ``terminating``; or as a context manager.

    The columns are timestamp (to the second), msec, var_type, var_name, value and units.

    Args:
        target: path of the file, which is replaced; or an open text file, which stays open.
    """

    header: ClassVar[bool] = True
    encoding: ClassVar[str] = "utf-8"
    options: ClassVar[dict[str, Any]] = {"lineterminator": "\n"}

    def __init__(self, target: str | os.PathLike[str] | TextIO) -> None:
        self._target = target
        self._file: TextIO | None = None
        self._writer: Any = None
        self.count = 0

    def starting(self) -> None:
        """Open the file, and write the header."""
        if isinstance(self._target, (str, os.PathLike)):
            self._file = Path(self._target).open("w", encoding=self.encoding, newline="")  # noqa: SIM115 - see terminating
        else:
            self._file = self._target
        self._writer = csv.writer(self._file, **self.options)
        self.count = 0
        if self.header:
            self._writer.writerow(COLUMNS)

    def export_event(self, event: Event | tuple[Any, ...]) -> None:
        """Write one event: (timestamp, var_type, var_name, value, data).

        Raises:
            InvalidConfigError: ``starting`` was not called.
            ValueError: it is no such event.
        """
        if self._writer is None:
            raise InvalidConfigError("export_event: call starting() first, or use the exporter as a context manager")
        try:
            when, var_type, var_name, value, data = Event(*event)
        except TypeError as error:
            text = f"event={event!r:.80} is not possible; give (timestamp, var_type, var_name, value, data)"
            raise ValueError(text) from error
        moment = when if isinstance(when, datetime) else datetime.fromtimestamp(when, timezone.utc)
        unit = (data or {}).get("unit") or (data or {}).get("units") or ""
        second = moment.strftime("%Y-%m-%d %H:%M:%S")
        self._writer.writerow((second, moment.microsecond // 1000, var_type, var_name, value, unit))
        self.count += 1

    def terminating(self) -> None:
        """Put the file on disk, and close it if it was opened here."""
        file, self._file, self._writer = self._file, None, None
        if file is not None and file is not self._target:
            with file:
                file.flush()
                os.fsync(file.fileno())

    def export_events(self, events: Iterable[Event | tuple[Any, ...]]) -> int:
        """All of it: start, write, end. Returns how many; what ``EventsExportJob.export_events`` returns."""
        with self:
            for event in events:
                self.export_event(event)
        return self.count

    def __enter__(self) -> Self:
        self.starting()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminating()


class TabExporter(TextExporter):
    """Columns between tabs, no header."""

    header = False
    options: ClassVar[dict[str, Any]] = {"delimiter": "\t", "lineterminator": "\n"}


class CsvExporter(TextExporter):
    """Columns between commas, with a header."""


class ExcelCsvExporter(TextExporter):
    """What Excel opens with a double click: semicolons, what is no number in quotes, and the mark of UTF-8."""

    encoding = "utf-8-sig"
    options: ClassVar[dict[str, Any]] = {"delimiter": ";", "quoting": csv.QUOTE_NONNUMERIC, "lineterminator": "\r\n"}


TEXT_EXPORTERS: Final[Mapping[str, type[TextExporter]]] = {
    "text.tab": TabExporter,
    "text.csv": CsvExporter,
    "text.csv.excel": ExcelCsvExporter,
}


def text_exporter(name: str, target: str | os.PathLike[str] | TextIO) -> TextExporter:
    """The exporter of a name.

    Args:
        name: "text.tab", "text.csv" or "text.csv.excel".
        target: as of every ``TextExporter``.

    Raises:
        InvalidConfigError: there is none of this name.
    """
    return TEXT_EXPORTERS[parse_choice(name, "name", TEXT_EXPORTERS)](target)
