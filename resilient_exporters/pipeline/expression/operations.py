"""Operators with a bound on what they make."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from resilient_exporters.pipeline.errors import LimitExceeded
from resilient_exporters.pipeline.expression.budget import (
    MAX_BITS,
    MAX_TEXT,
    PLAIN,
    Frame,
    bounded,
    charge,
    hashable,
    integer,
    size,
    weigh,
)

__all__ = ["BINARY", "COMPARE", "UNARY", "contains", "formatted", "get", "iterate"]

_WIDTH: Final = 1_000
_CONVERSIONS: Final[dict[str, Callable[[Any], str]]] = {"s": str, "r": repr, "a": ascii}
_PERCENT: Final = re.compile(r"%(?:\((?:[^()]*)\))?[#0\- +]*(\d*)(?:\.(\d*))?[hlL]?(.|\Z)", re.DOTALL)
_DATE_FORMAT: Final = re.compile(r"(?:[^%]|%[-_0^#]?[A-Za-z%])*", re.DOTALL)
_ATOMS: Final = frozenset({str, int, float})
_DIGITS: Final = re.compile(r"\d+")


def _add(frame: Frame, left: Any, right: Any) -> Any:
    if type(left) in PLAIN or not isinstance(left, Sequence):
        return integer(frame, left + right)
    if isinstance(left, (str, bytes)) and size(right) + size(left) > MAX_TEXT >> 4:
        raise LimitExceeded(None, f"a text of more than {MAX_TEXT:,} characters")
    charge(frame, size(left) + size(right))
    return left + right


def _multiply(frame: Frame, left: Any, right: Any) -> Any:
    if type(left) is float or type(right) is float:
        return left * right
    pairs: tuple[tuple[Any, Any], ...] = ((left, right), (right, left))
    for many, times in pairs:
        if type(many) not in PLAIN and _is_sequence(many) and isinstance(times, int):
            text = isinstance(many, (str, bytes, bytearray))
            length = len(many) * max(times, 0)
            if text and length > MAX_TEXT:
                raise LimitExceeded(None, f"a text of more than {MAX_TEXT:,} characters")
            charge(frame, length >> 4 if text else length)
            return many * times
    charge_numbers(frame, left, right)
    return integer(frame, left * right)


def _is_sequence(value: object) -> bool:
    return isinstance(value, Sequence)


def charge_numbers(frame: Frame, left: Any, right: Any) -> None:
    """Charge for large integers."""
    integer(frame, left)
    integer(frame, right)


def _power(frame: Frame, left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and right > 0 and left.bit_length() * right > MAX_BITS:
        if abs(left) > 1:
            raise LimitExceeded(None, f"a number of more than {MAX_BITS:,} bits")
        return left if right % 2 else abs(left)
    if isinstance(left, int) and isinstance(right, int) and (left.bit_length() > 1024 or right.bit_length() > 1024):
        charge_numbers(frame, left, right)
    found = integer(frame, left**right)
    if isinstance(found, complex):
        raise ValueError("the root of a negative number")  # noqa: TRY004 - a matter of the value, not of its type
    return found


def _shift_left(frame: Frame, left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right > MAX_BITS:
        raise LimitExceeded(None, f"a number of more than {MAX_BITS:,} bits")
    return integer(frame, left << right)


def _modulo(frame: Frame, left: Any, right: Any) -> Any:
    if isinstance(left, str):
        return percent(frame, left, right)
    if isinstance(left, (bytes, bytearray)):
        raise TypeError("% cannot fill in bytes: use a text")
    charge_numbers(frame, left, right)
    return left % right


def _plain(function: Callable[[Any, Any], Any]) -> Callable[[Frame, Any, Any], Any]:
    """For numbers, and for sets: what comes of it is not larger than both together."""

    def run(frame: Frame, left: Any, right: Any) -> Any:
        if type(left) is not float:
            if isinstance(left, (AbstractSet, dict)):
                weigh(frame, left)
                weigh(frame, right)
            else:
                charge_numbers(frame, left, right)
        return function(left, right)

    return run


def _compared(function: Callable[[Any, Any], Any]) -> Callable[[Frame, Any, Any], Any]:
    def run(frame: Frame, left: Any, right: Any) -> Any:
        if type(left) in PLAIN and type(right) in PLAIN:
            if type(left) is int is type(right):
                charge_numbers(frame, left, right)
        elif type(left) is str and type(right) is str:
            charge(frame, min(len(left), len(right)) >> 8)
        else:
            weigh(frame, left)
            weigh(frame, right)
        return function(left, right)

    return run


def contains(frame: Frame, left: Any, right: Any) -> bool:
    """Whether ``left in right``."""
    if isinstance(right, (str, bytes)):
        charge(frame, (len(right) >> 6) + 1)
    elif isinstance(right, (dict, AbstractSet)):
        hashable(frame, left)
    elif isinstance(right, range):
        if type(left) not in PLAIN:  # compared with one after the other
            charge(frame, size(right))
    elif isinstance(right, Iterator):
        right = list(right)
        weigh(frame, right)
    elif type(left) in PLAIN or isinstance(left, str):
        charge(frame, size(right))
        if type(left) is str and len(left) > _WIDTH:
            weigh(frame, right)
    else:
        weigh(frame, left)
        weigh(frame, right)
    return left in right


def get(frame: Frame, target: Any, key: Any) -> Any:
    """``target[key]``."""
    if isinstance(key, slice):
        charge(frame, size(target))
    else:
        hashable(frame, key)
    return target[key]


def iterate(frame: Frame, source: Any, cost: int) -> Iterator[Any]:
    """The elements of a source, each paid for with the work that is done for it."""
    cell = frame[0]
    cost += 1
    for element in source:
        cell[0] -= cost
        if cell[0] < 0:
            charge(frame, 0)
        yield element


def formatted(frame: Frame, value: Any, spec: str, conversion: str = "") -> str:
    """``format(value, spec)``, after ``str`` or ``repr`` if there is a conversion ("s", "r", "a").

    Raises:
        LimitExceeded: a width or precision that is too large.
        ValueError: a date format that is none.
    """
    if not spec and not conversion and type(value) in _ATOMS and (type(value) is not str or len(value) < _WIDTH):
        integer(frame, value)
        return str(value)
    weigh(frame, value)
    if conversion:
        value = _CONVERSIONS[conversion](value)
    if spec:
        if hasattr(value, "strftime"):
            check_date_format(spec)
        elif len(spec) > _WIDTH or any(len(run) > 4 or int(run) > _WIDTH for run in _DIGITS.findall(spec)):
            raise LimitExceeded(None, f"a width of more than {_WIDTH:,} characters in {spec[:50]!r}")
    text: str = bounded(frame, format(value, spec))
    return text


@functools.lru_cache(maxsize=256)
def check_date_format(spec: str) -> None:
    """Let only letters stand behind a percent sign.

    Raises:
        ValueError: something else does.
        LimitExceeded: it is too long.
    """
    if len(spec) > _WIDTH:
        raise LimitExceeded(None, f"a date format of more than {_WIDTH:,} characters")
    if not _DATE_FORMAT.fullmatch(spec):
        raise ValueError(f"{spec[:50]!r} is no date format: behind % stands a letter")


def percent(frame: Frame, template: str, values: Any) -> str:
    """``template % values``.

    Raises:
        LimitExceeded: a width or precision that is too large, or ``*`` for one.
    """
    charge(frame, size(template) + template.count("%"))
    total = _widths(template) if len(template) < _WIDTH else _widths.__wrapped__(template)
    weigh(frame, values)
    if isinstance(values, dict):  # a key may occur many times
        longest = max((_text_length(frame, value) for value in values.values()), default=0)
        total += longest * template.count("%(")
    if total > MAX_TEXT:
        raise LimitExceeded(None, f"a text of more than {MAX_TEXT:,} characters")
    text: str = bounded(frame, template % values)
    return text


@functools.lru_cache(maxsize=256)
def _widths(template: str) -> int:
    total = 0
    for width, precision, kind in _PERCENT.findall(template):
        if kind == "*":
            raise LimitExceeded(None, "* as the width in a template: write the number")
        for number in (width, precision):
            if number and (len(number) > 4 or int(number) > _WIDTH):
                raise LimitExceeded(None, f"a width of more than {_WIDTH:,} characters")
            total += int(number or 0)
    return total


def _text_length(frame: Frame, value: Any) -> int:
    if isinstance(value, (str, bytes)):
        return len(value)
    if type(value) in PLAIN:
        return 40
    before = frame[0][0]
    weigh(frame, value)
    return int(before - frame[0][0]) * 40


BINARY: Final[dict[str, Callable[[Frame, Any, Any], Any]]] = {
    "Add": _add,
    "Sub": _plain(operator.sub),
    "Mult": _multiply,
    "Div": _plain(operator.truediv),
    "FloorDiv": _plain(operator.floordiv),
    "Mod": _modulo,
    "Pow": _power,
    "LShift": _shift_left,
    "RShift": _plain(operator.rshift),
    "BitAnd": _plain(operator.and_),
    "BitOr": _plain(operator.or_),
    "BitXor": _plain(operator.xor),
}
COMPARE: Final[dict[str, Callable[[Frame, Any, Any], Any]]] = {
    "Eq": _compared(operator.eq),
    "NotEq": _compared(operator.ne),
    "Lt": _compared(operator.lt),
    "LtE": _compared(operator.le),
    "Gt": _compared(operator.gt),
    "GtE": _compared(operator.ge),
    "Is": lambda _, left, right: left is right,
    "IsNot": lambda _, left, right: left is not right,
    "In": contains,
    "NotIn": lambda frame, left, right: not contains(frame, left, right),
}
UNARY: Final[dict[str, Callable[[Any], Any]]] = {
    "Not": operator.not_,
    "USub": operator.neg,
    "UAdd": operator.pos,
    "Invert": operator.invert,
}
