from __future__ import annotations

from pathlib import Path

import pytest

from resilient_exporters.tasks import (
    BigraysConfig,
    Export,
    Plan,
    RunPipeline,
    SNSPublish,
    SQLExecute,
    SQLQuery,
    Task,
    ToCSV,
    ToS3,
    bigrays_run,
    update_format_kws,
)


@pytest.fixture
def job(database: Path, tmp_path: Path) -> dict[str, type[Task]]:
    """Tasks of most kinds; two settings and a format keyword are missing."""

    class Make(SQLExecute):
        statement = "create table t (a integer)"

    class Between(Task):
        def run(self):
            raise AssertionError("it ran")

    class Read(SQLQuery):
        query = """
            select * from {table}
            where a > :least and d > {day} and e = '{other}'
        """
        params = {"least": 5}
        retry_policy = 2.0

    class Upload(ToS3):
        input = Read.output
        bucket = "bucket/{year}"
        key = "{missing}.csv"

    class Write(ToCSV):
        input = Read.output
        filename = f"{tmp_path}/{{day}}.csv"
        run_with_exceptions = True

    update_format_kws(table="t", day="2026-11-21", other="x", year=Between.output)
    return locals()


def test_a_dry_run_prints_the_plan_and_executes_nothing(job, database, tmp_path, capsys):
    plan = bigrays_run(dry_run=True)

    assert (
        capsys.readouterr().out
        == f"""Plan: 5 tasks, nothing is executed

   open SQLSession (sqlite:///{database})
1. Make (SQLExecute)
     statement: create table t (a integer)
2. Between (Task)
   keep SQLSession
3. Read (SQLQuery)
     query: select * from t
            where a > :least and d > :day and e = 'x'
     :least = 5
     :day = '2026-11-21'
     is tried again: 2.0
   close SQLSession
   open S3Client
4. Upload (ToS3)
     bucket: bucket/<Between.output>
     key: {{missing}}.csv
     input <- Read.output
5. Write (ToCSV)
     filename: {tmp_path}/2026-11-21.csv
     input <- Read.output
     runs even if a task before it fails
   close S3Client

What is missing or wrong:
  S3Client requires the setting(s) S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY: assign them to BigraysConfig, or set \
BIGRAYS_S3_ACCESS_KEY_ID, BIGRAYS_S3_SECRET_ACCESS_KEY in the environment
  Upload.key: no format keyword 'missing'
"""
    )
    assert isinstance(plan, Plan)
    assert len(plan.problems) == 2
    assert not database.exists()
    assert list(tmp_path.iterdir()) == []


def test_the_environment_can_make_every_run_a_dry_one(job, monkeypatch, capsys):
    monkeypatch.setenv("BIGRAYS_DRY_RUN", "1")
    assert isinstance(bigrays_run(job["Make"]), Plan)
    assert "1. Make" in capsys.readouterr().out


def test_a_wrong_order_and_a_missing_database_are_shown(job, capsys):
    BigraysConfig.reset()
    bigrays_run(job["Upload"], job["Read"], dry_run=True)
    shown = capsys.readouterr().out
    assert "Upload.input uses Read.output, but Read runs later: put it in front" in shown
    assert "open SQLSession (cannot be opened, see below)" in shown
    assert "SQLSession requires the setting(s) DB_URL" in shown


def test_no_password_is_shown(capsys):
    BigraysConfig.DB_URL = "postgresql://me:secret@host/db"

    class Read(SQLQuery):
        query = "select 1"

    bigrays_run(dry_run=True)
    shown = capsys.readouterr().out
    assert "open SQLSession (postgresql+psycopg://me:***@host/db)" in shown
    assert "secret" not in shown


def test_bridges_are_shown(capsys):
    class Send(Export):
        input = [{"a": 1}]
        exporter = "file:///x/{day}.jsonl"

    class Copy(RunPipeline):
        pipeline = "{day}.json"

    class Tell(SNSPublish):
        input = topic = "x"

    update_format_kws(day="today")
    BigraysConfig.AWS_REQUIRE_SECRETS = False
    BigraysConfig.AWS_REGION = "us-east-1"
    plan = bigrays_run(dry_run=True)
    shown = capsys.readouterr().out
    assert "exporter: file:///x/today.jsonl" in shown
    assert "pipeline: today.json" in shown
    assert "open SNSClient" in shown
    assert plan is not None
    assert plan.problems == []


def test_what_is_not_known_yet_is_shown_as_it_is_written(database, capsys):
    class First(Task):
        def run(self):
            raise AssertionError("it ran")

    class Read(SQLQuery):
        query = "select {parts.name}, {parts[0]!r}, {parts:>9} from t where a = :wanted"
        params = {"wanted": First.output, "lost": 1}

    class Upload(ToS3):
        input, bucket = First.output, First.output
        key = "{parts.name}/{parts}"

    update_format_kws(parts=First.output)
    plan = bigrays_run(dry_run=True)
    shown = capsys.readouterr().out
    assert "params has lost, but the text has no :lost outside quotes" in shown
    assert "bucket: <First.output>" in shown
    assert "key: <First.output>.name/<First.output>" in shown
    assert plan is not None

    Read.params = {"wanted": First.output}
    bigrays_run(First, Read, dry_run=True)
    shown = capsys.readouterr().out
    assert "query: select <First.output>.name, <First.output>[0], <First.output> from t where a = :wanted" in shown
    assert ":wanted = <First.output>" in shown


def test_a_plan_of_nothing(capsys):
    bigrays_run(dry_run=True)
    assert capsys.readouterr().out == "Plan: 0 tasks, nothing is executed\n\n"
