"""The functions that an expression may call: of a few modules, and of the language itself."""

from __future__ import annotations

import calendar
import datetime as dt
import math
import random
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from resilient_exporters.pipeline.errors import LimitExceeded
from resilient_exporters.pipeline.expression.budget import (
    MAX_BITS,
    Frame,
    Table,
    bounded,
    charge,
    charged,
    integer,
    size,
    weigh,
)
from resilient_exporters.pipeline.expression.iterators import ITERTOOLS, lazy
from resilient_exporters.pipeline.expression.operations import BINARY, check_date_format, formatted
from resilient_exporters.pipeline.pattern import Pattern

__all__ = ["BUILTINS", "MODULES"]

_WIDTH: Final = 1_000
_STRPTIME: Final = 20_000  # units: a format may match a text in many ways
_random: Final = random.Random()  # noqa: S311 - for samples, not for secrets; its state is ours, not that of the program


def _sized(function: Callable[..., Any]) -> Any:
    """Linear in the size of what it is given, and makes no more than that."""

    def run(frame: Frame, /, *args: Any, **kwargs: Any) -> Any:
        charge(frame, sum(map(size, args)) + 1)
        return bounded(frame, function(*args, **kwargs))

    return run


def _listed(frame: Frame, value: Any) -> Any:
    return list(charged(frame, value)) if isinstance(value, Iterator) else value


def _weighed(function: Callable[..., Any], times: int = 1) -> Any:
    """Compares, hashes or writes elements."""

    def run(frame: Frame, /, *args: Any, **kwargs: Any) -> Any:
        given = [_listed(frame, one) for one in args]
        for one in given:
            charge(frame, size(one) * times)
            weigh(frame, one)
        return bounded(frame, function(*given, **kwargs))

    return run


def _small(name: str, function: Callable[..., Any], limit: int) -> Any:
    """A function of integers that grows fast."""

    def run(frame: Frame, *numbers: int) -> Any:
        if any(number > limit for number in numbers):
            raise LimitExceeded(None, f"{name} of a number of more than {limit:,}")
        charge(frame, sum(max(number, 0) for number in numbers))
        return integer(frame, function(*numbers))

    return run


# -- of the language ---------------------------------------------------------------------------------------------


def _int(frame: Frame, value: Any = 0, *base: int) -> int:
    if isinstance(value, (str, bytes)) and len(value) > 4_300:
        raise LimitExceeded(None, "int of a text of more than 4,300 digits")
    charge(frame, size(value) * 16)
    return int(integer(frame, int(value, *base)))


def _round(frame: Frame, value: Any, digits: int | None = None) -> Any:
    charge(frame, size(value))
    if digits is not None and abs(digits) > _WIDTH:
        raise LimitExceeded(None, f"round to more than {_WIDTH:,} digits")
    return round(value, digits)


def _pow(frame: Frame, base: Any, exponent: Any, modulus: Any = None) -> Any:
    if modulus is None:
        return BINARY["Pow"](frame, base, exponent)
    for number in (base, exponent, modulus):
        if not -(1 << 1024) < number < 1 << 1024:
            raise LimitExceeded(None, "pow of three numbers of more than 1,024 bits")
    charge(frame, 10_000)
    return pow(base, exponent, modulus)


def _sum(frame: Frame, values: Iterable[Any], start: Any = 0) -> Any:
    if isinstance(start, (str, bytes, list, tuple)):
        raise TypeError("sum is for numbers")
    for value in charged(frame, values, 5):
        if isinstance(value, (str, bytes, list, tuple)):
            raise TypeError("sum is for numbers")
        start = BINARY["Add"](frame, start, value)
    return start


def _format(frame: Frame, value: Any, spec: str = "") -> str:
    return formatted(frame, value, spec)


def _text(function: Callable[[Any], str]) -> Any:
    def run(frame: Frame, value: Any = "") -> str:
        if isinstance(value, Iterator):
            raise TypeError("a text of an iterator says nothing: make a list of it")
        weigh(frame, value)
        found: str = bounded(frame, function(value))
        return found

    return run


def _next(frame: Frame, source: Any, *default: Any) -> Any:
    charge(frame, 1)
    return next(source, *default)


def _kind(kind: Any, call: Any) -> Table:
    return Table(kind.__name__, {}, call, kind)


