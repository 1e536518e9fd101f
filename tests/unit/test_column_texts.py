"""Columns as the text of a statement: the same values as the drivers' own text, which is made one by one."""

from __future__ import annotations

import datetime as dt
import json
import math
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_exporters.exporters.mysql_text import row_texts
from resilient_exporters.exporters.postgresql_text import copy_csv, copy_text
from resilient_exporters.exporters.sql_values import json_numbers

pymysql = pytest.importorskip("pymysql")


CONNECTION = pymysql.connections.Connection(defer_connect=True)
CONNECTION.server_status = 0  # as a server says that has no modes set


def literal(value: Any) -> str:
    """PyMySQL's own text."""
    return str(CONNECTION.cursor().mogrify("%s", (value,)))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_floats_are_exact(values: list[float]) -> None:
    found = [float(text) for text in json_numbers(values)]
    assert found == values
    assert [math.copysign(1, each) for each in found] == [math.copysign(1, each) for each in values]
    rows = row_texts([values], literal)
    assert [float(row.strip("()")) for row in rows] == values
    assert all("e" in row for row in rows)  # a DOUBLE, and no DECIMAL
    assert [float(line) for line in (copy_text([values]) or b"").split()] == values


@given(st.lists(st.integers(-(2**70), 2**70), min_size=1))
def test_ints_of_any_size(values: list[int]) -> None:
    assert row_texts([values], literal) == [f"({value})" for value in values]
    assert copy_text([values]) == "".join(f"{value}\n" for value in values).encode()


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"])),
            st.none() | st.booleans() | st.text("ab'\\\"\n\r\t\0\x1a%{}é"),
            st.datetimes() | st.binary() | st.decimals(allow_nan=False, allow_infinity=False),
        ),
        min_size=1,
    )
)
def test_everything_else_is_as_pymysql_has_it(rows: list[tuple[Any, ...]]) -> None:
    wanted = [f"({', '.join(map(literal, row))})" for row in rows]
    assert [_bools(row) for row in row_texts(list(zip(*rows, strict=True)), literal)] == list(map(_bools, wanted))


def _bools(row: str) -> str:
    return row.replace("true", "1").replace("false", "0")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_mysql_has_not_is_refused_by_pymysql(value: float) -> None:
    with pytest.raises(pymysql.Error):
        row_texts([[1.0, value]], literal)


def test_what_postgresql_has_and_json_has_not() -> None:
    assert copy_text([[1.5, math.nan, -math.inf, None]]) == b"1.5\nnan\n-inf\n\\N\n"


def test_a_time_with_an_offset_is_left_to_pymysql() -> None:
    aware = dt.datetime(2024, 1, 2, 3, 4, 5, 6, dt.timezone.utc)
    assert row_texts([[aware], [Decimal("1.50")]], literal) == [f"({literal(aware)}, 1.50)"]


@given(
    st.lists(
        st.tuples(st.text("ab'\"\\,[]{}\n\r\t\0 é😀"), st.none() | st.booleans(), st.integers(-(2**63), 2**63 - 1),
                  st.none() | st.floats(allow_nan=False, allow_infinity=False)),
        min_size=1,
    )
)  # fmt: skip
def test_each_line_of_csv_is_a_row(rows: list[tuple[Any, ...]]) -> None:
    found = copy_csv(list(zip(*rows, strict=True)), [True] * 4)
    odd = any(each in row[0] for row in rows for each in ("\n", "\r", "\t", "\0", "],[", "\\b"))
    assert found is not None or odd
    if found is not None:
        assert [tuple(json.loads(f"[{line}]")) for line in found.decode().split("\n")] == rows
        assert b"\\" not in found.replace(b"\\\\", b"").replace(b'\\"', b"")  # the escapes that CSV knows


@pytest.mark.parametrize("text", ["],[", "\n", "a\tb", "\0", "\x1f"])
def test_what_csv_would_read_in_another_way_is_written_as_text(text: str) -> None:
    assert copy_csv([["a", text], [1, 2]], [True, True]) is None


def test_what_is_not_known_to_be_plain_is_looked_at() -> None:
    moment = dt.datetime(2024, 1, 2, 3, 4, 5, 6, dt.timezone.utc)
    far = moment.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30, seconds=7)))
    name = uuid.UUID(int=7)
    columns: list[list[Any]] = [
        [1.5, math.nan], [moment, None], [far, far], [Decimal("1.50"), Decimal("NaN")], [b"\0\xff", None], [None, name],
        [dt.date(987, 1, 2), None], [dt.timedelta(-1, 2, 3), None], [None, None],
    ]  # fmt: skip
    assert copy_csv(columns, []) == (
        b'"1.5","2024-01-02T03:04:05.000006Z","2024-01-02 08:34:12.000006+05:30:07","1.50","\\\\x00ff",null,'
        b'"0987-01-02","-1d 2s 3us",null\n'
        b'"nan",null,"2024-01-02 08:34:12.000006+05:30:07","NaN",null,'
        b'"00000000-0000-0000-0000-000000000007",null,null,null'
    )
    for other in ([[1], [2]], [1, "a"], [1, True], [{"a": 1}], [object()]):
        assert copy_csv([other], [False]) is None
