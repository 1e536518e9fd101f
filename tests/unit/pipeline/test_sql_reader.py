"""SQLReader over SQLite: every row once, whatever its key is; and what cannot be read exactly is refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from resilient_exporters.pipeline import ConfigurationError, Pipeline, PipelineError
from resilient_exporters.pipeline.readers import SQLReader
from tests.readings import Keeping, run_with_stumbles


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database with readings by device and number."""
    url = f"sqlite:///{tmp_path / 'source.db'}"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE readings (device TEXT, n INT, v REAL, at DATETIME, PRIMARY KEY (device, n))"
        )
        connection.exec_driver_sql("CREATE TABLE bag (n INT, v TEXT)")
        for device in ("a", "b", "é"):
            for n in range(100):
                connection.exec_driver_sql(
                    "INSERT INTO readings VALUES (?, ?, ?, '2026-01-02 03:04:05.000006')", (device, n, n / 8)
                )
    engine.dispose()
    return url


def change(url: str, *statements: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def read(**options: Any) -> list[dict[str, Any]]:
    kept: list[Any] = []
    Pipeline(SQLReader(**options), writer=Keeping(kept)).run()
    return kept


@pytest.mark.parametrize("threaded", [False, True])
def test_a_key_of_several_columns_is_gone_through_once(url: str, threaded: bool) -> None:
    kept, runs = run_with_stumbles(
        lambda: SQLReader(url=url, table="readings", batch_size=7), [1, 7, 8, 150, 299], threaded=threaded
    )
    assert runs == 6
    assert [(one["device"], one["n"]) for one in kept] == [(device, n) for device in "abé" for n in range(100)]
    assert str(kept[0]["at"]) == "2026-01-02 03:04:05.000006"


def test_a_query_and_a_condition_are_narrowed_to(url: str) -> None:
    narrow = {"parameters": {"least": 95}, "batch_size": 2}
    one = read(url=url, table="readings", columns=["n"], where="n >= :least OR n < 1", **narrow)
    other = read(
        url=url,
        query="SELECT device, n * 2 AS twice FROM readings WHERE n >= :least;",
        key=["device", "twice"],
        **narrow,
    )
    assert [row["n"] for row in one] == [0, 95, 96, 97, 98, 99] * 3
    assert one[0].keys() == {"n"}
    assert [row["twice"] for row in other] == [190, 192, 194, 196, 198] * 3


@pytest.mark.parametrize(
    ("rows", "text"),
    [("(1, 'x'), (1, 'y')", r"several rows with \[1\]"), ("(1, 'x'), (NULL, 'y')", "rows with NULL in n")],
)
def test_a_key_that_is_none_is_refused_before_anything_is_read(url: str, rows: str, text: str) -> None:
    change(url, f"INSERT INTO bag VALUES {rows}")
    with pytest.raises(PipelineError, match=text):
        read(url=url, table="bag", key=["n"])


@pytest.mark.parametrize("second", ["2", "NULL"])
def test_a_key_that_ceases_to_be_one_is_noticed(url: str, second: str) -> None:
    # Given a reader that has begun with a key no constraint vouches for
    change(url, "INSERT INTO bag VALUES (1, 'x'), (2, 'y'), (3, 'z')")
    reader = SQLReader(url=url, table="bag", key=["n"], batch_size=1)
    assert [row["v"] for row in reader.get_next_batch()] == ["x"]

    # When another row with a key of one not read yet, or without a key, appears
    change(url, f"INSERT INTO bag VALUES ({second}, 'again')")

    # Then the end is not reached
    with pytest.raises(PipelineError, match="give a key"):
        list(itertools.takewhile(lambda _: not reader.is_finished(), map(list, iter(reader.get_next_batch, None))))


def test_mistakes_are_told(url: str) -> None:
    for options, text in (
        ({}, "give one of the two"),
        ({"table": "bag", "query": "SELECT 1"}, "give one of the two"),
        ({"query": "SELECT 1 AS n"}, "query needs key"),
        ({"query": "SELECT 1 AS n", "key": ["n"], "where": "n"}, "only with table"),
        ({"table": "bag"}, "has no primary key"),
        ({"table": "bag", "key": ["x"]}, "has no column x; there are n, v"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            read(url=url, **options)
    with pytest.raises(PipelineError, match="NoSuchTableError: nowhere"):
        read(url=url, table="nowhere")
    with pytest.raises(PipelineError, match="there is no file"):
        read(url=f"{url}.not", table="bag")
    assert not Path(f"{url}.not".removeprefix("sqlite:///")).exists()


def test_a_password_is_shown_nowhere(url: str) -> None:
    reader = SQLReader(url="postgresql://me:hidden@host/db", password="pass phrase", table="t")
    for shown in (repr(reader), str(reader.shown_options())):
        assert "hidden" not in shown
        assert "pass phrase" not in shown