_range: Final = _sized(range)
_str: Final = _text(str)
_sort: Final = _weighed(sorted, 8)
_STR: Final = _kind(str, _str)
_INT: Final = _kind(int, _int)
_DICT: Final = Table("dict", {}, _weighed(dict), dict)
BUILTINS: Final[dict[str, Any]] = {
    "abs": _sized(abs),
    "all": _sized(all),
    "any": _sized(any),
    "basestring": _STR,
    "bool": _kind(bool, _sized(bool)),
    "bytes": Table("bytes", {}, None, bytes),
    "chr": _sized(chr),
    "dict": _DICT,
    "divmod": _sized(divmod),
    "enumerate": lazy(enumerate),
    "float": _kind(float, _sized(float)),
    "format": _format,
    "frozenset": _kind(frozenset, _weighed(frozenset)),
    "hex": _sized(hex),
    "int": _INT,
    "len": lambda _, value: len(value),
    "list": _kind(list, _sized(list)),
    "long": _INT,
    "max": _weighed(max),
    "min": _weighed(min),
    "next": _next,
    "ord": _sized(ord),
    "pow": _pow,
    "range": lambda _, *args: range(*args),
    "repr": _text(repr),
    "reversed": lazy(reversed),
    "round": _round,
    "set": _kind(set, _weighed(set)),
    "sorted": _sort,
    "str": _STR,
    "sum": _sum,
    "tuple": _kind(tuple, _sized(tuple)),
    "unicode": _STR,
    "xrange": lambda _, *args: range(*args),
    "zip": lazy(zip),
}

# -- datetime, calendar ------------------------------------------------------------------------------------------


def _strptime(frame: Frame, text: str, spec: str) -> dt.datetime:
    check_date_format(spec)
    if len(spec) > 100 or len(text) > 200:
        raise LimitExceeded(None, "strptime with a format of more than 100 or a text of more than 200 characters")
    charge(frame, _STRPTIME)
    return dt.datetime.strptime(text, spec)  # noqa: DTZ007 - as the format has it


def _utcfromtimestamp(_: Frame, seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc).replace(tzinfo=None)


def _utcnow(_: Frame) -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc).replace(tzinfo=None)


def _of(owner: Any, names: str) -> dict[str, Any]:
    return {name: _sized(getattr(owner, name)) for name in names.split() if hasattr(owner, name)}


def _values(owner: Any, names: str) -> dict[str, Any]:
    """Constants, as one-element tuples: so they differ from functions."""
    return {name: (getattr(owner, name),) for name in names.split()}


_NOW: Final = {
    "now": Table("now", {}, lambda _, tz=None: dt.datetime.now(tz), pure=False),
    "today": Table("today", {}, lambda _: dt.datetime.now(), pure=False),  # noqa: DTZ005 - as it is in Python
    "utcnow": Table("utcnow", {}, _utcnow, pure=False),
}
_DATETIME: Final = Table(
    "datetime.datetime",
    {
        **_of(dt.datetime, "combine fromisocalendar fromisoformat fromordinal fromtimestamp"),
        **_values(dt.datetime, "max min"),
        **_NOW,
        "strptime": _strptime,
        "utcfromtimestamp": _utcfromtimestamp,
    },
    _sized(dt.datetime),
    dt.datetime,
)
_DATE: Final = Table(
    "datetime.date",
    {
        **_of(dt.date, "fromisocalendar fromisoformat fromordinal fromtimestamp"),
        **_values(dt.date, "max min"),
        "today": Table("today", {}, lambda _: dt.date.today(), pure=False),  # noqa: DTZ011 - as it is in Python
    },
    _sized(dt.date),
    dt.date,
)
_TIMEZONE: Final = Table("datetime.timezone", _values(dt.timezone, "utc"), _sized(dt.timezone), dt.timezone)

# -- math, random -------------------------------------------------------------------------------------


def _prod(frame: Frame, values: Any, start: Any = 1) -> Any:
    for value in charged(frame, values, 8):
        start = BINARY["Mult"](frame, start, value)
        if not isinstance(start, (int, float)):
            raise TypeError("math.prod is for numbers")
    return start


def _lcm(frame: Frame, *numbers: int) -> int:
    if sum(number.bit_length() for number in numbers) > MAX_BITS:
        raise LimitExceeded(None, f"a number of more than {MAX_BITS:,} bits")
    charge(frame, len(numbers) * 10)
    return math.lcm(*numbers)


