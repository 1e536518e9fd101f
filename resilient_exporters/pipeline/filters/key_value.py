"""Records that have certain values."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from resilient_exporters.pipeline.errors import ConfigurationError, InvalidOperator
from resilient_exporters.pipeline.filters.base import BaseRecordFilter
from resilient_exporters.pipeline.nested import MISSING, nested
from resilient_exporters.pipeline.option import ListOf, Option, named
from resilient_exporters.pipeline.pattern import Pattern
from resilient_exporters.pipeline.record import BaseRecord

__all__ = ["KeyValueFilter", "KeyValueRegexFilter"]

_Test = Callable[[Any], bool]


def _pattern(value: Any) -> Pattern:
    try:
        return Pattern(value)
    except ValueError as error:
        raise ConfigurationError(None, f"keys: {error}") from error


def _matches(value: Any) -> _Test:
    pattern = _pattern(value)
    return lambda found: (
        found is not None and pattern.match(found if isinstance(found, str) else str(found)) is not None
    )


def _is_in(value: Any) -> _Test:
    if not isinstance(value, (list, tuple, str, Mapping)):
        raise ConfigurationError(None, f"keys: value={value!r:.60} of the operator in: give a list, or a text")
    if isinstance(value, str):
        return lambda found: isinstance(found, str) and found in value
    return lambda found: found in value


OPERATORS: Final[dict[str, Callable[[Any], _Test]]] = {
    "==": lambda value: lambda found: bool(operator.eq(found, value)),
    "contains": lambda value: lambda found: value in found,
    "in": _is_in,
    "re_match": _matches,
}


class _KeysFilter(BaseRecordFilter):
    supported_options = {
        "keys": Option(type=ListOf(dict), help="List of {name, value, operator}; all of them must hold."),
        "nested_field_separator": Option(
            type=str, default=".", help="Stands between the keys of a nested value in name; empty: names are keys."
        ),
    }
    fields: tuple[str, ...] = ("name", "value")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        separator = self.read_option("nested_field_separator")
        self._tests: list[tuple[tuple[str, ...], _Test]] = []
        for key in self.read_option("keys"):
            unknown = [named(name, self.fields) for name in key if name not in self.fields]
            missing = [name for name in ("name", "value") if name not in key]
            if unknown or missing or not isinstance(key["name"], str):
                raise ConfigurationError(
                    None, f"keys: {dict(key)!r:.100} has not the form {{{', '.join(self.fields)}}}"
                    + (f"; unknown: {', '.join(unknown)}" if unknown else "")
                )  # fmt: skip
            path = tuple(key["name"].split(separator)) if separator else (key["name"],)
            self._tests.append((path, self.test_of(key)))

    def test_of(self, key: Mapping[str, Any]) -> _Test:
        """What is to hold for a value."""
        raise NotImplementedError(f"{type(self).__name__} must define test_of(key)")

    def filter(self, item: BaseRecord) -> bool:
        """Whether all keys have the value that they should have; a record that lacks one does not pass."""
        for path, test in self._tests:
            found = nested(item, path)
            if found is MISSING or not test(found):
                return False
        return True


class KeyValueFilter(_KeysFilter):
    """Lets a record pass if its keys have certain values.

    Operators: ``==`` (the default); ``in``: the record's value is one of a list, or part of a text; ``contains``: the
    record's value holds the given one; ``re_match``: its text matches a regular expression, from the beginning.

    Raises:
        InvalidOperator: there is no such operator.

    Example:
        >>> KeyValueFilter(keys=[{"name": "place.country", "value": "es"}]).filter({"place": {"country": "es"}})
        True
    """

    fields = ("name", "value", "operator")

    def test_of(self, key: Mapping[str, Any]) -> _Test:
        """By its operator."""
        name = key.get("operator", "==")
        if name not in OPERATORS:
            raise InvalidOperator(None, f"keys: operator {named(name, OPERATORS)} is none of {', '.join(OPERATORS)}")
        return OPERATORS[name](key["value"])


class KeyValueRegexFilter(_KeysFilter):
    """Lets a record pass if the texts of its keys match regular expressions, from their beginning. None does not match.

    A regular expression that may take very long on a text needs the extra ``expressions``.
    """

    def test_of(self, key: Mapping[str, Any]) -> _Test:
        """Its regular expression."""
        return _matches(key["value"])
