"""Sizes, times, counts and rates as people write them, checked where they are given.

Every function takes the value and the name of the option it was given for, and raises an ``InvalidConfigError`` that
names the option, the value and what would be right.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Final, Literal, TypeGuard, overload

from resilient_exporters.errors import InvalidConfigError

__all__ = ["parse_callable", "parse_choice", "parse_count", "parse_rate", "parse_seconds", "parse_size"]

_PREFIXES: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
                    "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}  # fmt: skip
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]i?|)(?:b|bytes?)?\s*", re.ASCII | re.IGNORECASE)
_RATE: Final = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(?:records?)?\s*/\s*s\s*", re.ASCII | re.IGNORECASE)
_SIZE_RIGHT: Final = 'a number of bytes, or a text such as "16 MB", "512 kB" or "2 GiB"'
_RATE_RIGHT: Final = 'records per second above 0, or a text such as "100/s", "100 records/s" or "500 kB/s"'


def parse_size(value: object, option: str) -> int:
    """Return a size in bytes.

    Args:
        value: bytes as an int, or a text with a unit: B, kB, MB, GB, TB are powers of 1000 and KiB, MiB, GiB, TiB
            powers of 1024; the B may be left out and case does not matter. A fraction is rounded to whole bytes.
        option: name of the option, for the error.

    Raises:
        InvalidConfigError: negative, or not a size.
    """
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match is not None and math.isfinite(size := float(match[1]) * _PREFIXES[match[2].lower()]):
            return round(size)
    elif _is_number(value) and value >= 0 and value == int(value):
        return int(value)
    raise _refusal(option, value, _SIZE_RIGHT)


@overload
def parse_seconds(value: object, option: str, *, zero_ok: bool = ...) -> float: ...
@overload
def parse_seconds(value: object, option: str, *, none_ok: Literal[True], zero_ok: bool = ...) -> float | None: ...
@overload
def parse_seconds(value: object, option: str, *, none_ok: bool = ..., zero_ok: bool = ...) -> float | None: ...
def parse_seconds(value: object, option: str, *, none_ok: bool = False, zero_ok: bool = True) -> float | None:
    """Return a time in seconds.

    Args:
        value: seconds as an int or float, or a ``timedelta``; infinity is taken.
        option: name of the option, for the error.
        none_ok: take None, and return it.
        zero_ok: take 0.

    Raises:
        InvalidConfigError: negative, not a number, or 0 or None where they mean nothing.
    """
    if value is None and none_ok:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds == math.inf or (_is_number(seconds) and seconds >= 0 and (seconds or zero_ok)):
        return float(seconds)
    bound = "0 or more" if zero_ok else "more than 0"
    raise _refusal(option, value, f"seconds, {bound}, as a number or a timedelta" + (", or None" if none_ok else ""))


@overload
def parse_count(value: object, option: str, *, minimum: int = ...) -> int: ...
@overload
def parse_count(value: object, option: str, *, minimum: int = ..., none_ok: Literal[True]) -> int | None: ...
@overload
def parse_count(value: object, option: str, *, minimum: int = ..., none_ok: bool = ...) -> int | None: ...
def parse_count(value: object, option: str, *, minimum: int = 1, none_ok: bool = False) -> int | None:
    """Return a whole number.

    Args:
        value: an int, or a float without a fraction.
        option: name of the option, for the error.
        minimum: smallest number that means something.
        none_ok: take None, and return it.

    Raises:
        InvalidConfigError: below ``minimum``, or no whole number.
    """
    if value is None and none_ok:
        return None
    if _is_number(value) and sys.maxsize >= value >= minimum and value == int(value):
        return int(value)
    most = f", {sys.maxsize} at most" if _is_number(value) and value > sys.maxsize else ""
    raise _refusal(option, value, f"a whole number, {minimum} or more{most}" + (", or None" if none_ok else ""))


def parse_choice(value: object, option: str, choices: Iterable[str]) -> str:
    """Return a value that is one of some texts.

    Raises:
        InvalidConfigError: none of them; the nearest one is suggested.
    """
    known = list(choices)
    if isinstance(value, str):
        if value in known:
            return value
        near = difflib.get_close_matches(value.lower(), known, n=1)
        if near:
            raise _refusal(option, value, _listed(known), f'; did you mean "{near[0]}"?')
    raise _refusal(option, value, _listed(known))


def parse_rate(value: object, option: str) -> tuple[float, Literal["records", "bytes"]]:
    """Return a rate per second, and of what.

    Args:
        value: a number of records per second, or a text: "100/s", "100 records/s", "500 kB/s".
        option: name of the option, for the error.

    Raises:
        InvalidConfigError: 0 or less, infinite, or not a rate.
    """
    if isinstance(value, str):
        match = _RATE.fullmatch(value)
        amount, slash, second = value.rpartition("/")
        if match is not None and float(match[1]) > 0:
            return float(match[1]), "records"
        size = _SIZE.fullmatch(amount)
        if match is None and size is not None and slash and second.strip().lower() == "s" and float(size[1]) > 0:
            return float(size[1]) * _PREFIXES[size[2].lower()], "bytes"
    elif _is_number(value) and value > 0:
        return float(value), "records"
    raise _refusal(option, value, _RATE_RIGHT)


@overload
def parse_callable(value: object, option: str) -> Callable[..., Any]: ...
@overload
def parse_callable(value: object, option: str, *, none_ok: Literal[True]) -> Callable[..., Any] | None: ...
def parse_callable(value: object, option: str, *, none_ok: bool = False) -> Callable[..., Any] | None:
    """Return a function or another thing that can be called.

    Raises:
        InvalidConfigError: it cannot be called.
    """
    if value is None and none_ok:
        return None
    if callable(value):
        function: Callable[..., Any] = value
        return function
    raise _refusal(option, value, "a function or another callable" + (", or None" if none_ok else ""))


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf


def _listed(choices: list[str]) -> str:
    quoted = [f'"{choice}"' for choice in choices]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def _refusal(option: str, value: object, right: str, suggestion: str = "") -> InvalidConfigError:
    return InvalidConfigError(f"{option}={value!r} is not possible; give {right}{suggestion}")
