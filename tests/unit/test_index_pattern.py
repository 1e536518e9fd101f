from __future__ import annotations

import uuid
from datetime import date, datetime, timedelta, timezone

import numpy as np
import pytest

from resilient_exporters import DataTypeError, InvalidConfigError
from resilient_exporters.exporters.index_pattern import IndexPattern, index_problem

UTC = timezone.utc
EAST = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("pattern", "record", "name"),
    [
        ("readings", {}, "readings"),
        ("readings-{@timestamp:%Y.%m.%d}", {"@timestamp": datetime(2024, 3, 9, 1, 2)}, "readings-2024.03.09"),
        ("r-{t:%Y.%m.%d}", {"t": datetime(2024, 3, 9, 1, 2, tzinfo=EAST)}, "r-2024.03.08"),  # the day of UTC
        ("r-{t:%Y.%m.%d}", {"t": date(2024, 3, 9)}, "r-2024.03.09"),
        ("r-{t:%Y.%m.%d}", {"t": "2024-03-09T23:59:59.123456789Z"}, "r-2024.03.09"),
        ("r-{t:%Y.%m.%d}", {"t": "2024-03-09T23:59:59.5-02:00"}, "r-2024.03.10"),
        ("r-{t:%Y.%m.%d}", {"t": "2024-03-09"}, "r-2024.03.09"),
        ("r-{t:%Y}", {"t": np.datetime64("2024-03-09T01:02:03.123456789")}, "r-2024"),
        ("{t:%G-w%V}", {"t": datetime(2024, 12, 31)}, "2025-w01"),
        ("{device}-x", {"device": "Boiler7"}, "boiler7-x"),
        ("{device.id}-x", {"device": {"id": 7}}, "7-x"),
        ("{device.id}-x", {"device.id": 8, "device": {"id": 7}}, "8-x"),
        ("x-{n}", {"n": np.int64(3)}, "x-3"),
        ("x-{n}", {"n": True}, "x-true"),
        ("x-{d}", {"d": date(2024, 3, 9)}, "x-2024-03-09"),
        ("x-{u}", {"u": uuid.UUID(int=1)}, "x-00000000-0000-0000-0000-000000000001"),
        ("{a}-{b:%m}-{a}", {"a": "q", "b": datetime(2024, 3, 9, tzinfo=UTC)}, "q-03-q"),
    ],
)
def test_name_comes_from_the_record(pattern: str, record: dict, name: str) -> None:
    assert IndexPattern(pattern).name(record) == name


@pytest.mark.parametrize(
    ("pattern", "record", "words"),
    [
        ("r-{t:%Y}", {}, "no field 't'"),
        ("r-{t:%Y}", {"t": None}, "NoneType, and not a datetime"),
        ("r-{t:%Y}", {"t": 1710000000}, "int, and not a datetime"),  # seconds or milliseconds, nobody knows
        ("r-{t:%Y}", {"t": "yesterday"}, "str, and not a datetime"),
        ("r-{t:%Y}", {"t": np.datetime64("NaT", "s")}, "and not a datetime"),
        ("r-{d}", {"d": 1.5}, "float, and not a text"),
        ("r-{d}", {"d": datetime(2024, 3, 9)}, "datetime, and not a text"),
        ("r-{d}", {"d": {}}, "dict, and not a text"),
        ("r-{d}", {"d": "a/b c"}, "' ', '/' cannot be in a name"),
        ("{d}", {"d": "_x"}, "cannot begin with '_'"),
        ("{d}", {"d": ""}, "no name"),
        ("{d}", {"d": "x" * 256}, "255 bytes at most"),
        ("{a.b}", {"a": 1}, "no field 'a.b'"),
    ],
)
def test_a_record_without_a_name_is_refused_with_the_reason(pattern: str, record: dict, words: str) -> None:
    with pytest.raises(DataTypeError, match=words):
        IndexPattern(pattern).name(record)


@pytest.mark.parametrize(
    "pattern",
    ["", None, 7, "Readings", "a b", "-x", "x-{", "x-}", "x-{}", "x-{t:}", "x-{t:%Q}", "x-{t:%}", "x-{t:%B}", "{a:{b}}",
     "x-{t:%H:%M}", "x-{t:%Y/%m}", "..", "<x-{now/d}>", "a,b", "x" * 256],
)  # fmt: skip
def test_a_pattern_that_gives_no_name_is_refused_at_once(pattern: object) -> None:
    with pytest.raises(InvalidConfigError, match="default_index="):
        IndexPattern(pattern)


def test_fixed_names_are_known_as_such() -> None:
    assert IndexPattern("readings").fixed == "readings"
    assert IndexPattern("readings-{a}").fixed is None


@pytest.mark.parametrize("name", ["a", ".hidden", "größe", "a.b-c_d+e", "{x}", "0"])
def test_names_that_elasticsearch_takes(name: str) -> None:
    assert index_problem(name) is None
