"""What a record looks like in a file: one JSON line, one CSV row, or the text itself."""

from __future__ import annotations

import base64
import codecs
import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, time, timedelta
from typing import Any

import msgspec

from resilient_exporters.errors import InvalidConfigError, RejectedError
from resilient_exporters.units import parse_choice

__all__ = ["FORMATS", "CsvFormat", "LineFormat", "json_line", "line_format"]

FORMATS = ("auto", "json", "csv", "text")


class LineFormat:
    r"""Records to lines, each ended by a newline.

    ========  ==================================================================================================
    format    what is written
    ========  ==================================================================================================
    auto      str and bytes as they are, everything else as JSON
    json      everything as JSON, a str in quotes
    text      as auto, but a number, date, UUID, … alone as its plain text
    ========  ==================================================================================================

    In JSON a datetime, date or time is ISO 8601, a timedelta an ISO 8601 duration, a Decimal and a UUID text, bytes
    base64, a set or tuple a list, a key that is no str the text of it, a numpy scalar or array what it holds, nan and
    ±inf ``null`` (JSON has no word for them); an int has all its digits. A value of no known kind is its ``str``.

    Args:
        format: "auto", "json" or "text".
        encoding: of text; JSON is UTF-8, or pure ASCII under any other encoding. A character that the encoding
            does not have is written as a backslash escape.
        newlines: "keep" writes a str or bytes as it is, so that one with newlines in it becomes several lines;
            "escape" writes ``\n``, ``\r`` and ``\\`` for newline, carriage return and backslash: always one line.
    """

    header = False

    def __init__(self, format: str = "auto", *, encoding: str = "utf-8", newlines: str = "keep") -> None:  # noqa: A002 - the name of the option
        self.format = format
        self.encoding = encoding
        self._escape = newlines == "escape"
        self._ascii = codecs.lookup(encoding).name != "utf-8"

    def line(self, data: Any) -> bytes:
        """One record as it stands in the file, newline included."""
        if self.format != "json":
            if isinstance(data, str):
                return self._text(data)
            if isinstance(data, (bytes, bytearray, memoryview)):
                return self._raw(bytes(data))
            if self.format == "text":
                return self._text(_plain(data, ascii_only=self._ascii))
        return json_line(data, ascii_only=self._ascii)

    def _text(self, text: str) -> bytes:
        return self._raw(text.encode(self.encoding, "backslashreplace"))

    def _raw(self, raw: bytes) -> bytes:
        if self._escape:
            raw = raw.removesuffix(b"\n").replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
        # Text that brings its newline gets no second one: an empty line is nobody's record.
        return raw if raw.endswith(b"\n") else raw + b"\n"


class CsvFormat(LineFormat):
    """Records to rows of comma-separated values, as Python's ``csv`` writes them.

    A mapping is a row by the names in ``fields``, a list or tuple a row as it stands, anything else a row of one cell.
    None is an empty cell; a nested value is JSON; nan and inf are written as such. A mapping with a key that is no
    column is refused (a dead letter): a value left out would be a loss that nobody counts.

    Args:
        fields: names of the columns; None: those in the first line of the file, else the keys of the first mapping.
        header: whether the first line of the file holds the names.
        delimiter: one character between two cells.
        encoding: as for ``LineFormat``.
    """

    def __init__(self, *, fields: Sequence[str] | None, header: bool, delimiter: str, encoding: str = "utf-8") -> None:
        super().__init__("csv", encoding=encoding)
        self.header = header
        self.delimiter = delimiter
        self.given = None if fields is None else tuple(fields)
        self.fields = self.given
        self._known = frozenset(self.fields or ())
        self._writer = csv.writer(_Sink(), delimiter=delimiter, lineterminator="\n")

    def learn(self, fields: Sequence[str]) -> None:
        """Take over the names of the columns."""
        self.fields = tuple(fields)
        self._known = frozenset(self.fields)

    def learn_from(self, data: Any) -> None:
        """Take the columns from the first mapping, if they are not known."""
        if self.fields is None and isinstance(data, Mapping) and data:
            self.learn([_plain(key) for key in data])

    def read_header(self, line: bytes) -> tuple[str, ...]:
        """The names in a header line."""
        text = line.decode(self.encoding, "replace")
        return tuple(next(csv.reader([text], delimiter=self.delimiter), []))

    def header_line(self) -> bytes:
        """The header as it stands in the file; empty if there is none."""
        return self._row(self.fields) if self.header and self.fields else b""

    def line(self, data: Any) -> bytes:
        """One record as a row.

        Raises:
            RejectedError: the record has other columns than the file.
        """
        if isinstance(data, Mapping):
            row = data
            if not row.keys() <= self._known:
                row = {_plain(key): value for key, value in data.items()}
            if not row.keys() <= self._known:
                extra = ", ".join(sorted(row.keys() - self._known))
                raise RejectedError(f"no column for {extra}: the columns are {', '.join(self.fields or ())}")
            return self._row([row.get(name) for name in self.fields or ()])
        cells = data if isinstance(data, (list, tuple)) else (data,)
        if self.fields is not None and len(cells) != len(self.fields):
            raise RejectedError(f"{len(cells)} cells for {len(self.fields)} columns ({', '.join(self.fields)})")
        return self._row(cells)

    def _row(self, cells: Iterable[Any]) -> bytes:
        row: str = self._writer.writerow([cell if type(cell) in _CSV_KNOWS else _plain(cell) for cell in cells])
        return row.encode(self.encoding, "backslashreplace")


