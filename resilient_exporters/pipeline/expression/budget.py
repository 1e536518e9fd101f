"""How much work one evaluation may do: everything that can grow is charged before it happens.

A unit is at most about a tenth of a microsecond of a desktop's time, or one element of a container. A frame, the
values of the variables of one evaluation, begins with the cell that holds what is left.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from resilient_exporters.pipeline.errors import LimitExceeded

__all__ = [
    "MAX_BITS", "MAX_TEXT", "PLAIN", "WORK", "Frame", "Table", "bounded", "charge", "charged", "hashable", "integer",
    "size", "weigh",
]  # fmt: skip

WORK: Final = 500_000
"""Units for one evaluation."""
MAX_TEXT: Final = 1_000_000
"""Longest text that an expression may make."""
MAX_BITS: Final = 16_384
"""Largest integer that an expression may make."""
_MAX_NESTING: Final = 100
_SMALL: Final = 1 << 1024
_BIG: Final = 1 << MAX_BITS

Frame = list[Any]
PLAIN: Final = frozenset({int, float, bool, type(None)})
_LEAVES: Final = PLAIN | {dt.datetime, dt.date, dt.time, dt.timedelta, decimal.Decimal, uuid.UUID}
_SHORT: Final = 256
_DIGITS: Final = 5_000
_NO_DATA: Final = ("re", f"{__package__}.budget", "resilient_exporters.pipeline.pattern")
_CONTAINERS: Final = (dict, list, tuple, set, frozenset, deque)
_SIZED: Final = (range, *_CONTAINERS, Sequence)


class Table:
    """A fixed table of names: what an expression may use of a module or a class.

    Args:
        name: as it is written.
        entries: names to functions (called with the frame first), further tables, and constants.
        call: what calling the table itself does; None: it cannot be called.
        kind: the class that it stands for in ``isinstance``.
        pure: the same arguments give the same result, so that constants can be tried when the expression is read.
    """

    def __init__(
        self, name: str, entries: dict[str, Any], call: Any = None, kind: Any = None, pure: bool = True
    ) -> None:
        self.name, self.entries, self.call, self.kind, self.pure = name, entries, call, kind, pure


def charge(frame: Frame, units: int) -> None:
    """Take units from what is left.

    Raises:
        LimitExceeded: that many are not left.
    """
    cell = frame[0]
    cell[0] -= units
    if cell[0] < 0:
        raise LimitExceeded(None, f"it takes too much time: more than {WORK:,} steps for one record")


def charged(frame: Frame, source: Iterable[Any], width: int = 2) -> Iterator[Any]:
    """The elements of a source, each paid for as it is taken."""
    cell = frame[0]
    for element in source:
        cell[0] -= width
        if cell[0] < 0:
            charge(frame, 0)
        yield element


def integer(frame: Frame, value: Any) -> Any:
    """A result, charged if it is a large integer.

    Raises:
        LimitExceeded: it is too large.
    """
    if type(value) is int and not -_SMALL < value < _SMALL:
        if not -_BIG < value < _BIG:
            raise LimitExceeded(None, f"a number of more than {MAX_BITS:,} bits")
        charge(frame, value.bit_length() >> 3)
    return value


def size(value: Any) -> int:
    """What it costs to go through a value once; its elements are not looked into."""
    if type(value) in PLAIN:
        return value.bit_length() >> 3 if type(value) is int else 0
    if isinstance(value, (str, bytes, bytearray)):
        return len(value) >> 4
    if isinstance(value, _SIZED):
        return _length(value)
    return decimal_size(value) if isinstance(value, decimal.Decimal) else 1


def _length(value: Any) -> int:
    try:
        return len(value)
    except OverflowError:
        return MAX_BITS * WORK


def bounded(frame: Frame, value: Any) -> Any:
    """A result, charged for.

    Raises:
        LimitExceeded: a text or number that is too large.
    """
    if isinstance(value, (str, bytes)) and len(value) > MAX_TEXT:
        raise LimitExceeded(None, f"a text of more than {MAX_TEXT:,} characters")
    charge(frame, size(value))
    return integer(frame, value)


def weigh(frame: Frame, value: Any, data: bool = False, depth: int = 0) -> None:
    """Charge for a value with all that it holds, each time that it holds it: what comparing or writing it costs.

    Args:
        frame: of the evaluation.
        value: to be charged for.
        data: it is to be part of a record: refuse iterators and the like.
        depth: how deep it lies.

    Raises:
        LimitExceeded: more than is left; or nested too deeply, as a value that holds itself is.
        TypeError: no data.
    """
    kind = type(value)
    if kind in _LEAVES:
        if kind is int:
            integer(frame, value)
        elif kind is decimal.Decimal:
            decimal_size(value)
    elif isinstance(value, (str, bytes, bytearray)):
        charge(frame, len(value) >> 4)
    elif isinstance(value, _CONTAINERS):
        if depth > _MAX_NESTING:
            raise LimitExceeded(None, f"a value nested more than {_MAX_NESTING} times, or that holds itself")
        charge(frame, len(value) + 16)
        _weigh_all(frame, value, data, depth + 1)
        if isinstance(value, dict):
            _weigh_all(frame, value.values(), data, depth + 1)
    elif data and (isinstance(value, Iterator) or type(value).__module__ in _NO_DATA):
        raise TypeError(f"a {type(value).__name__} cannot be part of a record: make a list or a text of it")


def _weigh_all(frame: Frame, elements: Iterable[Any], data: bool, depth: int) -> None:
    """Weigh elements; short texts and numbers, as most are, are paid for by how many there are."""
    for element in elements:
        kind = type(element)
        if kind is str:
            if len(element) > _SHORT:
                charge(frame, len(element) >> 4)
        elif kind is int:
            if not -_SMALL < element < _SMALL:
                integer(frame, element)
        elif kind not in _LEAVES or kind is decimal.Decimal:
            weigh(frame, element, data, depth)


def decimal_size(value: decimal.Decimal) -> int:
    """What it costs to write a Decimal.

    Raises:
        LimitExceeded: it has a great exponent, and would be as many digits as an integer or a text.
    """
    if value.is_finite() and abs(value.adjusted()) > _DIGITS:
        raise LimitExceeded(None, f"a Decimal of more than {_DIGITS:,} digits")
    return 1


def hashable(frame: Frame, value: Any) -> Any:
    """A key, charged for if hashing it takes time."""
    if type(value) is not str and type(value) not in PLAIN:
        weigh(frame, value)
    return value
