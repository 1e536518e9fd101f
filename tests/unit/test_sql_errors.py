"""What errors of databases mean for the records of a batch."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.errors import HoldError, RetryableError
from resilient_exporters.exporters.sql import SQLExporter
from resilient_exporters.exporters.sql_errors import judge
from tests.unit.sql_bench import Bench, batch, reasons


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "target.db")
    yield made
    made.close()


class TestErrors:
    def test_bad_rows_are_found_and_the_others_written(self, bench: Bench) -> None:
        bench.other.execute("CREATE TABLE t (_id TEXT PRIMARY KEY, a INTEGER NOT NULL CHECK (a <> 13), b TEXT)")
        exporter = bench.exporter()
        datas: list[dict[str, Any]] = [{"a": n, "b": "x"} for n in range(200)]
        datas[40]["a"] = None
        datas[133]["a"] = 13
        found = reasons(exporter.export(batch(*datas)))
        assert sorted(found) == [13, 40, 133]
        assert "NOT NULL" in found[40]
        assert "CHECK" in found[133]
        assert len(bench.rows()) == 197
        # And the next batch is not spoiled by it
        assert exporter.export(batch({"a": 1, "b": "y"}, start=200)) is None

    def test_a_reason_never_quotes_the_data(self, bench: Bench) -> None:
        bench.other.execute("CREATE TABLE t (_id TEXT PRIMARY KEY, a TEXT CHECK (length(a) < 5))")
        found = reasons(bench.exporter().export(batch({"a": "secret words"})))
        assert "secret" not in found[0]

    def test_locked_by_another_waits_and_leaves_nothing_half_done(self, bench: Bench) -> None:
        exporter = bench.exporter()
        exporter.export(batch({"a": 1}))
        bench.other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RetryableError, match="locked"):
            exporter.export(batch({"a": 2}, start=1))
        bench.other.execute("ROLLBACK")
        exporter.disconnect()
        exporter.connect()
        assert exporter.export(batch({"a": 2}, start=1, redelivered=True)) is None
        assert [r["a"] for r in bench.rows()] == [1, 2]

    def test_a_failure_leaves_no_lock_behind(self, bench: Bench) -> None:
        bench.other.execute("CREATE TABLE t (_id TEXT PRIMARY KEY, a INTEGER, FOREIGN KEY (a) REFERENCES none (x))")
        exporter = bench.exporter()
        exporter.export(batch({"a": 1}))
        with pytest.raises(RetryableError, match="timeout"):
            exporter.export(batch({"a": 2}, start=1, deadline=0.0))
        bench.other.execute("BEGIN IMMEDIATE")
        bench.other.execute("ROLLBACK")
        assert [r["a"] for r in bench.rows()] == [1]

    def test_a_read_only_file_holds(self, bench: Bench) -> None:
        exporter = bench.exporter()
        exporter.export(batch({"a": 1}))
        exporter.disconnect()
        uri = f"sqlite:///file:{bench.path}?mode=ro&uri=true"
        reader = SQLExporter(uri, "t")
        with pytest.raises(HoldError, match="writable"):
            reader.export(batch({"a": 2}, start=1))
        reader.disconnect()

    def test_a_file_that_is_no_database_holds(self, tmp_path: Path) -> None:
        path = tmp_path / "x.db"
        path.write_bytes(b"this is no database, surely not" * 100)
        with pytest.raises(HoldError, match="no sound SQLite database"):
            SQLExporter(f"sqlite:///{path}", "t").connect()

    def test_a_directory_that_cannot_be_made_is_an_outage(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(RetryableError):
            SQLExporter(f"sqlite:///{tmp_path}/file/x.db", "t").connect()

    def test_missing_directories_are_made(self, tmp_path: Path) -> None:
        exporter = SQLExporter(f"sqlite:///{tmp_path}/a/b/x.db", "t")
        exporter.connect()
        assert exporter.export(batch({"a": 1})) is None
        exporter.disconnect()
        assert (tmp_path / "a/b/x.db").exists()

    def test_a_file_deleted_under_the_connection_is_noticed(self, bench: Bench) -> None:
        exporter = bench.exporter()
        exporter.export(batch({"a": 1}))
        for name in bench.path.parent.iterdir():
            name.unlink()
        assert exporter.export(batch({"a": 2}, start=1)) is None
        with sqlite3.connect(bench.path) as seen:
            assert seen.execute("SELECT a FROM t").fetchall() == [(2,)]
        seen.close()

    def test_a_full_disk_waits(self, bench: Bench) -> None:
        exporter = bench.exporter()
        exporter.export(batch({"a": "x"}))
        raw: Any = exporter._database._idle[-1].connection.dbapi_connection
        raw.execute("PRAGMA max_page_count=4")
        with pytest.raises(RetryableError, match="full"):
            exporter.export(batch({"a": "x" * 100_000}, start=1))
        assert len(bench.rows()) == 1


class TestJudge:
    """Errors of servers, as their drivers show them."""

    @staticmethod
    def error(*args: Any, **attributes: Any) -> Exception:
        class OperationalError(Exception):
            pass

        made = OperationalError(*args)
        for name, value in attributes.items():
            setattr(made, name, value)
        return made

    @pytest.mark.parametrize(
        ("sqlstate", "verdict"),
        [
            ("40P01", "retry"),
            ("40001", "retry"),
            ("08006", "retry"),
            ("57P01", "retry"),
            ("53100", "retry"),
            ("55P03", "retry"),
            ("28P01", "hold"),
            ("3D000", "hold"),
            ("42501", "hold"),
            ("25006", "hold"),
            ("42P10", "hold"),
            ("42P01", "schema"),
            ("42703", "schema"),
            ("23505", "data"),
            ("22P02", "data"),
            ("22021", "data"),
            ("42804", "data"),
        ],
    )
    def test_postgresql(self, sqlstate: str, verdict: str) -> None:
        assert judge(self.error("…", sqlstate=sqlstate), "postgresql") == verdict
        assert judge(self.error("…", pgcode=sqlstate), "postgresql") == verdict

    @pytest.mark.parametrize(
        ("number", "verdict"),
        [
            (2006, "retry"),
            (2013, "retry"),
            (1205, "retry"),
            (1213, "retry"),
            (1045, "hold"),
            (1049, "hold"),
            (1290, "hold"),
            (1146, "schema"),
            (1054, "schema"),
            (1062, "data"),
            (1406, "data"),
            (1264, "data"),
            (1153, "split"),
            (1114, "retry"),
        ],
    )
    def test_mysql(self, number: int, verdict: str) -> None:
        assert judge(self.error(number, "…"), "mysql") == verdict

    @pytest.mark.parametrize(
        ("number", "verdict"),
        [
            (1205, "retry"),
            (40613, "retry"),
            (18456, "hold"),
            (4060, "hold"),
            (229, "hold"),
            (208, "schema"),
            (2627, "data"),
            (8152, "data"),
            (547, "data"),
        ],
    )
    def test_sql_server(self, number: int, verdict: str) -> None:
        assert judge(self.error(number, b"..."), "mssql") == verdict
        assert judge(self.error("42000", f"[42000] [Microsoft] text. ({number}) (SQLExecDirectW)"), "mssql") == verdict

    def test_a_refused_login_without_a_code(self) -> None:
        text = 'connection failed: FATAL:  password authentication failed for user "x"'
        assert judge(self.error(text), "postgresql") == "hold"

    def test_an_outage_without_a_code(self) -> None:
        assert judge(self.error("connection refused"), "postgresql") == "retry"
