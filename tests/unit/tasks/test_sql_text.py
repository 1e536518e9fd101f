from __future__ import annotations

import datetime as dt
import warnings

import pytest

from resilient_exporters.tasks.errors import FormattedSQLWarning, TaskError
from resilient_exporters.tasks.sql_text import clause, statement

DAY = "2026-11-21"


def ready(text: str, params: dict | None = None, **keywords: object):
    return statement(text, keywords, params or {}, "Read.query")


@pytest.mark.parametrize("value", [DAY, f"{DAY} 10:00", dt.date(2026, 11, 21), dt.datetime(2026, 11, 21, 10)])
def test_a_date_outside_quotes_is_bound(value: object) -> None:
    made = ready("select * from t where d > {day}", day=value)

    assert made.text == "select * from t where d > :day"
    assert made.values == {"day": value}
    assert made.formatted == ()


@pytest.mark.parametrize("text", ["d > '{day}'", 'd > "{day}"', "/* {day} */", "$$ {day} $$", "-- it's {day}"])
def test_a_date_inside_quotes_is_formatted(text: str) -> None:
    made = ready(text, day=DAY)

    assert made.text == text.replace("{day}", DAY)
    assert made.values == {}


@pytest.mark.parametrize(
    ("text", "value", "warned"),
    [
        ("select * from {x}", "table_1", False),
        ("select * from {x}", "schema.table_1", False),
        ("limit {x}", 10, False),
        ("limit '{x}'", 10, False),
        ("where n = '{x}'", "Bob", True),
        ("where n = {x}", "1 or 1=1", True),
        ("where n = {x}", "'quoted'", True),
        ("where n = {x}", None, True),
    ],
)
def test_a_keyword_that_becomes_text_is_warned_of_unless_it_is_a_number_or_a_name(text, value, warned) -> None:
    made = ready(text, x=value)

    assert made.text == text.format(x=value)
    if warned:
        with pytest.warns(FormattedSQLWarning, match=r"Read\.query: \{x\} is formatted into the SQL .*params = \{'x'"):
            made.warn("Read.query")
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made.warn("Read.query")


def test_only_the_names_of_params_are_bound() -> None:
    made = ready("select '12:30', ':a', x::int, :a, b[1:2], '{\"k\":1}' -- :a", params={"a": 1})
    compiled = clause(made).compile(compile_kwargs={"literal_binds": True})

    assert str(compiled) == "select '12:30', ':a', x::int, 1, b[1:2], '{\"k\":1}' -- :a"


def test_a_value_without_a_place_is_refused() -> None:
    with pytest.raises(TaskError, match=r"Read\.query: params has a, but the text has no :a outside quotes"):
        ready("select ':a'", params={"a": 1})


def test_a_keyword_of_the_name_of_a_value_is_bound_beside_it() -> None:
    made = ready("select :day, {day}", params={"day": 1}, day=DAY)

    assert made.text == "select :day, :day_"
    assert made.values == {"day": 1, "day_": DAY}
