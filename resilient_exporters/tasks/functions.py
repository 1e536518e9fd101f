"""Tasks as functions: each call runs one task that has no name and is in no list, and returns its output."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from resilient_exporters.tasks.csv_file import ToCSV
from resilient_exporters.tasks.errors import TaskInterfaceError
from resilient_exporters.tasks.export import Export
from resilient_exporters.tasks.run import bigrays_run
from resilient_exporters.tasks.run_pipeline import RunPipeline
from resilient_exporters.tasks.s3 import FromS3, ListS3Objects, ToS3
from resilient_exporters.tasks.sns import SNSPublish, SNSPublishEmail, SNSTask
from resilient_exporters.tasks.sql import SQLExecute, SQLQuery, SQLWrite
from resilient_exporters.tasks.task import BaseTask

__all__ = [
    "export",
    "from_s3",
    "list_s3_objects",
    "run_pipeline",
    "sns_publish",
    "sns_publish_email",
    "sns_task",
    "sql_execute",
    "sql_query",
    "sql_write",
    "to_csv",
    "to_s3",
    "wrap_task",
]


def wrap_task(name: str, task: type[BaseTask]) -> Callable[..., Any]:
    """Make a function of a class of tasks.

    Args:
        name: of the function.
        task: a base such as `SQLQuery`.

    Returns:
        A function that takes the attributes of the task by keyword, runs it and returns its output. It raises
        ValueError if one that is required is missing, otherwise what a run raises.
    """

    def function(**attributes: Any) -> Any:
        try:
            made: Any = types.new_class(
                name, (task,), {"register": False}, lambda namespace: namespace.update(attributes)
            )
        except TaskInterfaceError as error:
            raise ValueError(f"{name}() lacks keyword arguments: {error}") from error
        bigrays_run(made)
        return made.output

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Run a {task.__name__} with these attributes and return its output.\n\n{task.__doc__ or ''}"
    return function


export = wrap_task("export", Export)
from_s3 = wrap_task("from_s3", FromS3)
list_s3_objects = wrap_task("list_s3_objects", ListS3Objects)
run_pipeline = wrap_task("run_pipeline", RunPipeline)
sns_publish = wrap_task("sns_publish", SNSPublish)
sns_publish_email = wrap_task("sns_publish_email", SNSPublishEmail)
sns_task = wrap_task("sns_task", SNSTask)
sql_execute = wrap_task("sql_execute", SQLExecute)
sql_query = wrap_task("sql_query", SQLQuery)
sql_write = wrap_task("sql_write", SQLWrite)
to_csv = wrap_task("to_csv", ToCSV)
to_s3 = wrap_task("to_s3", ToS3)
