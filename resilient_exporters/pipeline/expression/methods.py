"""The methods and attributes of values that an expression may use: fixed lists, by the type of the value."""

from __future__ import annotations

import datetime as dt
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

from resilient_exporters.pipeline.errors import LimitExceeded
from resilient_exporters.pipeline.expression.budget import (
    MAX_TEXT,
    Frame,
    bounded,
    charge,
    charged,
    hashable,
    size,
    weigh,
)
from resilient_exporters.pipeline.expression.operations import check_date_format, formatted, get
from resilient_exporters.pipeline.pattern import Pattern

__all__ = ["CHANGING", "KNOWN", "Method", "attribute", "method"]

Method = Callable[..., Any]
_ENCODINGS: Final = ("utf-8", "utf8", "ascii", "latin-1", "latin1", "iso-8859-1", "cp1252", "utf-16", "utf-32")
_SHORT: Final = 256  # a text that is not worth counting: the call itself is paid for
_ERRORS: Final = ("strict", "ignore", "replace", "xmlcharrefreplace", "backslashreplace")
_FIELD: Final = re.compile(r"([A-Za-z]\w*|\d*)((?:\[[^\[\]]+\])*)")
_KEY: Final = re.compile(r"\[([^\[\]]+)\]")


def _sized(function: Callable[..., Any]) -> Method:
    """Linear in the size of what it is given, and so is what it makes."""

    def run(frame: Frame, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        if type(value) is str and len(value) < _SHORT:
            found = function(value, *args, **kwargs)
            if type(found) is bool or (type(found) is str and len(found) < _SHORT):
                return found
            return bounded(frame, found)
        charge(frame, size(value) + sum(map(size, args)) + 1)
        return bounded(frame, function(value, *args, **kwargs))

    return run


def _weighed(function: Callable[..., Any]) -> Method:
    """Compares elements, or takes hashes of them."""

    def run(frame: Frame, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        given = [list(charged(frame, one)) if isinstance(one, Iterator) else one for one in args]
        for one in (value, *given):
            weigh(frame, one)
        return bounded(frame, function(value, *given, **kwargs))

    return run


def _free(function: Callable[..., Any]) -> Method:
    """Takes no time to speak of."""
    return lambda _, value, *args, **kwargs: function(value, *args, **kwargs)


# -- texts -------------------------------------------------------------------------------------------------------


def _room(length: int) -> None:
    if length > MAX_TEXT:
        raise LimitExceeded(None, f"a text of more than {MAX_TEXT:,} characters")


def _padded(function: Callable[..., str]) -> Method:
    def run(frame: Frame, text: str, width: int, *fill: str) -> str:
        _room(width)
        charge(frame, max(width, 0) >> 4)
        return function(text, width, *fill)

    return run


def _backwards(function: Callable[..., Any]) -> Method:
    """Searches from the end: the product of both lengths, at worst."""

    def run(frame: Frame, text: Any, *args: Any, **kwargs: Any) -> Any:
        sought = args[0] if args else kwargs.get("sep")
        charge(frame, size(text) + (len(text) * len(sought) >> 6 if isinstance(sought, (str, bytes)) else 0))
        return bounded(frame, function(text, *args, **kwargs))

    return run


def _replace(frame: Frame, text: str, old: str, new: str, count: int = -1) -> str:
    charge(frame, size(text))
    number = text.count(old) if count < 0 else min(count, text.count(old))
    _room(len(text) + number * (len(new) - len(old)))
    found: str = bounded(frame, text.replace(old, new, count))
    return found


def _join(frame: Frame, text: str, parts: Iterable[str]) -> str:
    given = list(charged(frame, parts))
    _room(sum(map(len, given)) + len(text) * len(given))
    found: str = bounded(frame, text.join(given))
    return found


def _expandtabs(frame: Frame, text: str, tabsize: int = 8) -> str:
    _room(len(text) + text.count("\t") * tabsize)
    found: str = bounded(frame, text.expandtabs(tabsize))
    return found


def _coded(function: Callable[..., Any]) -> Method:
    def run(frame: Frame, text: Any, encoding: str = "utf-8", errors: str = "strict") -> Any:
        if str(encoding).lower().replace("_", "-") not in _ENCODINGS:
            raise ValueError(f"encoding {encoding!r:.40} is none of {', '.join(_ENCODINGS)}")
        if errors not in _ERRORS:
            raise ValueError(f"errors={errors!r:.40} is none of {', '.join(_ERRORS)}")
        charge(frame, size(text) * 4)
        return bounded(frame, function(text, encoding, errors))

    return run


def format_text(frame: Frame, template: str, /, *args: Any, **kwargs: Any) -> str:
    """``template.format(…)`` with ``{}``, ``{0}``, ``{name}`` and ``[key]`` behind these; never an attribute."""
    charge(frame, len(template))
    parts: list[str] = []
    length = automatic = 0
    for literal, field, spec, conversion in string.Formatter().parse(template):
        parts.append(literal)
        if field is not None:
            match = _FIELD.fullmatch(field)
            if match is None or "{" in (spec or ""):
                raise ValueError(f"{{{field}}} in a template: only {{}}, {{0}}, {{name}} and {{name[key]}} are allowed")
            name, path = match.groups()
            if not name:
                name, automatic = str(automatic), automatic + 1
            value = args[int(name)] if name.isdigit() else kwargs[name]
            for key in _KEY.findall(path):
                value = get(frame, value, int(key) if key.isdigit() else key)
            parts.append(formatted(frame, value, spec or "", conversion or ""))
        length += sum(map(len, parts[-2:]))
        _room(length)
    return "".join(parts)


_TEXT: dict[str, Method] = {
    **{
        name: _sized(getattr(str, name))
        for name in (
            "capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii",
            "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle",
            "isupper", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "rstrip", "split", "splitlines",
            "startswith", "strip", "swapcase", "title", "upper",
        )
    },
    **{name: _backwards(getattr(str, name)) for name in ("rfind", "rindex", "rpartition", "rsplit")},
    **{name: _padded(getattr(str, name)) for name in ("center", "ljust", "rjust", "zfill")},
    "encode": _coded(str.encode),
    "expandtabs": _expandtabs,
    "format": format_text,
    "join": _join,
    "replace": _replace,
}  # fmt: skip
_BYTES: dict[str, Method] = {
    "decode": _coded(bytes.decode),
    **{
        name: _sized(getattr(bytes, name))
        for name in ("count", "endswith", "find", "hex", "lower", "split", "startswith", "strip", "upper")
    },
}

# -- containers --------------------------------------------------------------------------------------------------


def _extend(frame: Frame, target: list[Any], source: Iterable[Any]) -> None:
    target.extend(list(charged(frame, source)))


def _sort(frame: Frame, target: list[Any], reverse: bool = False) -> None:
    weigh(frame, target)
    charge(frame, len(target) * len(target).bit_length() >> 2)
    target.sort(reverse=reverse)


def _update(frame: Frame, target: Any, source: Any = None, /, **more: Any) -> None:
    if source is None:
        target.update(more)
    elif isinstance(source, Mapping):
        charge(frame, len(source))
        target.update(source, **more)
    else:
        pairs = list(charged(frame, source))
        weigh(frame, pairs)
        target.update(pairs, **more)


def _keyed(function: Callable[..., Any]) -> Method:
    def run(frame: Frame, target: Any, key: Any, *rest: Any) -> Any:
        return function(target, hashable(frame, key), *rest)

    return run


_LIST: dict[str, Method] = {
    "append": _free(list.append),
    "clear": _sized(list.clear),
    "copy": _sized(list.copy),
    "count": _weighed(list.count),
    "extend": _extend,
    "index": _weighed(list.index),
    "insert": _sized(list.insert),
    "pop": _sized(list.pop),
    "remove": _weighed(list.remove),
    "reverse": _sized(list.reverse),
    "sort": _sort,
}
_TUPLE: dict[str, Method] = {"count": _weighed(tuple.count), "index": _weighed(tuple.index)}
_DICT: dict[str, Method] = {
    "clear": _sized(lambda target: target.clear()),
    "copy": _sized(dict),
    "get": _keyed(lambda target, key, default=None: target.get(key, default)),
    "has_key": _keyed(lambda target, key: key in target),
    "items": _sized(lambda target: list(target.items())),
    "iteritems": _sized(lambda target: list(target.items())),
    "iterkeys": _sized(list),
    "itervalues": _sized(lambda target: list(target.values())),
    "keys": _sized(list),
    "pop": _keyed(lambda target, key, *default: target.pop(key, *default)),
    "popitem": _free(lambda target: target.popitem()),
    "setdefault": _keyed(lambda target, key, default=None: target.setdefault(key, default)),
    "update": _update,
    "values": _sized(lambda target: list(target.values())),
}
_SET: dict[str, Method] = {
    name: _weighed(getattr(set, name))
    for name in (
        "add", "clear", "copy", "difference", "discard", "intersection", "isdisjoint", "issubset", "issuperset", "pop",
        "remove", "symmetric_difference", "union", "update",
    )
}  # fmt: skip
_FROZENSET: dict[str, Method] = {
    name: _weighed(getattr(frozenset, name))
    for name in ("copy", "difference", "intersection", "isdisjoint", "issubset", "issuperset", "union")
}

# -- numbers, times, matches -------------------------------------------------------------------------------------


def _strftime(frame: Frame, value: Any, spec: str) -> str:
    check_date_format(spec)
    found: str = bounded(frame, value.strftime(spec))
    return found


def _methods(kind: type, *names: str) -> dict[str, Method]:
    return {name: _sized(getattr(kind, name)) for name in names}


_DATE: dict[str, Method] = {
    **_methods(
        dt.date, "ctime", "isocalendar", "isoformat", "isoweekday", "replace", "timetuple", "toordinal", "weekday"
    ),
    "strftime": _strftime,
}
_DATETIME: dict[str, Method] = {
    **_methods(
        dt.datetime,
        "astimezone", "ctime", "date", "isocalendar", "isoformat", "isoweekday", "replace", "time", "timestamp",
        "timetuple", "timetz", "toordinal", "tzname", "utcoffset", "utctimetuple", "weekday",
    ),
    "strftime": _strftime,
}  # fmt: skip
_MATCH: dict[str, Method] = {
    name: _sized(lambda match, *args, _name=name: getattr(match, _name)(*args))
    for name in ("end", "group", "groupdict", "groups", "span", "start")
}


def _of_pattern(name: str) -> Method:
    function = getattr(Pattern, f"charged_{name}")
    return lambda frame, pattern, *args, **kwargs: function(pattern, frame, *args, **kwargs)


_TYPES: Final[tuple[tuple[Any, dict[str, Method], tuple[str, ...]], ...]] = (
    (str, _TEXT, ()),
    (dict, _DICT, ()),
    (list, _LIST, ()),
    (tuple, _TUPLE, ()),
    (set, _SET, ()),
    (frozenset, _FROZENSET, ()),
    (bytes, _BYTES, ()),
    (int, _methods(int, "bit_length"), ()),
    (float, _methods(float, "is_integer"), ()),
    (dt.datetime, _DATETIME, ("year", "month", "day", "hour", "minute", "second", "microsecond")),
    (dt.date, _DATE, ("year", "month", "day")),
    (dt.time, {**_methods(dt.time, "isoformat", "replace"), "strftime": _strftime},
     ("hour", "minute", "second", "microsecond")),
    (dt.timedelta, _methods(dt.timedelta, "total_seconds"), ("days", "seconds", "microseconds")),
    (Pattern, {name: _of_pattern(name) for name in Pattern.FUNCTIONS}, ("pattern",)),
    (re.Match, _MATCH, ("lastindex", "lastgroup", "string")),
)  # fmt: skip
KNOWN: Final = frozenset(name for _, methods, _ in _TYPES for name in methods)
CHANGING: Final = frozenset({
    "add", "append", "clear", "discard", "extend", "insert", "pop", "popitem", "remove", "reverse", "setdefault",
    "sort", "update",
})  # fmt: skip
"""Methods that change the value that they are called on."""
_ATTRIBUTES: Final = frozenset(name for _, _, attributes in _TYPES for name in attributes)
_cache: dict[type, tuple[dict[str, Method], tuple[str, ...]]] = {}


def _of(value: object) -> tuple[dict[str, Method], tuple[str, ...]]:
    found = _cache.get(type(value))
    if found is None:
        kind: Any = dict if isinstance(value, Mapping) else set if isinstance(value, AbstractSet) else type(value)
        kind = type(value) if isinstance(value, frozenset) else kind
        match_like = hasattr(value, "groupdict") and hasattr(value, "lastindex")
        kind = re.Match if match_like else kind
        found = next(((table, names) for base, table, names in _TYPES if issubclass(kind, base)), ({}, ()))
        if len(_cache) < 1_000:  # a program may make types without end
            _cache[type(value)] = found
    return found


def method(value: object, name: str) -> Method:
    """The method of a value.

    Raises:
        TypeError: its type has no such method, or not one that is allowed.
    """
    table, _ = _of(value)
    try:
        return table[name]
    except KeyError:
        allowed = f"; allowed: {', '.join(sorted(table))}" if table else ""
        raise TypeError(f"a {type(value).__name__} has no method {name} that is allowed{allowed}") from None


def attribute(value: object, name: str) -> Any:
    """An attribute of a value.

    Raises:
        TypeError: its type has no such attribute, or not one that is allowed.
    """
    _, names = _of(value)
    if name in names:
        return getattr(value, name)
    allowed = f"; allowed: {', '.join(names)}" if names else ""
    raise TypeError(f"a {type(value).__name__} has no attribute {name} that is allowed{allowed}")


def attributes() -> frozenset[str]:
    """The names of all attributes that are allowed on some type."""
    return _ATTRIBUTES
