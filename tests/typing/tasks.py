"""What type checkers say of a user's tasks. Never run: mypy reads it."""

from __future__ import annotations

from typing import Any

from resilient_exporters import FileExporter, RetryPolicy, tasks
from resilient_exporters.compat import bigrays


class Query(tasks.SQLQuery):
    query = "select * from t where day > :day and {column} = 1"
    params = {"day": "2026-11-21"}
    results = "rows"
    stream = True
    retry_policy = RetryPolicy(wait=1, stop=3)


class Base(tasks.ToS3, abstract=True):
    bucket = "ours"


class Upload(Base):
    input = Query.output
    key = "x.csv"


class Send(tasks.Export):
    input = Query.output
    exporter = FileExporter("x.jsonl")


class Own(tasks.Task, register=False):
    required_resource = tasks.SQLSession
    input = Query.output

    def run(self) -> int:
        connection = tasks.SQLSession.resource()
        return len(connection.execute(self.input).all())


class Memory(tasks.BaseResource):
    required_configs = ("SIZE",)

    @classmethod
    def _open(cls, config: Any) -> dict[str, Any]:
        return {"size": config.SIZE}


class Settings(tasks.BigraysConfig):
    DB_URL = "sqlite://"


tasks.BigraysConfig.DB_URL = "sqlite:///x.db"
tasks.BigraysConfig.MY_OWN = 1
region: Any = tasks.BigRaysConfig.AWS_REGION
tasks.update_format_kws({"a": 1}, b=Query.output)
plan: tasks.Plan | None = tasks.bigrays_run(Query, Upload, config=Settings, dry_run=True)
try:
    bigrays.bigrays_run(Send, Own)
except tasks.TasksFailed as failed:
    names: list[str] = [one.task for one in failed.failures]
    errors: tuple[Exception, ...] = failed.exceptions
rows: Any = tasks.sql_query(query="select 1")
