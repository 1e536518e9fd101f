"""A bound on the lines of a file: what fits, and how the oldest make room."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from resilient_exporters.delivery.outcome import Full, Outcome
from resilient_exporters.exporters.linefile import LineFile
from resilient_exporters.exporters.lines import CsvFormat, LineFormat

__all__ = ["LineBound"]

# Up to this size a full file is rewritten for every batch, so that it holds exactly the newest lines; a larger one
# is cut by a tenth at a time: a card would not survive a megabyte written per reading.
_EXACT_BYTES = 32 << 10
_SHARE_CUT = 10


class LineBound:
    """At most ``max_lines`` lines in a file, those of others and a CSV header included.

    Args:
        file: the file.
        max_lines: the bound.
        format: of the lines; a CSV header is kept, and no row of several lines is cut in the middle.
        keep_new_data: whether the oldest lines make room for new ones.
    """

    def __init__(
        self,
        file: LineFile,
        max_lines: int,
        format: LineFormat,  # noqa: A002 - as the option of the exporter
        *,
        keep_new_data: bool,
    ) -> None:
        self.max_lines = max_lines
        self._file = file
        self._format = format
        self._keep_new_data = keep_new_data

    def fit(
        self, lines: Sequence[tuple[int, bytes]], answers: list[Outcome | None], status: os.stat_result, prefix: bytes
    ) -> tuple[list[tuple[int, bytes]], int]:
        """Choose those that the file may hold, and answer the others as full.

        Args:
            lines: place in the batch, and the lines of one record.
            answers: of the batch; filled in for those that do not fit.
            status: the file as it is.
            prefix: what is written before the first line: a header, or the end of a broken line.

        Returns:
            Those that fit, and how many lines have to go before (0 unless ``keep_new_data``).
        """
        header = int(self._format.header)
        used = self._file.count_lines(status) + int(header and not status.st_size and bool(prefix))
        full = Full(f"{self._file.path} holds {self.max_lines} lines (max_lines)")
        fitting = []
        if not self._keep_new_data:
            for at, line in lines:
                count = line.count(b"\n")
                if used + count <= self.max_lines:
                    used += count
                    fitting.append((at, line))
                else:
                    answers[at] = full
            return fitting, 0
        room = self.max_lines - header
        for at, line in reversed(lines):
            count = line.count(b"\n")
            if count <= room:
                room -= count
                fitting.append((at, line))
            else:
                answers[at] = full
                room = 0  # the newest are kept, without a gap between them
        fitting.reverse()
        excess = used + sum(line.count(b"\n") for _, line in fitting) - self.max_lines
        if excess <= 0 or not fitting:
            return fitting, 0
        return fitting, excess if status.st_size <= _EXACT_BYTES else max(excess, self.max_lines // _SHARE_CUT)

    def make_room(self, count: int) -> None:
        """Take the oldest ``count`` lines out of the file, in one step for whoever reads it."""
        self._file.replace(lambda: self._without_oldest(count))

    def _without_oldest(self, count: int) -> Iterator[bytes]:
        is_csv = isinstance(self._format, CsvFormat)
        is_open_quote = False
        position = 0
        for at, line in enumerate(self._file.lines()):
            if at == 0 and self._format.header:
                yield line
            elif count > 0 or is_open_quote:
                count -= 1
                is_open_quote = is_csv and is_open_quote != bool(line.count(b'"') % 2)
            else:
                break
            position += len(line)
        yield from self._file.chunks(position)
