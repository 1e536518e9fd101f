"""CSV: a record in each row."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from resilient_exporters.pipeline.deserializers.base import (
    ROWS,
    BaseDeserializer,
    Lot,
    RawBlocks,
    Unreadable,
    check_encoding,
)
from resilient_exporters.pipeline.errors import UnreadableStreamError
from resilient_exporters.pipeline.option import ListOf, Option

__all__ = ["CSVDeserializer"]

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def _one_character(value: str) -> None:
    if len(value) != 1:
        raise ValueError("give one character")


class CSVDeserializer(BaseDeserializer):
    """Reads CSV: a header row, then a record for each row. All values are texts.

    A row with more or fewer values than the header is a bad record. A row may go over several lines, in quotes.
    """

    supported_options = {
        "delimiter": Option(
            type=str, default=None, check=_one_character, help="Default: a comma; a tab for .tsv."
        ),
        "encoding": Option(type=str, default="utf-8-sig", check=check_encoding, help="Of the text."),
        "fields": Option(type=ListOf(str), default=[], help="Names of the columns of a file that has no header row."),
        "strict": Option(
            type=bool, default=True, help="Wrong quotes make a bad record; else they are taken as they come."
        ),
    }  # fmt: skip

    def lots(self, blocks: Iterable[bytes], skip: int = 0) -> Iterator[Lot]:
        """The rows, some at a time."""
        text = _Text(blocks, self.read_option("encoding"))
        rows = csv.reader(text, delimiter=self.read_option("delimiter", ","), strict=self.read_option("strict"))
        fields = self.read_option("fields") or self._header(rows)
        width = len(fields)
        while True:
            found: list[Any] = []
            error = end = None
            try:
                found.extend(itertools.islice(rows, ROWS))
            except csv.Error as wrong:
                error = wrong
            except UnicodeError as wrong:
                end = UnreadableStreamError(None, f"it is no {text.encoding}: {wrong}")
            except UnreadableStreamError as wrong:
                end = wrong
            number = len(found) + (error is not None)
            if skip < number:
                if not text.doubtful and error is None and not skip and set(map(len, found)) == {width}:
                    yield Lot([dict(zip(fields, row)) for row in found])  # noqa: B905 - all have this length
                else:
                    units = [self._one(row, fields, text) for row in found]
                    if error is not None:
                        units.append(Unreadable(text.last, f"{error} (row that ends in line {rows.line_num})"))
                    yield Lot(units[skip:], clean=False, unit="row")
            skip = max(skip - number, 0)
            if end is not None:
                raise end
            if not number:
                return

    @staticmethod
    def _header(rows: Iterator[list[str]]) -> list[str]:
        try:
            fields = next((row for row in rows if row), [])
        except csv.Error as error:
            raise UnreadableStreamError(None, f"the header row cannot be read: {error}") from error
        double = [name for name in dict.fromkeys(fields) if fields.count(name) > 1]
        if double:
            raise UnreadableStreamError(None, f"the header row names {', '.join(double)} twice: give fields")
        return fields

    @staticmethod
    def _one(row: list[str], fields: list[str], text: _Text) -> Any:
        if not row:
            return None
        if len(row) != len(fields):
            return Unreadable(row, f"the row has {len(row)} values, the header {len(fields)}")
        if text.doubtful:
            try:
                "".join(row).encode()
            except UnicodeEncodeError:
                return Unreadable(row, f"the row is no {text.encoding}")
        return dict(zip(fields, row))  # noqa: B905 - compared above


class _Text:
    """Lines of text from blocks of bytes.

    Bytes that are no text become surrogates, so that only the rows that hold them are bad.

    Attributes:
        doubtful: there were such bytes.
        last: the line that was given last.
    """

    def __init__(self, blocks: Iterable[bytes], encoding: str) -> None:
        self.encoding = encoding
        self.doubtful = False
        self.last = ""
        raw = io.BufferedReader(RawBlocks(blocks))
        self._lines = self._cut(io.TextIOWrapper(raw, encoding, errors="surrogateescape", newline=""))

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def _cut(self, file: io.TextIOWrapper) -> Iterator[str]:
        for line in file:
            if not self.doubtful and not line.isascii():
                self.doubtful = _SURROGATE.search(line) is not None
            self.last = line
            yield line
