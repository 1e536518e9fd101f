"""Names of indices that follow from the record: ``readings-{@timestamp:%Y.%m.%d}``."""

from __future__ import annotations

import enum
import functools
import re
import uuid
from collections.abc import Mapping
from datetime import date, datetime, timezone
from typing import Any, Final, NamedTuple

from resilient_exporters.errors import DataTypeError, InvalidConfigError

__all__ = ["IndexPattern", "index_problem"]


class IndexPattern:
    """A name with fields of the record in it.

    ``{field}`` is the value of a field: a text, an int, a bool, a date or a UUID, in lower case. ``{field:%Y.%m.%d}``
    is a time as ``strftime`` writes it, with the directives for numbers; the field holds a datetime, a date, or an
    ISO 8601 text. An aware time is taken in UTC, as Elasticsearch stores it; a naive one is taken to be in UTC.
    ``{a.b}`` is field ``b`` of the mapping in field ``a``, unless the record has a field ``a.b``.

    The name depends on nothing but the record, so that a record that is sent again meets the copy that is there.

    Args:
        text: the name.
        option: where it was given, for the error.

    Raises:
        InvalidConfigError: it is no pattern, or no record could make a name out of it that Elasticsearch takes.
    """

    __slots__ = ("_pieces", "text")

    def __init__(self, text: Any, option: str = "default_index") -> None:
        if not isinstance(text, str) or not text:
            raise InvalidConfigError(f'{option}={text!r} is not possible; give a name, such as "readings"')
        self.text = text
        pieces = _split(text)
        if pieces is None:
            raise InvalidConfigError(
                f"{option}={text!r}: braces hold a field, with a format of a time if it is one; "
                f'right would be "readings-{{@timestamp:%Y.%m.%d}}" or "readings-{{device}}"'
            )
        for piece in pieces:
            strange = None if piece.format is None else _directives(piece.format) - _NUMERIC
            if strange or piece.format == "":
                shown = ", ".join(f"%{each}" for each in sorted(strange or ())) or "an empty format"
                raise InvalidConfigError(
                    f"{option}={text!r}: {shown} cannot be used; there are %{', %'.join(sorted(_NUMERIC))}"
                )
        self._pieces = pieces
        problem = index_problem("".join(piece.example() for piece in pieces))
        if problem:
            raise InvalidConfigError(f"{option}={text!r}: {problem}")

    @property
    def fixed(self) -> str | None:
        """The name, if it is the same for all records."""
        return self.text if all(piece.field is None for piece in self._pieces) else None

    def name(self, data: Mapping[Any, Any]) -> str:
        """The name for one record.

        Raises:
            DataTypeError: a field is missing or of a kind that makes no name, or the name is not one for an index.
        """
        name = "".join([piece.text if piece.field is None else self._filled(piece, data) for piece in self._pieces])
        problem = index_problem(name)
        if problem:
            raise DataTypeError(None, f"index {name!r}, from {self.text!r}: {problem}")
        return name

    def _filled(self, piece: Piece, data: Mapping[Any, Any]) -> str:
        value = _find(piece.field or "", data)
        if value is _MISSING:
            raise DataTypeError(None, f"index {self.text!r}: the record has no field {piece.field!r}")
        found = _text(value) if piece.format is None else _time(value, piece.format)
        if found is None:
            right = (
                "a text, an int, a bool, a date or a UUID" if piece.format is None else "a datetime or an ISO 8601 text"
            )
            raise DataTypeError(
                None, f"index {self.text!r}: field {piece.field!r} holds a {type(value).__name__}, and not {right}"
            )
        return found


class Piece(NamedTuple):
    """Part of a pattern: a text as it stands, or a field with or without a format."""

    text: str = ""
    field: str | None = None
    format: str | None = None

    def example(self) -> str:
        """What it could become."""
        if self.field is None:
            return self.text
        return "x" if self.format is None else _EXAMPLE.strftime(self.format)


@functools.lru_cache(maxsize=1024)
def index_problem(name: str) -> str | None:
    """What Elasticsearch has against a name, None if nothing.

    Source: "Index name limitations" in the reference of its create index API.
    """
    if not name or name in {".", ".."}:
        return "that is no name"
    if name != name.lower():
        return "names of indices are in lower case"
    if name[0] in "-_+":
        return f"a name cannot begin with {name[0]!r}"
    if illegal := sorted(set(name) & _ILLEGAL):
        return f"{', '.join(map(repr, illegal))} cannot be in a name"
    if not name.isprintable():
        return "it has characters that cannot be printed"
    if len(name.encode()) > 255:
        return f"a name has 255 bytes at most, not {len(name.encode())}"
    return None


_ILLEGAL: Final = frozenset('\\/*?"<>| ,#:')
_NUMERIC: Final = frozenset("YmdHMSfyjUWuwGV")  # names of days and months depend on the locale of the machine
_EXAMPLE: Final = datetime(2001, 2, 3, 4, 5, 6, 7)  # noqa: DTZ001 - any time will do
_MISSING: Final = object()
_FIELD: Final = re.compile(r"\{([^{}:]+)(?::([^{}]*))?\}")


def _split(text: str) -> tuple[Piece, ...] | None:
    pieces: list[Piece] = []
    end = 0
    for found in _FIELD.finditer(text):
        pieces += (Piece(text[end : found.start()]), Piece("", found[1], found[2]))
        end = found.end()
    pieces.append(Piece(text[end:]))
    if any(brace in piece.text for piece in pieces for brace in "{}"):
        return None
    return tuple(piece for piece in pieces if piece.text or piece.field is not None)


def _directives(format: str) -> set[str]:  # noqa: A002 - as strftime calls it
    return {found[1] for found in re.finditer(r"%(.?)", format)}


def _find(field: str, data: Mapping[Any, Any]) -> Any:
    if field in data:
        return data[field]
    value: Any = data
    for step in field.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return _MISSING
        value = value[step]
    return value


def _text(value: Any) -> str | None:
    if isinstance(value, enum.Enum):
        value = value.value
    if hasattr(value, "dtype") and hasattr(value, "item"):  # a numpy scalar
        value = value.item()
    if isinstance(value, (str, int, uuid.UUID)):
        return str(value).lower()
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    return None


def _time(value: Any, format: str) -> str | None:  # noqa: A002 - as strftime calls it
    if hasattr(value, "dtype") and value.dtype.kind == "M":  # numpy's datetime64, in its own units
        value = value.astype("datetime64[us]").item()
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(_for_python_3_10(value))
        except ValueError:
            return None
    if isinstance(value, datetime) and value.tzinfo is not None:
        try:
            value = value.astimezone(timezone.utc)
        except OverflowError:
            return None
    if not isinstance(value, date) or value != value:  # noqa: PLR0124 - NaT is not equal to itself
        return None
    return value.strftime(format)


def _for_python_3_10(text: str) -> str:
    """ISO 8601 as ``fromisoformat`` of Python 3.10 reads it: without Z, and with a fraction of 3 or 6 digits."""
    text = re.sub(r"[zZ]$", "+00:00", text.strip())
    return re.sub(r"[.,](\d+)", lambda found: f".{found[1][:6]:0<6}", text, count=1)
