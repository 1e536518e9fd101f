from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import gc
import sqlite3
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from resilient_exporters import MissingModuleError
from resilient_exporters.tasks import (
    BigraysConfig,
    FormattedSQLWarning,
    Rows,
    SQLExecute,
    SQLQuery,
    SQLSession,
    SQLTask,
    SQLWrite,
    TasksFailed,
    ToCSV,
    bigrays_run,
    sql_execute,
    sql_query,
    sql_write,
    update_format_kws,
)
from resilient_exporters.tasks import frames as module


@pytest.fixture
def people(database: Path) -> Path:
    """A table."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.executescript(
            "create table people (name text, born date, height real);"
            "insert into people values ('Ada', '1815-12-10', 1.65), ('Zeno', null, null), ('O''Hara', '1920-01-02', 2)"
        )
    return database


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


class TestQuery:
    def test_it_gives_rows_as_mappings(self, people):
        found = sql_query(query="select name, height from people order by name")
        assert found == [
            {"name": "Ada", "height": 1.65}, {"name": "O'Hara", "height": 2.0}, {"name": "Zeno", "height": None},
        ]  # fmt: skip

    def test_or_data_frames(self, people):
        query = "select name, height from people order by name"
        as_pandas = sql_query(query=query, results="pandas")
        as_polars = sql_query(query=query, results="polars")
        assert isinstance(as_pandas, pd.DataFrame)
        assert list(as_pandas.columns) == ["name", "height"]
        assert as_pandas["height"].sum() == 3.65
        assert isinstance(as_polars, pl.DataFrame)
        assert as_polars["name"].to_list() == ["Ada", "O'Hara", "Zeno"]

    @pytest.mark.parametrize("kind", ["rows", "pandas", "polars"])
    def test_without_rows_there_are_columns_where_there_can_be(self, people, kind):
        found = sql_query(query="select name, height from people where 1 = 0", results=kind)
        assert len(found) == 0
        if kind != "rows":
            assert list(found.columns) == ["name", "height"]

    def test_auto_is_pandas_if_it_is_installed_and_rows_if_not(self, people, monkeypatch):
        BigraysConfig.RESULTS = "auto"
        assert isinstance(sql_query(query="select 1"), pd.DataFrame)
        monkeypatch.setattr(module, "find_spec", lambda name: None)
        assert sql_query(query="select 1 as one") == [{"one": 1}]
        with pytest.raises(TasksFailed, match=r"pip install 'resilient-exporters\[polars\]'") as caught:
            sql_query(query="select 1", results="polars")
        assert isinstance(caught.value.exceptions[0], MissingModuleError)

    def test_another_form_is_refused(self, people):
        with pytest.raises(TasksFailed, match="results='arrow' is not possible; give one of auto, rows"):
            sql_query(query="select 1", results="arrow")

    def test_two_columns_of_one_name_would_lose_one(self, people):
        with pytest.raises(TasksFailed, match="the columns a, a have a name twice"):
            sql_query(query="select 1 as a, 2 as a")

    def test_values_are_bound(self, people):
        evil = "x'; drop table people; --"
        update_format_kws(who=evil)

        class Find(SQLQuery):
            query = "select name from people where name in (:a, :b) or name = :evil"
            params = {"a": "O'Hara", "b": "Ada", "evil": evil}

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            bigrays_run(Find)
        assert [row["name"] for row in Find.output] == ["Ada", "O'Hara"]

    def test_a_list_fits_in(self, people):
        found = sql_query(query="select name from people where name in :names", params={"names": ["Ada", "Zeno"]})
        assert len(found) == 2

    def test_a_value_may_be_the_output_of_a_task(self, people):
        class Who(SQLQuery):
            query = "select max(name) as name from people"

            def run(self):
                return super().run()[0]["name"]

        class Find(SQLQuery):
            query = "select * from people where name = :who"
            params = {"who": Who.output}

        bigrays_run(Who, Find)
        assert [row["name"] for row in Find.output] == ["Zeno"]

    def test_what_is_formatted_in_is_warned_of(self, people):
        update_format_kws(where="name like 'A%'")
        with pytest.warns(FormattedSQLWarning, match=r"sql_query\.query: \{where\}"):
            assert len(sql_query(query="select * from people where {where}")) == 1

    def test_dates_outside_quotes_are_bound(self, people):
        update_format_kws(begin="1900-01-01", end=dt.date(1950, 1, 1))
        found = sql_query(query="select name from people where born between {begin} and {end}")
        assert found == [{"name": "O'Hara"}]

    def test_braces_colons_and_percents_are_left_alone(self, people):
        update_format_kws(n=1)
        found = sql_query(query="""select '{"k": {"l": [1,2]}}' as j, '12:30:00' as t, '100%' as p, {n} as n""")
        assert found == [{"j": '{"k": {"l": [1,2]}}', "t": "12:30:00", "p": "100%", "n": 1}]


class TestStream:
    def test_rows_go_to_a_file_and_come_back_as_often_as_you_like(self, database):
        query = (
            "with recursive n(i) as (select 1 union all select i + 1 from n where i < 2500) select i, i * 0.5 h from n"
        )
        found = sql_query(query=query, stream=True)
        assert isinstance(found, Rows)
        assert len(found) == 2500
        assert found.columns == ["i", "h"]
        for _ in range(2):
            assert sum(row["i"] for row in found) == 2500 * 2501 // 2
        assert next(iter(found)) == {"i": 1, "h": 0.5}

    def test_it_is_never_in_memory_as_a_whole(self, database, tmp_path):
        class Read(SQLQuery):
            query = """with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
                       select i, printf('%0500d', i) as text from n"""  # 10 MB
            stream = True

        class Write(ToCSV):
            input, filename = Read.output, str(tmp_path / "out.csv")

        tracemalloc.start()
        try:
            bigrays_run(Read, Write)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (tmp_path / "out.csv").stat().st_size > 10_000_000
        assert peak < 6_000_000

    def test_two_readers_do_not_disturb_each_other(self):
        made = Rows(["a"], ([n] for n in range(2500)), batch_rows=100)
        assert all(one == other for one, other in zip(made, made, strict=True))

    def test_values_keep_their_types(self):
        values = [dt.datetime(2026, 1, 2, 3), decimal.Decimal("1.10"), b"\x00", None, "x", 2**70, [1, {"a": 2}]]
        (row,) = Rows([str(n) for n in range(len(values))], [values]).values()
        assert row == values
        assert [type(value) for value in row] == [type(value) for value in values]

    def test_what_only_the_driver_knows_becomes_text(self):
        from ipaddress import ip_address

        (row,) = Rows(["a"], [[ip_address("10.0.0.1")]]).values()
        assert row == ["10.0.0.1"]

    def test_a_source_that_fails_leaves_no_file_open(self):
        def broken():
            yield [1]
            raise OSError("gone")

        with pytest.raises(OSError, match="gone"):
            Rows(["a"], broken())
        gc.collect()  # an open file would be a ResourceWarning here
        assert repr(Rows(["a", "b"], [[1, 2]])) == "<1 rows: a, b>"

    def test_it_is_written_to_a_table_without_being_held(self, database):
        made = Rows(["a", "b"], ([n, str(n)] for n in range(3000)), batch_rows=100)
        sql_write(tablename="t", input=made)
        assert rows(database, "select count(*), sum(a), max(b) from t") == [(3000, 2999 * 3000 // 2, "999")]


class TestExecute:
    def test_it_is_committed(self, people):
        sql_execute(statement="delete from people where name = :name", params={"name": "Ada"})
        assert rows(people, "select count(*) from people") == [(2,)]

    def test_a_statement_that_fails_changes_nothing_and_the_next_goes_on(self, people):
        class Bad(SQLExecute):
            statement = "insert into people (shoes) values (1)"

        class Good(SQLExecute):
            statement = "delete from people"
            run_with_exceptions = True

        with pytest.raises(TasksFailed, match="has no column named shoes"):
            bigrays_run(Bad, Good)
        assert rows(people, "select count(*) from people") == [(0,)]

    def test_a_task_of_ones_own_is_committed_when_it_ends_well_and_rolled_back_when_not(self, people):
        import sqlalchemy as sa

        class Good(SQLTask):
            def run(self):
                SQLSession.resource().execute(sa.text("insert into people (name) values ('new')"))
                return self.read_query("select count(*) as n from people where name = :n", {"n": "new"})

        class Bad(SQLTask):
            def run(self):
                SQLSession.resource().execute(sa.text("delete from people"))
                self.execute("insert into people (name) values ('other')")
                assert self.read_query("select count(*) as n from people") == [{"n": 1}]
                self.write("people", [{"name": "third"}], if_exists="append")
                raise ValueError

        with pytest.raises(TasksFailed):
            bigrays_run(Good, Bad)
        assert Good.output == [{"n": 1}]
        assert rows(people, "select count(*) from people") == [(4,)]

    def test_temporary_tables_last_over_consecutive_tasks_and_one_without_a_resource(self, database):
        from resilient_exporters.tasks import Task

        class Make(SQLExecute):
            statement = "create temporary table tmp as select 1 as a"

        class Between(Task):
            def run(self):
                return None

        class Read(SQLQuery):
            query = "select * from tmp"

        bigrays_run(Make, Between, Read)
        assert Read.output == [{"a": 1}]


class TestWrite:
    def test_rows_make_a_table_with_types_that_fit(self, database):
        when = dt.datetime(2026, 11, 21, 10, 0)
        sql_write(tablename="t", input=[{"a": 1, "when": when}, {"a": 2.5, "b": "x"}])
        assert sql_query(query="select * from t") == [
            {"a": 1.0, "when": str(when) + ".000000", "b": None}, {"a": 2.5, "when": None, "b": "x"},
        ]  # fmt: skip

    @pytest.mark.parametrize(
        "frame", [pd.DataFrame({"a": [1, 2], "b": ["x", None]}), pl.DataFrame({"a": [1, 2], "b": ["x", None]})]
    )
    def test_data_frames_are_written(self, database, frame):
        sql_write(tablename="t", input=frame)
        assert rows(database, "select a, b from t order by a") == [(1, "x"), (2, None)]

    @pytest.mark.parametrize("data", [[{"a": 2}], pd.DataFrame({"a": [2]})])
    def test_a_table_that_is_there_is_kept_appended_to_or_replaced(self, database, data):
        sql_write(tablename="t", input=[{"a": 1}])
        with pytest.raises(TasksFailed, match="exists"):
            sql_write(tablename="t", input=data)
        assert rows(database, "select a from t") == [(1,)]
        sql_write(tablename="t", input=data, params={"if_exists": "append", "index": False})
        assert rows(database, "select a from t") == [(1,), (2,)]
        sql_write(tablename="t", input=data, params={"if_exists": "replace", "index": False})
        assert rows(database, "select a from t") == [(2,)]

    def test_all_rows_are_written_or_none(self, database):
        sql_execute(statement="create table t (a integer check (a < 1500))")
        with pytest.raises(TasksFailed, match="CHECK constraint failed"):
            sql_write(tablename="t", input=[{"a": n} for n in range(2000)], params={"if_exists": "append"})
        assert rows(database, "select count(*) from t") == [(0,)]

    @pytest.mark.parametrize(
        ("data", "params", "text"),
        [
            ([{"a": 1}], {"method": "multi"}, "params has method, which only a pandas DataFrame takes"),
            ([{"a": 1}], {"if_exists": "upsert"}, "if_exists='upsert' is not possible"),
            ([], {}, "no rows and no columns"),
            ([1], {}, "a row of type int has no columns"),
            (7, {}, "an input of type int has no records"),
        ],
    )
    def test_what_cannot_be_written_is_refused(self, database, data, params, text):
        with pytest.raises(TasksFailed, match=text):
            sql_write(tablename="t", input=data, params=params)

    def test_texts_are_read_by_the_database_as_what_its_columns_are(self, database):
        sql_execute(statement="create table t (day date, at timestamp, n integer, j json)")
        texts = {"day": "2026-11-21", "at": "2026-11-21 10:00", "n": "7", "j": '{"a": 1}'}
        values = {"day": dt.date(2026, 11, 21), "at": dt.datetime(2026, 11, 21, 10), "n": 7, "j": {"a": 1}}
        sql_write(tablename="t", input=[texts], params={"if_exists": "append"})
        sql_write(tablename="t", input=[values], params={"if_exists": "append"})
        assert rows(database, "select day, typeof(n), json(j) from t") == [("2026-11-21", "integer", '{"a":1}')] * 2

    def test_a_column_that_is_not_there_is_an_error(self, database):
        sql_write(tablename="t", input=[{"a": 1}])
        with pytest.raises(TasksFailed, match="no column named b"):
            sql_write(tablename="t", input=[{"a": 1, "b": 2}], params={"if_exists": "append"})
        assert rows(database, "select a from t") == [(1,)]

    def test_a_task_of_ones_own_may_write(self, database):
        class Mine(SQLTask):
            def run(self):
                self.execute("create table t (a integer)")
                self.write("t", [{"a": 1}], if_exists="append")
                return self.read_query("select a from t")

        bigrays_run(Mine)
        assert Mine.output == [{"a": 1}]


def test_a_database_that_is_not_there_is_a_resource_error_without_the_statement(tmp_path):
    BigraysConfig.DB_URL = f"sqlite:///{tmp_path}/no/such/folder/x.db"

    class Write(SQLWrite):
        tablename, input = "t", [{"a": 1}]

    with pytest.raises(TasksFailed, match=r"Write: ResourceError: SQLSession could not be opened: .*unable to open"):
        bigrays_run(Write)
