"""SQLExporter on SQLite: rows, resends, upserts, through the engine, construction."""

from __future__ import annotations

import datetime as dt
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from resilient_exporters.delivery.outcome import Batch, Record
from resilient_exporters.errors import HoldError, InvalidConfigError, MissingModuleError
from resilient_exporters.exporter import Exporter
from resilient_exporters.exporters.sql import SQLExporter
from resilient_exporters.exporters.sql_ledger import LEDGER_TABLE
from tests.unit.sql_bench import RUN, Bench, batch, reasons


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "target.db")
    yield made
    made.close()


class TestRows:
    def test_a_table_is_made_from_the_first_records(self, bench: Bench) -> None:
        # Given a database without tables, When mappings arrive
        exporter = bench.exporter()
        assert exporter.export(batch({"a": 1, "b": "x"}, {"a": 2, "b": None})) is None
        # Then they are rows, keyed by the record id
        assert bench.rows() == [{"_id": f"{RUN}-0", "a": 1, "b": "x"}, {"_id": f"{RUN}-1", "a": 2, "b": None}]

    def test_records_for_several_tables_and_shapes_share_a_transaction(self, bench: Bench) -> None:
        exporter = bench.exporter()
        records = [
            Record(run=RUN, offset=0, data={"a": 1}, options={}),
            Record(run=RUN, offset=1, data={"a": 2}, options={"table": "u"}),
            Record(run=RUN, offset=2, data={"b": 3, "a": 3}, options={}),
        ]
        assert exporter.export(Batch(records)) is None
        assert [(r["a"], r["b"]) for r in bench.rows()] == [(1, None), (3, 3)]
        assert [r["a"] for r in bench.rows("SELECT * FROM u")] == [2]

    def test_more_rows_than_one_statement_takes(self, bench: Bench) -> None:
        exporter = bench.exporter()
        datas = [{"n": n, "text": f"row {n}"} for n in range(173)]
        assert exporter.export(batch(*datas)) is None
        assert [(r["n"], r["text"]) for r in bench.rows()] == [(n, f"row {n}") for n in range(173)]

    def test_a_tuple_is_all_columns_in_table_order(self, bench: Bench) -> None:
        bench.other.execute("CREATE TABLE t (a INTEGER, b TEXT)")
        exporter = bench.exporter(id_column=None)
        assert exporter.export(batch((1, "x"), (2, "y"))) is None
        assert bench.rows() == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]

    def test_a_tuple_may_leave_out_the_record_id(self, bench: Bench) -> None:
        exporter = bench.exporter()
        exporter.export(batch({"a": 1, "b": "x"}))
        assert exporter.export(batch((2, "y"), start=1)) is None
        assert bench.rows()[1] == {"_id": f"{RUN}-1", "a": 2, "b": "y"}

    def test_a_tuple_of_another_length_is_refused(self, bench: Bench) -> None:
        exporter = bench.exporter()
        exporter.export(batch({"a": 1, "b": "x"}))
        assert "a tuple of 1" in reasons(exporter.export(batch((2,), {"a": 3, "b": "z"}, start=1)))[0]
        assert [r["a"] for r in bench.rows()] == [1, 3]

    @pytest.mark.parametrize("value", ["a line", 7, b"\x00\x01", 2.5, True])
    def test_a_record_that_is_no_mapping_goes_to_the_value_column(self, bench: Bench, value: Any) -> None:
        exporter = bench.exporter()
        assert exporter.export(batch(value)) is None
        assert bench.rows()[0]["value"] == value

    def test_an_empty_mapping_is_a_row_with_an_id(self, bench: Bench) -> None:
        exporter = bench.exporter()
        assert exporter.export(batch({}, {"a": 1})) is None
        assert bench.rows() == [{"_id": f"{RUN}-0", "a": None}, {"_id": f"{RUN}-1", "a": 1}]

    def test_without_a_table_a_record_is_refused_and_the_others_are_not(self, bench: Bench) -> None:
        exporter = bench.exporter(table=None)
        records = [
            Record(run=RUN, offset=0, data={"a": 1}, options={}),
            Record(run=RUN, offset=1, data={"a": 2}, options={"table": "t"}),
        ]
        assert "table=" in reasons(exporter.export(Batch(records)))[0]
        assert [r["a"] for r in bench.rows()] == [2]

    def test_the_callers_mapping_is_left_alone(self, bench: Bench) -> None:
        data = {"flag": True, "nested": {"a": [1]}, "when": dt.datetime(2024, 1, 2)}
        kept = {"flag": True, "nested": {"a": [1]}, "when": dt.datetime(2024, 1, 2)}
        bench.exporter().export(batch(data))
        assert data == kept
        assert data["flag"] is True

    def test_keys_that_are_no_text_become_their_text(self, bench: Bench) -> None:
        assert bench.exporter().export(batch({1: "x", None: "y"})) is None
        assert bench.rows() == [{"_id": f"{RUN}-0", "1": "x", "None": "y"}]


