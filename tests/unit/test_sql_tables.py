"""Tables and columns that are made, widened, missing or changed by someone else; other dialects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from resilient_exporters.errors import HoldError
from resilient_exporters.exporters.sql import SQLExporter
from tests.unit.sql_bench import RUN, Bench, batch, reasons


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "target.db")
    yield made
    made.close()


class TestNewColumns:
    def start(self, bench: Bench, **options: Any) -> SQLExporter:
        bench.exporter().export(batch({"a": 1}))
        return bench.exporter(**options)

    def test_add(self, bench: Bench) -> None:
        exporter = self.start(bench)
        assert exporter.export(batch({"a": 2, "b": "x"}, {"a": 3, "c": {"d": 1}}, {"a": 4, "e": None}, start=1)) is None
        assert bench.rows()[1:] == [
            {"_id": f"{RUN}-1", "a": 2, "b": "x", "c": None},
            {"_id": f"{RUN}-2", "a": 3, "b": None, "c": '{"d":1}'},
            {"_id": f"{RUN}-3", "a": 4, "b": None, "c": None},
        ]

    def test_add_is_bounded(self, bench: Bench) -> None:
        exporter = self.start(bench, max_columns=4)
        found = reasons(exporter.export(batch(*({f"k{n}": n} for n in range(10)), {"a": 5}, start=1)))
        assert len(found) == 8
        assert "max_columns" in found[9]
        assert len(bench.rows("PRAGMA table_info(t)")) == 4

    def test_ignore(self, bench: Bench) -> None:
        exporter = self.start(bench, new_columns="ignore")
        assert exporter.export(batch({"a": 2, "b": "x"}, start=1)) is None
        assert bench.rows()[1] == {"_id": f"{RUN}-1", "a": 2}

    def test_json(self, bench: Bench) -> None:
        exporter = self.start(bench, new_columns="json")
        assert exporter.export(batch({"a": 2, "b": "x", "c": None}, {"a": 3}, {"b": [1]}, start=1)) is None
        assert [(r["a"], r["extra"]) for r in bench.rows()[1:]] == [
            (2, '{"b":"x","c":null}'),
            (3, None),
            (None, '{"b":[1]}'),
        ]

    def test_reject_refuses_those_records_only(self, bench: Bench) -> None:
        exporter = self.start(bench, new_columns="reject")
        found = reasons(exporter.export(batch({"a": 2, "b": "x"}, {"a": 3, "b": None}, {"a": 4}, start=1)))
        assert list(found) == [0]
        assert "'b'" in found[0]
        assert [r["a"] for r in bench.rows()] == [1, 3, 4]

    def test_names_that_differ_by_case_are_one_column(self, bench: Bench) -> None:
        exporter = self.start(bench)
        assert exporter.export(batch({"A": 2}, start=1)) is None
        found = reasons(exporter.export(batch({"a": 3, "A": 4}, {"b": 1, "B": 2}, start=2)))
        assert sorted(found) == [0, 1]
        assert [r["a"] for r in bench.rows()] == [1, 2]

    def test_types_may_be_given(self, bench: Bench) -> None:
        exporter = bench.exporter(columns={"level": float, "code": sa.String(12)})
        exporter.export(batch({"level": 20, "code": "x"}))
        types = {row["name"]: row["type"] for row in bench.rows("PRAGMA table_info(t)")}
        assert types == {"_id": "VARCHAR(64)", "level": "DOUBLE", "code": "VARCHAR(12)"}
        assert bench.rows()[0]["level"] == 20.0

    def test_a_table_that_must_not_be_made_holds(self, bench: Bench) -> None:
        exporter = bench.exporter(create_table=False)
        with pytest.raises(HoldError, match=r"'t'.*create_table=True"):
            exporter.export(batch({"a": 1}))
        # And once someone makes it, all goes on
        bench.other.execute("CREATE TABLE t (_id TEXT UNIQUE, a)")
        assert exporter.export(batch({"a": 1})) is None

    def test_a_column_that_someone_drops_or_adds_meanwhile(self, bench: Bench) -> None:
        exporter = self.start(bench)
        exporter.export(batch({"a": 2, "b": 1}, start=1))
        bench.other.execute("ALTER TABLE t DROP COLUMN b")
        assert exporter.export(batch({"a": 3, "b": 7}, start=2)) is None
        bench.other.execute("ALTER TABLE t ADD c")
        assert exporter.export(batch({"a": 4, "c": 9}, start=3)) is None
        assert [(r["a"], r["b"], r["c"]) for r in bench.rows()[2:]] == [(3, 7, None), (4, None, 9)]

    def test_a_table_that_someone_drops_is_made_again(self, bench: Bench) -> None:
        exporter = self.start(bench)
        exporter.export(batch({"a": 2}, start=1))
        bench.other.execute("DROP TABLE t")
        assert exporter.export(batch({"a": 3}, start=2)) is None
        assert [r["a"] for r in bench.rows()] == [3]


class TestOtherDialects:
    """Statements for databases that are not at hand here."""

    @staticmethod
    def form(dialect: Any, upsert: tuple[str, ...] = (), unique: bool = True) -> Any:
        from resilient_exporters.exporters.sql_table import KnownTable, TableOptions

        table = sa.Table(
            "my table",
            sa.MetaData(),
            sa.Column("_id", sa.String(64), primary_key=unique),
            sa.Column("a%b", sa.BigInteger),
            sa.Column("c", sa.Text),
        )
        return KnownTable(table, dialect, TableOptions()).form(("a%b", "c"), upsert, pack=False)

    def test_postgresql(self) -> None:
        from sqlalchemy.dialects.postgresql import psycopg

        form = self.form(psycopg.dialect())
        assert form.insert.startswith('INSERT INTO "my table" (_id, "a%%b", c) VALUES (')
        assert form.insert.endswith("ON CONFLICT (_id) DO NOTHING")
        assert form.names == ("c0", "c1", "c2")
        assert form.known is None
        upsert = self.form(psycopg.dialect(), ("c",))
        assert "ON CONFLICT (c) DO UPDATE SET" in upsert.insert

    def test_mysql(self) -> None:
        from sqlalchemy.dialects.mysql import pymysql

        form = self.form(pymysql.dialect())
        assert form.insert == "INSERT INTO `my table` (_id, `a%%b`, c) VALUES (%s, %s, %s)"
        assert form.known is not None
        upsert = self.form(pymysql.dialect(), ("c",))
        assert "ON DUPLICATE KEY UPDATE" in upsert.insert
        assert "`a%%b` = values(`a%%b`)" in upsert.insert

    def test_others_update_first(self) -> None:
        from sqlalchemy.dialects.mssql import pymssql

        form = self.form(pymssql.dialect(), ("c",))
        assert form.update is not None
        assert form.insert.startswith("INSERT INTO [my table]")

    def test_update_then_insert_on_a_real_database(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        # Given SQLite under the name of a database without an upsert
        from resilient_exporters.exporters.sql_writer import _update_or_insert

        bench.other.execute("CREATE TABLE t (d TEXT, v INTEGER)")
        exporter = bench.exporter(id_column=None)
        known = exporter._schema.table(exporter._database.engine, "t")
        assert known is not None
        monkeypatch.setattr(known._dialect, "name", "generic")
        form = known.form(("d", "v"), ("d",), pack=False)
        assert form.update is not None
        with exporter._database.engine.begin() as connection:
            _update_or_insert(connection, form, form.update, [("x", 1), ("y", 1), ("x", 2)])
        assert bench.rows() == [{"d": "x", "v": 2}, {"d": "y", "v": 1}]
