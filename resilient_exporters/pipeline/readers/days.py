"""Days as people write them: for prefixes that hold a date."""

from __future__ import annotations

import calendar
import datetime as dt
import re
from typing import Any, Final

from resilient_exporters.pipeline.errors import ConfigurationError, InvalidDateRangeError

__all__ = ["check_days", "days_of", "today"]

_WORDS: Final = {"today": 0, "now": 0, "yesterday": -1, "tomorrow": 1}
_AGO: Final = re.compile(r"(?P<before>in )?(?P<number>\d+|an?|one) (?P<unit>day|week|month|year)s?(?P<after> ago)?")
_RIGHT: Final = "2026-01-31, today, yesterday, 3 days ago, 2 weeks ago, 1 month ago"


def days_of(given: Any, today: dt.date) -> list[dt.date]:
    """The days that an option stands for: one, or all from the first to the last.

    Args:
        given: a text, or a list of two.
        today: what "today" is.

    Raises:
        InvalidDateRangeError: the last is before the first.
        ConfigurationError: it is no date.
    """
    if isinstance(given, str):
        return [_day(given, today)]
    if not isinstance(given, (list, tuple)) or len(given) != 2:
        raise ConfigurationError(None, f"{given!r:.80} is neither a date nor [start, end]")
    first, last = (_day(one, today) for one in given)
    if last < first:
        raise InvalidDateRangeError(None, f"{given!r}: the range ends on {last}, before it begins on {first}")
    return [first + dt.timedelta(days=number) for number in range((last - first).days + 1)]


def check_days(given: Any) -> None:
    """Whether it is such an option.

    Raises:
        ConfigurationError: it is not.
    """
    days_of(given, today())


def today() -> dt.date:
    """The day it is here."""
    return dt.datetime.now().astimezone().date()


def _day(given: Any, today: dt.date) -> dt.date:
    if not isinstance(given, str):
        raise ConfigurationError(None, f"{given!r:.60} is no date; write for instance {_RIGHT}")
    text = " ".join(given.lower().split())
    if text in _WORDS:
        return today + dt.timedelta(days=_WORDS[text])
    found = _AGO.fullmatch(text)
    try:
        if found and bool(found["before"]) != bool(found["after"]):
            number = int(found["number"]) if found["number"].isdigit() else 1
            return _moved(today, number if found["before"] else -number, found["unit"])
        if len(text) == 10:
            return dt.date.fromisoformat(text.replace("/", "-"))
        return dt.datetime.fromisoformat(text.replace("z", "+00:00")).date()
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(None, f"{given!r:.60} is no date; write for instance {_RIGHT}") from error


def _moved(day: dt.date, number: int, unit: str) -> dt.date:
    if unit in ("day", "week"):
        return day + dt.timedelta(days=number * (7 if unit == "week" else 1))
    month = day.year * 12 + day.month - 1 + number * (12 if unit == "year" else 1)
    year, month = divmod(month, 12)
    return day.replace(year=year, month=month + 1, day=min(day.day, calendar.monthrange(year, month + 1)[1]))
