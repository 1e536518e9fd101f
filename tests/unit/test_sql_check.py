"""Rows looked at as a whole: what is said to need nothing done is what each column's codec would leave as it is."""

from __future__ import annotations

import decimal
import enum
import math
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Dialect

from resilient_exporters.exporters.postgresql_columns import PostgreSQLCodec
from resilient_exporters.exporters.sql_check import RowCheck
from resilient_exporters.exporters.sql_values import ColumnCodec


class Word(str, enum.Enum):
    ON = "on"


class Level(enum.IntEnum):
    HIGH = 3


KINDS: tuple[Any, ...] = (
    sa.SmallInteger(),
    sa.Integer(),
    sa.BigInteger(),
    sa.Double(),
    sa.Boolean(),
    sa.String(5),
    sa.Text(),
)
VALUES = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text("ab\0é\ud800", max_size=7)
    | st.decimals() | st.sampled_from([Word.ON, Level.HIGH, b"x", 2**53, 2**53 + 1, -(2**53), 2**31, 2**15, -(2**63)])
)  # fmt: skip


def codec(dialect: Dialect, kind: Any, *, required: bool) -> ColumnCodec:
    if dialect.name != "postgresql":
        return ColumnCodec("c", kind, dialect)
    return PostgreSQLCodec(sa.Column("c", kind, nullable=not required), dialect, strict=True)


def left_alone(made: ColumnCodec, values: list[Any]) -> bool:
    kind = made.plain_kind()
    return kind is not None and RowCheck([kind])([(value,) for value in values]) and made.sound(values)


@pytest.mark.parametrize("dialect", [postgresql.dialect(), mysql.dialect(), sqlite.dialect()], ids=lambda d: d.name)
@given(st.sampled_from(KINDS), st.booleans(), st.lists(VALUES, min_size=1, max_size=4))
@example(sa.Double(), False, [1.5, decimal.Decimal("0.12345678901234567890")])
@example(sa.Double(), False, [decimal.Decimal("0.12345678901234567890")])
@example(sa.Double(), False, [1.5, 2**53 + 1])
@example(sa.Double(), False, [1.5, math.nan])
@example(sa.Double(), False, [1, None])
@example(sa.Double(), False, [0.5, Level.HIGH])
@example(sa.Integer(), False, [1, Level.HIGH])
@example(sa.Integer(), False, [1, 2**63])
@example(sa.Text(), False, ["a", Word.ON])
@example(sa.Text(), False, ["a", None, "\0"])
@example(sa.String(5), True, ["a", None])
@example(sa.String(5), True, ["toolong"])
def test_what_is_left_alone_is_what_the_codec_leaves(
    dialect: Dialect, kind: Any, required: bool, values: list[Any]
) -> None:
    made = codec(dialect, kind, required=required)
    if left_alone(made, values):
        found = list(made.column(values))
        assert found == values
        assert all(type(value) in {type(None), bool, int, float, str} for value in values)
        assert all(math.isfinite(value) for value in values if isinstance(value, float))


@pytest.mark.parametrize("dialect", [postgresql.dialect(), mysql.dialect(), sqlite.dialect()], ids=lambda d: d.name)
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (sa.BigInteger(), [1, -(2**63), None, 2**63 - 1]), (sa.Double(), [0.1, None, -1e15]),
        (sa.Text(), ["a", None, "\n"]), (sa.String(5), ["abcde", "😀😀😀😀😀"]),
    ],
)  # fmt: skip
def test_readings_are_left_alone(dialect: Dialect, kind: Any, values: list[Any]) -> None:
    assert left_alone(codec(dialect, kind, required=False), values)


def test_a_boolean_among_whole_numbers_is_for_the_codec_of_its_column_only() -> None:
    made = codec(mysql.dialect(), sa.BigInteger(), required=False)
    assert RowCheck([made.plain_kind()] * 2)([(1, True), (2, False)])
    assert made.sound([1, 2, None])
    assert not made.sound([True, False])
    assert made.column([True, False]) == [1, 0]


def test_fields_that_are_not_looked_at_may_be_anything() -> None:
    check = RowCheck([None, int])
    assert check.places == {1}
    assert check([(object(), 1), ({"a": 1}, 2)])
    assert not check([(object(), 1), (None, "2")])
