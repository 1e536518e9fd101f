"""CSV: a record in each row."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
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


_LONGEST: Final = 64_000_000  # characters of a line, and of a value


def _delimiter(value: str) -> None:
    if len(value) != 1 or value in '"\r\n' or _SURROGATE.search(value):
        raise ValueError("give one character, and neither a quote nor the end of a line")


def _double(names: list[str]) -> str:
    return ", ".join(name for name in dict.fromkeys(names) if names.count(name) > 1)


def _fields(value: list[str]) -> None:
    if len(set(value)) < len(value):
        raise ValueError(f"{_double(value)} twice: each column needs a name of its own")


class CSVDeserializer(BaseDeserializer):
    """Reads CSV: a header row, then a record for each row. All values are texts.

    A row with more or fewer values than the header is a bad record. A row may go over several lines, in quotes; where
    the closing quote is missing, all that was taken for the row is put aside together. A line has 64 MB at most.
    """

    supported_options = {
        "delimiter": Option(
            type=str, default=None, check=_delimiter, help="Default: a comma; a tab for .tsv."
        ),
        "encoding": Option(type=str, default="utf-8-sig", check=check_encoding, help="Of the text."),
        "fields": Option(
            type=ListOf(str), default=[], check=_fields, help="Names of the columns of a file that has no header row."
        ),
        "strict": Option(
            type=bool, default=True, help="Wrong quotes make a bad record; else they are taken as they come."
        ),
    }  # fmt: skip

    def lots(self, blocks: Iterable[bytes], skip: int = 0) -> Iterator[Lot]:
        """The rows, some at a time."""
        text = _Text(blocks, self.read_option("encoding"))
        form = {"delimiter": self.read_option("delimiter", ","), "strict": self.read_option("strict")}
        csv.field_size_limit(max(csv.field_size_limit(), _LONGEST))  # of the process: 128 kB are not enough for a text
        rows = csv.reader(text, **form)
        fields = self.read_option("fields") or self._header(rows, text)
        width = len(fields)
        while True:
            found: list[Any] = []
            error = end = None
            text.lines.clear()
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
                        about = f"{error} (row that ends in line {rows.line_num})"
                        units.append(Unreadable(text.since(len(found), form), about))
                    yield Lot(units[skip:], clean=False, unit="row")
            skip = max(skip - number, 0)
            if end is not None:
                raise end
            if not number:
                return

    @staticmethod
    def _header(rows: Iterator[list[str]], text: _Text) -> list[str]:
        try:
            fields = next((row for row in rows if row), [])
        except csv.Error as error:
            raise UnreadableStreamError(None, f"the header row cannot be read: {error}") from error
        except UnicodeError as error:
            raise UnreadableStreamError(None, f"it is no {text.encoding}: {error}") from error
        if len(set(fields)) < len(fields):
            raise UnreadableStreamError(None, f"the header row names {_double(fields)} twice: give fields")
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
        lines: those given since somebody cleared it.
    """

    def __init__(self, blocks: Iterable[bytes], encoding: str) -> None:
        self.encoding = encoding
        self.doubtful = False
        self.lines: list[str] = []
        raw = io.BufferedReader(RawBlocks(blocks))
        self._lines = self._cut(io.TextIOWrapper(raw, encoding, errors="surrogateescape", newline=""))

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def since(self, rows: int, form: Mapping[str, Any]) -> str:
        """The lines after so many rows."""
        reader = csv.reader(iter(self.lines), **form)
        for _ in itertools.islice(reader, rows):
            pass
        return "".join(self.lines[reader.line_num :])

    def _cut(self, file: io.TextIOWrapper) -> Iterator[str]:
        while line := file.readline(_LONGEST):
            if len(line) == _LONGEST and not line.endswith(("\n", "\r")):
                raise UnreadableStreamError(None, f"a line has more than {_LONGEST} characters")
            if not self.doubtful and not line.isascii():
                self.doubtful = _SURROGATE.search(line) is not None
            self.lines.append(line)
            yield line
