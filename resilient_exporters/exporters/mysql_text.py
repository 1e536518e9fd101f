"""Rows as the text of a statement, a column at a time: a third of the time of PyMySQL's value by value."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, Final

from resilient_exporters.exporters.sql_values import json_numbers

__all__ = ["row_texts"]


def row_texts(columns: Sequence[Sequence[Any]], literal: Callable[[Any], str]) -> list[str]:
    """Rows in parentheses, as they stand after VALUES.

    Args:
        columns: values, column by column, at least one column.
        literal: PyMySQL's text of a value, which knows how this connection escapes. It has the last word on all that
            is not a number or harmless in any mode of the server.

    Raises:
        pymysql.Error: a value has no text.
    """
    texts = [_texts(values, literal) for values in columns]
    return [f"({row})" for row in map(", ".join, zip(*texts, strict=True))]


def _texts(values: Sequence[Any], literal: Callable[[Any], str]) -> Sequence[str]:
    types = set(map(type, values))
    if len(types) == 1 and (make := _MAKERS.get(types.pop())) is not None and (made := make(values)) is not None:
        return made
    return [literal(value) for value in values]


def _whole(values: Sequence[int]) -> Sequence[str] | None:
    try:
        return json_numbers(values)
    except OverflowError:  # beyond 64 bits
        return None


def _floats(values: Sequence[float]) -> Sequence[str] | None:
    texts = json_numbers(values)
    if "null" in texts:  # nan and infinities, which PyMySQL refuses
        return None
    return [text if "e" in text else text + "e0" for text in texts]  # without e it would be a DECIMAL


def _strings(values: Sequence[str]) -> Sequence[str] | None:
    together = "".join(values)
    return None if any(each in together for each in _ESCAPED) else [f"'{value}'" for value in values]


def _datetimes(values: Sequence[dt.datetime]) -> Sequence[str] | None:
    return [f"'{value}'" for value in values] if all(value.tzinfo is None for value in values) else None


_ESCAPED: Final = "\\'\"\0\n\r\x1a"
"""What some mode of the server wants escaped (MySQL manual, "String Literals")."""

_MAKERS: Final[dict[type, Callable[[Sequence[Any]], Sequence[str] | None]]] = {
    type(None): lambda values: ["NULL"] * len(values),
    int: _whole,
    float: _floats,
    bool: lambda values: ["1" if value else "0" for value in values],
    str: _strings,
    dt.datetime: _datetimes,
}
"""By exact type."""