class TestRedelivery:
    def test_a_batch_sent_again_makes_no_second_row(self, bench: Bench) -> None:
        # Given a batch that was committed, and whose answer was lost
        exporter = bench.exporter()
        exporter.export(batch({"a": 1}, {"a": 2}))
        # When it comes again in another cut, from a restarted program
        again = bench.exporter()
        assert again.export(batch({"a": 1}, {"a": 2}, {"a": 3}, redelivered=True)) is None
        assert [r["a"] for r in bench.rows()] == [1, 2, 3]

    def test_a_large_batch_sent_again(self, bench: Bench) -> None:
        exporter = bench.exporter()
        datas = [{"a": n} for n in range(120)]
        exporter.export(batch(*datas[:70]))
        assert exporter.export(batch(*datas, redelivered=True)) is None
        assert [r["a"] for r in bench.rows()] == list(range(120))

    def test_a_kill_between_write_and_answer(self, bench: Bench) -> None:
        # Given a process that dies after the commit, before it can tell anyone
        exporter = bench.exporter()
        exporter.export(batch({"a": 0}))
        exporter.disconnect()
        pid = os.fork()
        if pid == 0:
            SQLExporter(f"sqlite:///{bench.path}", "t").export(batch({"a": 1}, {"a": 2}, start=1))
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
        # When the next process sends them again
        assert bench.exporter().export(batch({"a": 1}, {"a": 2}, start=1, redelivered=True)) is None
        assert [r["a"] for r in bench.rows()] == [0, 1, 2]

    def test_only_our_own_id_is_passed_over(self, bench: Bench) -> None:
        # Given a table with a constraint of its own besides the id
        bench.other.execute("CREATE TABLE t (_id TEXT UNIQUE, a INTEGER UNIQUE)")
        exporter = bench.exporter()
        exporter.export(batch({"a": 1}))
        # When another record breaks it, Then that is refused, not forgotten
        found = reasons(exporter.export(batch({"a": 1}, {"a": 2}, start=5)))
        assert "UNIQUE constraint failed: t.a" in found[0]
        assert [r["a"] for r in bench.rows()] == [1, 2]

    def test_an_id_column_that_is_not_unique_is_looked_up(self, bench: Bench) -> None:
        bench.other.execute("CREATE TABLE t (_id TEXT, a INTEGER)")
        exporter = bench.exporter()
        exporter.export(batch({"a": 1}, {"a": 2}))
        assert exporter.export(batch({"a": 1}, {"a": 2}, {"a": 3}, redelivered=True)) is None
        assert [r["a"] for r in bench.rows()] == [1, 2, 3]

    def test_a_record_may_bring_its_own_id(self, bench: Bench) -> None:
        exporter = bench.exporter()
        exporter.export(batch({"_id": "mine", "a": 1}))
        exporter.export(batch({"_id": "mine", "a": 1}, start=1))
        assert [(r["_id"], r["a"]) for r in bench.rows()] == [("mine", 1)]

    def test_without_an_id_column_it_says_so_once(self, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
        bench.other.execute("CREATE TABLE t (a INTEGER)")
        exporter = bench.exporter()
        with caplog.at_level(logging.WARNING):
            exporter.export(batch({"a": 1}))
            exporter.export(batch({"a": 1}, redelivered=True))
        assert [r["a"] for r in bench.rows()] == [1, 1]
        assert len(caplog.records) == 1
        assert "ledger=True" in caplog.text

    def test_the_next_id_of_another_case(self, bench: Bench) -> None:
        bench.other.execute("CREATE TABLE t (_ID TEXT PRIMARY KEY, A INTEGER)")
        exporter = bench.exporter()
        exporter.export(batch({"a": 1}))
        exporter.export(batch({"a": 1}, redelivered=True))
        assert bench.rows() == [{"_ID": f"{RUN}-0", "A": 1}]


class TestLedger:
    def test_a_foreign_table_gets_each_record_once(self, bench: Bench) -> None:
        bench.other.execute("CREATE TABLE t (a INTEGER)")
        exporter = bench.exporter(ledger=True)
        exporter.export(batch({"a": 1}, {"a": 2}))
        # When it comes again, known as such or not
        exporter.export(batch({"a": 1}, {"a": 2}, {"a": 3}, redelivered=True))
        exporter.export(batch({"a": 2}, {"a": 3}, {"a": 4}, start=1))
        assert [r["a"] for r in bench.rows()] == [1, 2, 3, 4]

    def test_rows_and_ids_are_there_together_or_not_at_all(self, bench: Bench) -> None:
        bench.other.execute("CREATE TABLE t (a INTEGER CHECK (a < 10))")
        exporter = bench.exporter(ledger=True)
        found = reasons(exporter.export(batch({"a": 1}, {"a": 99}, {"a": 2})))
        assert list(found) == [1]
        assert [r["a"] for r in bench.rows()] == [1, 2]
        assert [r["id"] for r in bench.rows(f"SELECT id FROM {LEDGER_TABLE} ORDER BY id")] == [f"{RUN}-0", f"{RUN}-2"]

    def test_two_tables_do_not_share_ids(self, bench: Bench) -> None:
        bench.exporter(table="t", ledger=True).export(batch({"a": 1}))
        bench.exporter(table="u", ledger=True).export(batch({"a": 1}))
        assert [r["a"] for r in bench.rows("SELECT a FROM u")] == [1]

    def test_it_is_bounded_and_keeps_the_newest(self, bench: Bench) -> None:
        exporter = bench.exporter(ledger=True, ledger_size=1000)
        for start in range(0, 5000, 100):
            exporter.export(batch(*({"a": n} for n in range(100)), start=start))
        kept = bench.rows(f"SELECT count(*) n FROM {LEDGER_TABLE}")[0]["n"]
        assert 1000 <= kept <= 1300
        exporter.export(batch(*({"a": n} for n in range(100)), start=4900, redelivered=True))
        assert bench.rows("SELECT count(*) n FROM t") == [{"n": 5000}]


class TestUpsert:
    def test_the_later_record_wins(self, bench: Bench) -> None:
        exporter = bench.exporter(upsert_on="device")
        exporter.export(batch({"device": "a", "v": 1}, {"device": "b", "v": 1}, {"device": "a", "v": 2}))
        exporter.export(batch({"device": "b", "v": 3}, start=3))
        assert bench.rows("SELECT * FROM t ORDER BY device") == [{"device": "a", "v": 2}, {"device": "b", "v": 3}]

    def test_shapes_in_turn_keep_the_order(self, bench: Bench) -> None:
        exporter = bench.exporter(upsert_on=["d"])
        exporter.export(batch({"d": 1, "v": 1}, {"d": 1, "v": 2, "w": 2}, {"d": 1, "v": 3}))
        assert bench.rows() == [{"d": 1, "v": 3, "w": 2}]

    def test_on_all_columns_changes_nothing(self, bench: Bench) -> None:
        exporter = bench.exporter(upsert_on=("a", "b"))
        assert exporter.export(batch({"a": 1, "b": 2}, {"a": 1, "b": 2})) is None
        assert bench.rows() == [{"a": 1, "b": 2}]

    def test_per_record(self, bench: Bench) -> None:
        bench.other.execute("CREATE TABLE t (_id TEXT PRIMARY KEY, d TEXT UNIQUE, v INTEGER)")
        exporter = bench.exporter()
        exporter.export(batch({"d": "x", "v": 1}))
        assert exporter.export(batch({"d": "x", "v": 2}, start=1, upsert_on="d")) is None
        assert [(r["d"], r["v"]) for r in bench.rows()] == [("x", 2)]

    def test_a_record_without_the_key_is_refused(self, bench: Bench) -> None:
        exporter = bench.exporter(upsert_on="d")
        found = reasons(exporter.export(batch({"d": 1, "v": 1}, {"v": 2}, {"d": None, "v": 3})))
        assert sorted(found) == [1, 2]
        assert all("upsert_on" in each for each in found.values())

    def test_without_a_unique_constraint_it_holds_and_says_which(self, bench: Bench) -> None:
        bench.other.execute("CREATE TABLE t (d TEXT, v INTEGER)")
        exporter = bench.exporter(upsert_on="d")
        with pytest.raises(HoldError, match="UNIQUE"):
            exporter.export(batch({"d": "x", "v": 1}))

    def test_the_order_matters_so_one_batch_is_in_flight(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given: dict[str, Any] = {}
        monkeypatch.setattr(Exporter, "__init__", lambda self, **options: given.update(options))
        SQLExporter("sqlite:///x.db", "t", upsert_on="a")
        assert given == {"concurrency": 1}
        assert SQLExporter.concurrency == "auto"


class TestThroughTheEngine:
    def test_send_flush_restart(self, bench: Bench, tmp_path: Path) -> None:
        # Given an exporter with its queue
        with SQLExporter(f"sqlite:///{bench.path}", "t", directory=tmp_path / "queue") as exporter:
            # When records are sent, one of them bad
            receipts = [exporter.send({"a": n}) for n in range(700)]
            bad = exporter.send({"a": 2**64})
            report = exporter.flush(60)
            # Then all are rows, and the bad one is a dead letter with the reason
            assert (report.delivered, report.dead) == (700, 1)
            assert all(each.result(60).successful for each in receipts)
            assert not bad.result(60).successful
            assert "beyond 64 bits" in next(iter(exporter.dead_letters())).reason
        assert [r["a"] for r in bench.rows()] == list(range(700))

    def test_no_private_name_of_the_base_is_taken(self) -> None:
        class Bare(Exporter):
            kind = "bare"

        meant = {"kind", "concurrency", "record_options", "address", "connect", "disconnect", "export"}
        methods = {name for name in vars(SQLExporter) if not name.startswith("__")}
        assert methods & (set(vars(Exporter)) | set(vars(Bare()))) <= meant
        before = set(vars(Bare()))
        own = set(vars(SQLExporter("sqlite:///x.db", "t"))) - before
        assert own == {"_table", "_upsert", "_database", "_whole", "_schema", "_ledger", "_writer", "_maker"}

    def test_from_several_threads(self, bench: Bench) -> None:
        exporter = bench.exporter(sqlite_busy_timeout=20)
        exporter.export(batch({"a": -1}, start=10_000))
        with ThreadPoolExecutor(4) as pool:
            starts = range(0, 2000, 100)
            list(
                pool.map(
                    lambda start: exporter.export(batch(*({"a": start + n} for n in range(100)), start=start)), starts
                )
            )
        assert sorted(r["a"] for r in bench.rows()) == list(range(-1, 2000))


class TestConstruction:
    def test_nothing_is_opened(self, tmp_path: Path) -> None:
        SQLExporter(f"sqlite:///{tmp_path}/x/y.db", "t")
        assert list(tmp_path.iterdir()) == []

    def test_the_address_has_no_secret(self) -> None:
        exporter = SQLExporter("sqlite:////tmp/x.db?password=secret", "t")
        assert exporter.address() == "sqlite:////tmp/x.db#t"

    def test_a_relative_path_is_fixed_at_construction(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        exporter = SQLExporter("sqlite:///x.db", "t")
        monkeypatch.chdir("/")
        exporter.connect()
        exporter.export(batch({"a": 1}))
        exporter.disconnect()
        assert (tmp_path / "x.db").exists()

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"new_columns": "drop"}, "new_columns='drop'"),
            ({"nan": "zero"}, "nan='zero'"),
            ({"sqlite_synchronous": "off"}, "sqlite_synchronous='off'"),
            ({"ledger": True, "ledger_size": 5}, "ledger_size=5"),
            ({"max_columns": 0}, "max_columns=0"),
            ({"columns": {"a": "float"}}, "columns['a']='float'"),
        ],
    )
    def test_options_are_checked(self, options: dict[str, Any], text: str) -> None:
        with pytest.raises(InvalidConfigError) as caught:
            SQLExporter("sqlite:///x.db", "t", **options)
        assert text in str(caught.value)

    def test_a_bad_url_is_not_quoted(self) -> None:
        with pytest.raises(InvalidConfigError) as caught:
            SQLExporter("user:secret@host/db", "t")
        assert "secret" not in str(caught.value)

    def test_a_missing_driver_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
        with pytest.raises(MissingModuleError, match=r"resilient-exporters\[postgres\]"):
            SQLExporter("postgresql://u:p@h/d", "t")

    def test_missing_sqlalchemy_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        modules = __import__("sys").modules
        for name in [each for each in modules if each.startswith(("resilient_exporters.exporters.sql_", "sqlalchemy"))]:
            monkeypatch.delitem(modules, name)
        monkeypatch.setitem(modules, "sqlalchemy", None)
        with pytest.raises(MissingModuleError, match=r"resilient-exporters\[sql\]"):
            SQLExporter("sqlite:///x.db", "t")

    def test_an_engine_of_the_callers_is_left_open(self) -> None:
        engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
        exporter = SQLExporter(engine, "t")
        exporter.connect()
        exporter.export(batch({"a": 1}))
        exporter.disconnect()
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT a FROM t").all() == [(1,)]
        engine.dispose()

    @pytest.mark.parametrize(("option", "number"), [("normal", 1), ("full", 2)])
    def test_journal_and_synchronous(self, bench: Bench, option: str, number: int) -> None:
        exporter = bench.exporter(sqlite_synchronous=option)
        with exporter._database.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == number
