"""Tasks on a real PostgreSQL; S3 and SNS by moto."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa

from resilient_exporters import RetryPolicy
from resilient_exporters.tasks import (
    BaseTask,
    BigraysConfig,
    Export,
    Rows,
    SQLExecute,
    SQLQuery,
    SQLWrite,
    Task,
    TasksFailed,
    bigrays_run,
    sql_execute,
    sql_query,
    sql_write,
    update_format_kws,
)
from resilient_exporters.tasks.registry import TASK_REGISTER
from resilient_exporters.testing import RecordingExporter
from tests.compat.etl import run_the_document


def test_the_documents_example_runs_end_to_end(postgresql_database: str):
    run_the_document(postgresql_database)


@pytest.fixture
def database(postgresql_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(BaseTask, "format_kws", {})
    BigraysConfig.reset()
    BigraysConfig.DB_URL = postgresql_database
    BigraysConfig.RESULTS = "rows"
    with TASK_REGISTER.isolated():
        yield postgresql_database
    BigraysConfig.reset()


def test_values_are_bound_as_what_stands_beside_them(database: str):
    sql_execute(statement="create table t (d date, n integer, s text, j jsonb)")
    sql_execute(
        statement="""insert into t values (:d, :n, :s, '{"k": {"l": [1,2]}}'::jsonb),
                     (null, 2, '12:30:00 100% {{x}}', '{}')""",
        params={"d": "2026-11-21", "n": 1, "s": "x'; drop table t; --"},
    )
    update_format_kws(begin="2026-01-01", end=dt.date(2026, 12, 31))
    found = sql_query(
        query="select d, n, s, j, n::text as t from t where d between {begin} and {end} and n in :many",
        params={"many": [1, 2]},
    )
    assert found == [
        {"d": dt.date(2026, 11, 21), "n": 1, "s": "x'; drop table t; --", "j": {"k": {"l": [1, 2]}}, "t": "1"}
    ]
    assert sql_query(query="select s from t where n = :n and s like '%100%'", params={"n": 2}) == [
        {"s": "12:30:00 100% {x}"}
    ]


def test_temporary_tables_last_and_statements_are_committed_or_not(database: str):
    class Make(SQLExecute):
        statement = "create temporary table tmp as select 1 as a; create table kept as select 2 as a"

    class Between(Task):
        def run(self):
            return None

    class Read(SQLQuery):
        query = "select a from tmp"

    class Bad(SQLExecute):
        statement = "delete from kept; select 1/0"

    with pytest.raises(TasksFailed, match="division by zero"):
        bigrays_run(Make, Between, Read, Bad)
    assert Read.output == [{"a": 1}]
    assert sql_query(query="select a from kept") == [{"a": 2}]


@pytest.mark.parametrize("results", ["rows", "pandas", "polars"])
def test_a_table_makes_the_round_trip(database: str, results: str):
    class Make(SQLExecute):
        statement = """create table source as select n as a, n::numeric / 4 as b, 'x' || n as c, null::text as d,
                       timestamp '2026-01-01' + n * interval '1 hour' as e from generate_series(1, 1500) n"""

    class Read(SQLQuery):
        query = "select * from source order by a"

    Read.results = results

    class Copy(SQLWrite):
        tablename, input = "copy", Read.output

    class Compare(SQLQuery):
        query = (
            "select count(*) as same from source join copy using (a, c) where source.b = copy.b and source.e = copy.e"
        )
        results = "rows"

    bigrays_run(Make, Read, Copy, Compare)
    assert Compare.output == [{"same": 1500}]


def test_a_connection_that_broke_is_made_again_by_the_next_attempt(database: str):
    url = sa.make_url(database)

    class Who(SQLQuery):
        query = "select pg_backend_pid() as pid"

    class Cut(Task):
        input = Who.output

        def run(self):
            with psycopg.connect(host=url.host, port=url.port, user="postgres", dbname="postgres") as other:
                other.execute("select pg_terminate_backend(%s, 60000)", [self.input[0]["pid"]])

    class Again(SQLQuery):
        query = "select pg_backend_pid() as pid"
        retry_policy = RetryPolicy(wait=0, stop=2)

    bigrays_run(Who, Cut, Again)
    assert Again.output != Who.output


    class Once(SQLQuery):
        query = "select 1 as a"

    with pytest.raises(TasksFailed, match=r"Once: (OperationalError|AdminShutdown)"):
        bigrays_run(Who, Cut, Once)


def test_a_large_result_streams_through(database: str):
    target = RecordingExporter(name="to")

    class Read(SQLQuery):
        query = "select n, n / 8.0 as q from generate_series(1, 20000) n"
        stream = True

    class Copy(SQLWrite):
        tablename, input = "copy", Read.output

    class Send(Export):
        input, exporter = Read.output, target

    bigrays_run(Read, Copy, Send)
    assert isinstance(Read.output, Rows)
    assert sql_query(query="select count(*) as n, sum(n) as s from copy") == [{"n": 20000, "s": 200010000}]
    assert len(target.records) == 20000
    assert target.records[0] == {"n": 1, "q": decimal.Decimal("0.12500000000000000000")}
    target.close()


def test_texts_and_values_are_written_to_columns_of_every_kind(database: str):
    sql_execute(statement="create table t (day date, at timestamptz, n integer, q numeric, j jsonb)")
    at = dt.datetime(2026, 11, 21, 10, tzinfo=dt.timezone.utc)
    texts = {"day": "2026-11-21", "at": "2026-11-21 10:00Z", "n": "7", "q": "0.25", "j": '{"a": [1]}'}
    values = {"day": at.date(), "at": at, "n": 7, "q": decimal.Decimal("0.25"), "j": {"a": [1]}}
    for row in (texts, values):
        sql_write(tablename="t", input=[row], params={"if_exists": "append"})
    assert sql_query(query="select * from t") == [values, values]


def test_a_write_that_fails_leaves_no_table(database: str):
    rows = [{"a": n} for n in range(1500)] + [{"a": "no number"}]
    with pytest.raises(TasksFailed, match="a"):
        sql_write(tablename="t", input=rows)
    assert sql_query(query="select to_regclass('t') as t") == [{"t": None}]
