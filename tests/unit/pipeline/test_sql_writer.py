"""Rows in a database: each record one row, over kills and resumes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.pipeline import ConfigurationError, Pipeline
from resilient_exporters.pipeline.readers import IterableReader
from resilient_exporters.pipeline.writers import OdoWriter, SQLWriter
from resilient_exporters.pipeline.writers.outbox import Parcel

SCHEMA = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "place": {"type": "object", "properties": {"lat": {"type": ["number", "null"]}, "name": {"type": "string"}}},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
}


def rows(path: Path, what: str = "*") -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT {what} FROM t ORDER BY n").fetchall()


def test_rows_with_the_fields_of_a_schema(tmp_path: Path) -> None:
    records = [
        {"n": 1, "place": {"lat": 1.5, "name": "x"}, "tags": ["a"], "other": 3},
        {"n": 2, "place": None},
        {"n": 3},
    ]
    Pipeline(records, writer=OdoWriter(schema=SCHEMA, odo_uri=f"sqlite:///{tmp_path}/x.db::t")).run()
    assert rows(tmp_path / "x.db", '"n", "place.lat", "place.name", "tags"') == [
        (1, 1.5, "x", '["a"]'), (2, None, None, None), (3, None, None, None),
    ]  # fmt: skip


def test_the_table_of_the_user_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (n INTEGER, text TEXT)")
    Pipeline([{"n": 1, "text": "a"}], writer=SQLWriter(url=f"sqlite:///{path}", table="t")).run()
    assert rows(path) == [(1, "a")]


def test_a_kill_after_the_transaction_makes_no_second_row(tmp_path: Path) -> None:
    # Given a run that is killed when the database has committed, and nobody has noted it
    path = tmp_path / "x.db"

    def pipeline(resume: str | None = None) -> tuple[Pipeline, SQLWriter]:
        writer = SQLWriter(url=f"sqlite:///{path}", table="t", items_per_buffer_write=5)
        reader = IterableReader(({"n": n} for n in range(30)), batch_size=7)
        return Pipeline(reader, writer=writer, resume=resume), writer

    first, writer = pipeline()
    deliver = writer.deliver

    def then_die(parcel: Parcel, entries: list[bytes]) -> None:
        deliver(parcel, entries)
        if parcel.number == 2:
            raise InterruptedError("killed")

    writer.deliver = then_die  # type: ignore[method-assign]  # the moment of the kill
    with pytest.raises(InterruptedError):
        first.run()
    assert len(rows(path)) == 15

    # When it is resumed, then there is one row for each record
    pipeline(first.persistence.job)[0].run()
    assert [n for (n,) in rows(path, "n")] == list(range(30))


def test_a_row_that_is_refused_is_a_bad_record(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (n INTEGER CHECK (n <> 4))")
    writer = SQLWriter(url=f"sqlite:///{path}", table="t")
    report = Pipeline(({"n": n} for n in range(10)), writer=writer, on_bad_record="skip").run()
    assert report.bad == {"writer": 1}
    assert report.written == 9
    assert [n for (n,) in rows(path, "n")] == [n for n in range(10) if n != 4]


def test_upsert(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    records = [{"n": n % 3, "value": n} for n in range(9)]
    Pipeline(records, writer=SQLWriter(url=f"sqlite:///{path}", table="t", upsert_on=["n"])).run()
    assert rows(path, "n, value") == [(0, 6), (1, 7), (2, 8)]


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (OdoWriter, {"schema": SCHEMA, "odo_uri": "sqlite:///x.db"}, "odo_uri: give a database and a table"),
        (OdoWriter, {"schema": {}, "odo_uri": "sqlite:///x.db::t"}, "it names no field"),
        (OdoWriter, {"odo_uri": "sqlite:///x.db::t"}, "Option schema is missing"),
        (SQLWriter, {"url": "no url", "table": "t"}, "not a SQLAlchemy URL"),
        (SQLWriter, {"url": "sqlite:///x.db", "table": ""}, "table"),
    ],
)
def test_options_that_cannot_be(cls: type[SQLWriter], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        cls(**options)
    assert message in str(error.value)


def test_a_database_that_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    writer = SQLWriter(url=f"sqlite:///{tmp_path}/file/x.db", table="t")
    with pytest.raises(Exception, match=r"file/x\.db"):
        Pipeline([{"n": 1}], writer=writer, disable_retries=True).run()
