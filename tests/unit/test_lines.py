from __future__ import annotations

import collections
import csv
import io
import json
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_exporters.errors import InvalidConfigError, RejectedError
from resilient_exporters.exporters.lines import CsvFormat, json_line, line_format

VALUES: list[tuple[Any, Any]] = [
    ("text", "text"),
    ("two\nlines", "two\nlines"),
    ("\ud800", "\ud800"),
    (b"\x00\xff", "AP8="),
    (bytearray(b"ab"), "YWI="),
    (2**70, 2**70),
    (-(2**64), -(2**64)),
    (True, True),
    (1.5, 1.5),
    (float("nan"), None),
    (float("-inf"), None),
    (None, None),
    ([1, (2, 3)], [1, [2, 3]]),
    (frozenset([1]), [1]),
    (datetime(2024, 1, 2, 3, 4, 5, 678901), "2024-01-02T03:04:05.678901"),
    (datetime(2024, 1, 2, tzinfo=timezone(timedelta(hours=2))), "2024-01-02T00:00:00+02:00"),
    (date(2024, 1, 2), "2024-01-02"),
    (time(1, 2, 3, 4), "01:02:03.000004"),
    (timedelta(seconds=1.5), "PT1.5S"),
    (Decimal("1.10"), "1.10"),
    (Decimal("NaN"), "NaN"),
    (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (np.float32(0.5), 0.5),
    (np.float64("nan"), None),
    (np.int64(7), 7),
    (np.bool_(True), True),
    (np.str_("x"), "x"),
    (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    (np.array([1.0, float("inf")]), [1.0, None]),
    (np.datetime64("2024-01-02"), "2024-01-02"),
    (collections.UserDict(a=1), {"a": 1}),
    (object, "<class 'object'>"),
]
KEYS: list[tuple[Any, str]] = [
    (1, "1"),
    (1.5, "1.5"),
    (None, "null"),
    (True, "true"),
    ((1, "a"), '[1,"a"]'),
    (b"a", "YQ=="),
    (Decimal("1.0"), "1.0"),
    (datetime(2024, 1, 1), "2024-01-01T00:00:00"),
    (np.int64(3), "3"),
    (frozenset([1]), "[1]"),
    ("\udc80", "\udc80"),
]


@pytest.mark.parametrize(("value", "expected"), VALUES)
@pytest.mark.parametrize("ascii_only", [False, True])
def test_a_value_of_any_kind_is_one_line_of_valid_json(value: Any, expected: Any, ascii_only: bool) -> None:
    # When
    line = json_line({"deep": [value], "value": value}, ascii_only=ascii_only)

    # Then
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert json.loads(line, parse_constant=pytest.fail) == {"deep": [expected], "value": expected}


@pytest.mark.parametrize(("key", "expected"), KEYS)
@pytest.mark.parametrize("neighbour", ["plain", "\ud800"])  # the second forces the long way
def test_a_key_of_any_kind_is_text(key: Any, expected: str, neighbour: str) -> None:
    assert json.loads(json_line({key: neighbour})) == {expected: neighbour}


scalars: st.SearchStrategy[Any] = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters()), st.binary(), st.decimals()),
    *(st.datetimes(), st.timedeltas(), st.uuids(), st.dates(), st.times()),
)
keys = st.text(st.characters()) | st.integers() | st.none() | st.booleans() | st.tuples(st.integers(), st.text())
trees = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner))


@given(trees)
@pytest.mark.parametrize("name", ["auto", "json", "text"])
def test_nothing_raises_and_every_record_ends_with_one_newline(name: str, value: Any) -> None:
    line = line_format(name, newlines="escape").line(value)

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("auto", "a b", b"a b\n"),
        ("auto", "has its own\n", b"has its own\n"),
        ("auto", "", b"\n"),
        ("auto", "two\nlines", b"two\nlines\n"),
        ("auto", b"raw \xff", b"raw \xff\n"),
        ("auto", {"a": 1}, b'{"a":1}\n'),
        ("auto", date(2024, 1, 2), b'"2024-01-02"\n'),
        ("text", date(2024, 1, 2), b"2024-01-02\n"),
        ("text", 3.5, b"3.5\n"),
        ("text", True, b"true\n"),
        ("text", {"a": "é"}, '{"a":"é"}\n'.encode()),
        ("json", "a b", b'"a b"\n'),
        ("json", b"ab", b'"YWI="\n'),
    ],
)
def test_formats(name: str, value: Any, line: bytes) -> None:
    assert line_format(name).line(value) == line


def test_escaped_newlines_can_be_undone() -> None:
    line = line_format("text", newlines="escape").line("a\\n\nb\r")

    assert line == b"a\\\\n\\nb\\r\n"


def test_what_an_encoding_does_not_have_is_escaped() -> None:
    latin = line_format("auto", encoding="latin-1")

    assert latin.line("é€") == b"\xe9\\u20ac\n"
    assert json.loads(latin.line({"a": "é€"})) == {"a": "é€"}
    assert latin.line({"a": "é€"}).isascii()


def columns(**options: Any) -> CsvFormat:
    made = line_format("csv", **options)
    assert isinstance(made, CsvFormat)
    return made


@pytest.mark.parametrize(("value", "expected"), VALUES)
def test_every_kind_of_value_is_a_cell(value: Any, expected: Any) -> None:
    # Given
    rows = columns(fields=["v", "w"])

    # When
    read = next(csv.reader(io.StringIO(rows.line({"v": value}).decode("utf-8", "surrogateescape"), newline="")))

    # Then
    assert len(read) == 2
    if isinstance(expected, str) and expected.isprintable():
        assert read == [expected, ""]


def test_a_csv_row_follows_the_columns() -> None:
    rows = columns(fields=["b", "a"], delimiter=";")

    assert rows.header_line() == b"b;a\n"
    assert rows.line({"a": 1, "b": 'x;"y"'}) == b'"x;""y""";1\n'
    assert rows.line({"a": True}) == b";true\n"
    assert rows.line((1, [2, None])) == b"1;[2,null]\n"
    assert rows.line({"a": float("nan"), "b": -0.0}) == b"-0.0;nan\n"


def test_a_csv_row_with_other_columns_is_refused() -> None:
    rows = columns(fields=["a"])

    with pytest.raises(RejectedError, match="no column for b: the columns are a"):
        rows.line({"a": 1, "b": 2})
    with pytest.raises(RejectedError, match="2 cells for 1 columns"):
        rows.line((1, 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "xml"}, "format='xml' is not possible; give \"auto\""),
        ({"format": "auto", "newlines": "crlf"}, "newlines='crlf' is not possible"),
        ({"format": "auto", "encoding": "utf-17"}, "encoding='utf-17'"),
        ({"format": "auto", "encoding": "utf-16"}, "encoding='utf-16': lines are cut at"),
        ({"format": "auto", "fields": ["a"]}, 'only format="csv" has columns'),
        ({"format": "csv", "fields": "ab"}, "fields='ab': give the names"),
        ({"format": "csv", "fields": ["a", "a"]}, "every name once"),
        ({"format": "csv", "delimiter": "::"}, "delimiter='::': give one ASCII character"),
    ],
)
def test_impossible_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        line_format(**options)