def _drawn(name: str, draw: Callable[..., Any] | None = None) -> Table:
    function = draw or _sized(getattr(_random, name))
    return Table(f"random.{name}", {}, function, pure=False)


def _choices(frame: Frame, values: Any, weights: Any = None, cum_weights: Any = None, k: int = 1) -> list[Any]:
    charge(frame, max(k, 0) + size(values))
    return _random.choices(values, weights, cum_weights=cum_weights, k=k)


def _sample(frame: Frame, values: Any, k: int) -> list[Any]:
    charge(frame, max(k, 0) * 4 + size(values))
    return _random.sample(values, k)


def _randbits(frame: Frame, k: int) -> int:
    if k > MAX_BITS:
        raise LimitExceeded(None, f"a number of more than {MAX_BITS:,} bits")
    return int(integer(frame, _random.getrandbits(k)))


# -- re ----------------------------------------------------------------------------------------------------------


def _searched(name: str) -> Any:
    function = getattr(Pattern, f"charged_{name}")

    def run(frame: Frame, pattern: Any, *args: Any, flags: int = 0, **kwargs: Any) -> Any:
        place = {"sub": 3, "split": 2}.get(name, 1)  # where flags stand when they are given by place
        args, more = args[:place], args[place:]
        charge(frame, 100)
        return function(Pattern.of(pattern, *(more or (flags,))), frame, *args, **kwargs)

    return run


def _compiled(frame: Frame, pattern: Any, flags: int = 0) -> Pattern:
    charge(frame, 100)
    return Pattern.of(pattern, flags)


_FLAGS: Final = "A ASCII I IGNORECASE M MULTILINE S DOTALL U UNICODE X VERBOSE"
MODULES: Final[dict[str, Table]] = {
    "calendar": Table(
        "calendar",
        {
            **_of(calendar, "isleap monthrange weekday timegm"),
            "leapdays": _sized(calendar.leapdays),
            "monthcalendar": _sized(calendar.monthcalendar),
            **{
                name: (tuple(getattr(calendar, name)),)
                for name in ("day_abbr", "day_name", "month_abbr", "month_name")
            },
            **_values(calendar, "MONDAY TUESDAY WEDNESDAY THURSDAY FRIDAY SATURDAY SUNDAY"),
        },
    ),
    "datetime": Table(
        "datetime",
        {
            "date": _DATE,
            "datetime": _DATETIME,
            "time": Table("datetime.time", _of(dt.time, "fromisoformat"), _sized(dt.time), dt.time),
            "timedelta": Table("datetime.timedelta", {}, _sized(dt.timedelta), dt.timedelta),
            "timezone": _TIMEZONE,
            "UTC": (dt.timezone.utc,),
        },
    ),
    "itertools": ITERTOOLS,
    "math": Table(
        "math",
        {
            **_of(
                math,
                "acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh degrees dist erf erfc exp exp2 "
                "expm1 fabs floor fmod frexp fsum gamma hypot isclose isfinite isinf isnan isqrt ldexp lgamma log "
                "log10 log1p log2 modf pow radians remainder sin sinh sqrt tan tanh trunc ulp gcd",
            ),
            **_values(math, "e inf nan pi tau"),
            "comb": _small("math.comb", math.comb, _WIDTH),
            "factorial": _small("math.factorial", math.factorial, _WIDTH),
            "lcm": _lcm,
            "perm": _small("math.perm", math.perm, _WIDTH),
            "prod": _prod,
        },
    ),
    "random": Table(
        "random",
        {
            **{
                name: _drawn(name)
                for name in (
                    "choice", "expovariate", "gauss", "normalvariate", "randint", "random", "randrange", "shuffle",
                    "triangular", "uniform",
                )
            },
            "choices": _drawn("choices", _choices),
            "getrandbits": _drawn("getrandbits", _randbits),
            "sample": _drawn("sample", _sample),
        },
    ),
    "re": Table(
        "re",
        {
            **{name: _searched(name) for name in Pattern.FUNCTIONS},
            "compile": _compiled,
            "escape": _sized(re.escape),
            **_values(re, _FLAGS),
        },
    ),
}  # fmt: skip