class _Sink:
    """csv gives back what ``write`` returns: with this, the row."""

    def write(self, row: str) -> str:
        return row


def line_format(
    format: str,  # noqa: A002 - the name of the option
    *,
    encoding: str = "utf-8",
    newlines: str = "keep",
    fields: Sequence[str] | None = None,
    header: bool = True,
    delimiter: str = ",",
) -> LineFormat:
    """The format that options of ``FileExporter`` ask for.

    Raises:
        InvalidConfigError: an option has a value that it cannot have.
    """
    parse_choice(format, "format", FORMATS)
    parse_choice(newlines, "newlines", ("keep", "escape"))
    try:
        single = '\n"'.encode(encoding) == b'\n"'
    except (LookupError, TypeError) as error:
        raise InvalidConfigError(f'encoding={encoding!r}: not known to Python; "utf-8" is usual') from error
    if not single:
        raise InvalidConfigError(
            f'encoding={encoding!r}: lines are cut at the byte "\\n", which this encoding does not have alone; '
            f'give one that extends ASCII, such as "utf-8" or "latin-1"'
        )
    if format != "csv":
        if fields is not None:
            raise InvalidConfigError(f'fields={fields!r}: only format="csv" has columns, not {format!r}')
        return LineFormat(format, encoding=encoding, newlines=newlines)
    if fields is not None and (
        isinstance(fields, str) or not fields or any(not isinstance(field, str) for field in fields)
    ):
        raise InvalidConfigError(f'fields={fields!r}: give the names of the columns, such as ["time", "value"]')
    if fields is not None and len(set(fields)) != len(fields):
        raise InvalidConfigError(f"fields={fields!r}: every name once")
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
        raise InvalidConfigError(f'delimiter={delimiter!r}: give one ASCII character, such as "," or ";"')
    return CsvFormat(fields=fields, header=header, delimiter=delimiter, encoding=encoding)


def json_line(data: Any, *, ascii_only: bool = False) -> bytes:
    """A value as one line of JSON, newline included; whatever it is, it does not raise."""
    if not ascii_only:
        try:
            return _ENCODER.encode(data) + b"\n"
        except (UnicodeEncodeError, TypeError, ValueError, OverflowError):
            pass  # halves of surrogate pairs, keys of unusual kinds: the long way below
    return json.dumps(_simple(data), ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _plain(value: Any, *, ascii_only: bool = False) -> str:
    """A value as text without quotes around it; one with parts as JSON; None as nothing."""
    if type(value) is str:
        return value
    value = _inner(value)
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    text = json_line(value, ascii_only=ascii_only).decode().removesuffix("\n")
    return str(json.loads(text)) if text.startswith('"') else text


def _hook(value: Any) -> Any:
    """What msgspec does not know, in terms of what it knows; also keys that are no text (they arrive here alone)."""
    if value is None or isinstance(value, (bool, tuple, AbstractSet)):
        return json_line(_simple(value)).decode().removesuffix("\n")
    inner = _inner(value)
    return inner if type(inner) is not type(value) else str(value)


def _inner(value: Any) -> Any:
    """A numpy, pandas or subclassed value as the plain value in it."""
    if isinstance(value, str):  # subclasses first: np.str_, np.float64, …
        return str.__str__(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return value if type(value) is dict else dict(value)
    if isinstance(value, (date, time)):
        if type(value).__module__ == "datetime":
            return value
        # A pandas Timestamp has nanoseconds, which only its own isoformat keeps; NaT is no time at all.
        return value.isoformat() if value == value else None  # noqa: PLR0124 - NaT is not equal to itself
    if isinstance(value, timedelta) and hasattr(value, "isoformat"):
        return value.isoformat() if value == value else None  # noqa: PLR0124 - as above
    if type(value).__name__ == "NAType":  # pandas
        return None
    if hasattr(value, "dtype"):  # numpy, without importing it
        if value.dtype.kind in "mM":
            return value.astype(str).tolist()
        return value.tolist()
    return value


def _simple(value: Any) -> Any:
    """A value in terms of what the standard ``json`` writes, text with half surrogate pairs included."""
    value = _inner(value)
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(key): _simple(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, AbstractSet)):
        return [_simple(item) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    try:
        return json.loads(_ENCODER.encode(value))
    except (TypeError, ValueError):
        return str(value)


def _key(key: Any) -> str:
    simple = _simple(key)
    if isinstance(simple, str):
        return simple
    return json.dumps(simple, separators=(",", ":")) if simple is not None or key is None else str(key)


_CSV_KNOWS = frozenset({str, int, float, type(None)})  # written by csv itself as _plain would
# Decimals as text: as a JSON number most readers would round it, and NaN would not be JSON at all.
_ENCODER = msgspec.json.Encoder(enc_hook=_hook, decimal_format="string")
