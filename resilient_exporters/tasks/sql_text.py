"""SQL texts: values that are bound, keywords that are formatted in, and colons and braces that mean neither."""

from __future__ import annotations

import datetime as dt
import decimal
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Final

from resilient_exporters.tasks.errors import FormattedSQLWarning, TaskError
from resilient_exporters.tasks.formatting import fields, find_fields, format_text, replace_fields

__all__ = ["Statement", "clause", "statement"]

#: Texts, quoted names and comments: nothing in them is a value of the statement.
_QUOTED: Final = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$", re.DOTALL)
_BIND: Final = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?")
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][\w$]*(?:\.[A-Za-z_][\w$]*)*")
_NUMBER: Final = re.compile(r"[+-]?\d+(?:\.\d+)?")


class Statement:
    """A statement that is ready.

    Attributes:
        text: with ``:name`` for bound values.
        values: of these.
        formatted: names of the format keywords that became part of the text, although they might be anything.
    """

    def __init__(self, text: str, values: Mapping[str, Any], formatted: tuple[str, ...] = ()) -> None:
        self.text = text
        self.values = dict(values)
        self.formatted = formatted

    def warn(self, what: str) -> None:
        """Say which keywords became part of the text. Python shows the same warning once."""
        if self.formatted:
            names = ", ".join(f"{{{name}}}" for name in self.formatted)
            warnings.warn(
                f"{what}: {names} is formatted into the SQL as text, and whoever chooses the value can change the "
                f"statement; bind it: params = {{{self.formatted[0]!r}: …}} and :{self.formatted[0]} in the text",
                FormattedSQLWarning,
                stacklevel=2,
            )


def statement(text: str, keywords: Mapping[str, Any], params: Mapping[str, Any], what: str) -> Statement:
    """Put keywords and values together.

    A date in a keyword (a date, or a text that reads as one) that stands outside quotes is bound: as text,
    ``between {day} and …`` would become the subtraction ``2026-11-21``.

    Args:
        text: with ``{keyword}`` and ``:name``.
        keywords: format keywords.
        params: values to bind, by name.
        what: for errors: which text of which task.

    Raises:
        TaskError: a name in braces is no keyword; or a value has no place.
    """
    values = dict(params)
    quoted = _quotes(text)
    text = replace_fields(text, lambda match: _bound(match, keywords, values, quoted))
    quoted = _quotes(text)
    inside = {match["name"] for match in find_fields(text) if _within(match, quoted)}
    asked = [name for name in fields(text) if name in keywords]
    risky = tuple(name for name in asked if not _harmless(keywords[name], quoted=name in inside))
    text = format_text(text, keywords, what)
    placed = {match[1] for match in _free_binds(text)}
    if lost := [name for name in params if name not in placed]:
        raise TaskError(f"{what}: params has {', '.join(lost)}, but the text has no :{lost[0]} outside quotes")
    return Statement(text, values, risky)


def clause(ready: Statement) -> Any:
    """As SQLAlchemy takes it. Colons that belong to no value are left to the database.

    A text is bound without a type, so that the database takes it for what stands beside it: a date, a number, a name.
    """
    import sqlalchemy as sa

    free = {match.start() for match in _free_binds(ready.text) if match[1] in ready.values}
    escaped = _BIND.sub(lambda match: match[0] if match.start() in free else "\\" + match[0], ready.text)
    binds: list[sa.BindParameter[Any]] = []
    for name, value in ready.values.items():
        if isinstance(value, (list, tuple, set, frozenset)):
            binds.append(sa.bindparam(name, value=list(value), expanding=True))
        elif type(value) is str:
            binds.append(sa.bindparam(name, value=value, type_=sa.types.NullType()))
        else:
            binds.append(sa.bindparam(name, value=value))
    return sa.text(escaped).bindparams(*binds)


def _bound(
    match: re.Match[str], keywords: Mapping[str, Any], values: dict[str, Any], quoted: list[tuple[int, int]]
) -> str:
    """The field as it is, or a bound value in its place."""
    name = match["name"]
    value = keywords.get(name)
    if match["rest"] or not _is_date(value) or _within(match, quoted):
        return match[0]
    while name in values and values[name] is not value:
        name += "_"
    values[name] = value
    return f":{name}"


def _is_date(value: object) -> bool:
    return isinstance(value, dt.date) or (isinstance(value, str) and _DATE.fullmatch(value) is not None)


def _harmless(value: object, *, quoted: bool) -> bool:
    """A number, or a name outside quotes, such as a table's: the one does no harm, the other cannot be bound."""
    if isinstance(value, (int, float, decimal.Decimal)) or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        return True
    return not quoted and isinstance(value, str) and _IDENTIFIER.fullmatch(value) is not None


def _quotes(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in _QUOTED.finditer(text)]


def _within(match: re.Match[str], quoted: list[tuple[int, int]]) -> bool:
    return any(start <= match.start() < end for start, end in quoted)


def _free_binds(text: str) -> Iterator[re.Match[str]]:
    """The ``:name`` outside quotes and comments."""
    quoted = _quotes(text)
    for match in _BIND.finditer(text):
        if not _within(match, quoted):
            yield match
