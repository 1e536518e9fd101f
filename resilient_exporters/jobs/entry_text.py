"""Entries as JSON that a person can read and edit, and that gives back every value as it was.

What JSON has no word for stands as a mapping with one key: ``{"$date": "2026-11-20"}``.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from resilient_exporters import codec
from resilient_exporters.errors import EncodingError
from resilient_exporters.jobs.errors import CorruptEntryError

__all__ = ["entry_text", "parse_entry"]

_FORMAT: Final = 1
_PLAIN: Final = (str, bool, int, type(None))
_DEEPEST: Final = 100

_WRITE: Final[dict[type, tuple[str, Callable[[Any], Any]]]] = {
    datetime: ("$datetime", datetime.isoformat),
    date: ("$date", date.isoformat),
    time: ("$time", time.isoformat),
    timedelta: ("$timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: ("$decimal", str),
    UUID: ("$uuid", str),
    bytes: ("$bytes", lambda value: base64.b64encode(value).decode()),
}
_READ: Final[dict[str, Callable[[Any], Any]]] = {
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$time": time.fromisoformat,
    "$timedelta": lambda value: timedelta(*value),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$bytes": lambda value: base64.b64decode(value, validate=True),
    "$float": float,
    "$tuple": lambda value: tuple(_value(one) for one in value),
    "$set": lambda value: {_value(one) for one in value},
    "$frozenset": lambda value: frozenset(_value(one) for one in value),
    "$map": lambda value: {_value(key): _value(one) for key, one in value},
    "$packed": lambda value: codec.decode(base64.b64decode(value, validate=True)),
}


def entry_text(job_id: str, parms: Any) -> bytes:
    """The parameters of a job as they stand in its file.

    Raises:
        EncodingError: they hold something that cannot be kept; the text says where.
    """
    stored = datetime.now(timezone.utc).isoformat()
    whole = {"format": _FORMAT, "job": job_id, "stored": stored, "parms": _plain(parms, "parms", 0)}
    return (json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "surrogatepass")


def parse_entry(data: bytes) -> Any:
    """The parameters in a file.

    Raises:
        CorruptEntryError: it holds something else.
    """
    try:
        whole = json.loads(data.decode("utf-8", "surrogatepass"))
        if not isinstance(whole, dict) or "parms" not in whole:
            raise ValueError("there are no parms in it")
        if whole.get("format") != _FORMAT:
            raise ValueError(f"format {whole.get('format')!r} is not known here, only {_FORMAT}")
        return _value(whole["parms"])
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise CorruptEntryError(None, f"it cannot be read: {error}") from error


def _plain(value: Any, path: str, depth: int) -> Any:
    if depth > _DEEPEST:
        raise EncodingError(None, f"{path} is nested deeper than {_DEEPEST} levels")
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, dict):
        return _plain_map(value, path, depth)
    if isinstance(value, list):
        return [_plain(one, f"{path}[{at}]", depth + 1) for at, one in enumerate(value)]
    if kind in (tuple, set, frozenset):
        return {f"${kind.__name__}": [_plain(one, f"{path}[{at}]", depth + 1) for at, one in enumerate(value)]}
    if kind in _WRITE and not getattr(value, "tzinfo", None):
        tag, write = _WRITE[kind]
        return {tag: write(value)}
    if kind is datetime:
        return {"$datetime": value.isoformat()}
    return {"$packed": base64.b64encode(codec.encode(value, path)).decode()}


def _plain_map(value: dict[Any, Any], path: str, depth: int) -> Any:
    if all(type(key) is str for key in value) and not (len(value) == 1 and next(iter(value)).startswith("$")):
        return {key: _plain(one, f"{path}.{key}", depth + 1) for key, one in value.items()}
    return {
        "$map": [
            (_plain(key, f"{path} key", depth + 1), _plain(one, f"{path}[{key!r}]", depth + 1))
            for key, one in value.items()
        ]
    }


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(one) for one in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and next(iter(value)).startswith("$"):
        ((tag, inner),) = value.items()
        if tag not in _READ:
            raise ValueError(f"{tag} is no known kind of value")
        return _READ[tag](inner)
    return {key: _value(one) for key, one in value.items()}
