"""Tasks: an ETL job as a sequence of classes, run in order, with resources opened once and shared.

::

    from resilient_exporters import tasks


    class Readings(tasks.SQLQuery):
        query = "select * from readings where day >= :day"
        params = {"day": "2026-11-01"}


    class Upload(tasks.ToS3):
        input = Readings.output
        bucket = "my-bucket"
        key = "readings.csv"


    tasks.bigrays_run()
"""

from __future__ import annotations

import logging

from resilient_exporters.tasks import errors, resources
from resilient_exporters.tasks.config import BigRaysConfig, BigraysConfig
from resilient_exporters.tasks.csv_file import ToCSV
from resilient_exporters.tasks.errors import (
    BigRaysError,
    BigraysError,
    ConfigurationError,
    FormattedSQLWarning,
    ResourceError,
    TaskError,
    TaskInterfaceError,
    TasksFailed,
)
from resilient_exporters.tasks.export import Export, ExportReport
from resilient_exporters.tasks.functions import (
    export,
    from_s3,
    list_s3_objects,
    run_pipeline,
    sns_publish,
    sns_publish_email,
    sns_task,
    sql_execute,
    sql_query,
    sql_write,
    to_csv,
    to_s3,
    wrap_task,
)
from resilient_exporters.tasks.placeholder import REQUIRED_ATTRIBUTE, Placeholder
from resilient_exporters.tasks.plan import Plan
from resilient_exporters.tasks.registry import TASK_REGISTER
from resilient_exporters.tasks.resources import BaseResource, ResourceManager, S3Client, SNSClient, SQLSession
from resilient_exporters.tasks.rows import Rows
from resilient_exporters.tasks.run import Watcher, bigrays_run, run_tasks
from resilient_exporters.tasks.run_pipeline import RunPipeline
from resilient_exporters.tasks.s3 import FromS3, ListS3Objects, S3Task, S3Upload, ToS3
from resilient_exporters.tasks.sns import SNSPublish, SNSPublishEmail, SNSTask
from resilient_exporters.tasks.sql import SQLExecute, SQLQuery, SQLTask, SQLWrite
from resilient_exporters.tasks.task import BaseTask, Task, update_format_kws

__all__ = [
    "REQUIRED_ATTRIBUTE",
    "TASK_REGISTER",
    "BaseResource",
    "BaseTask",
    "BigRaysConfig",
    "BigRaysError",
    "BigraysConfig",
    "BigraysError",
    "ConfigurationError",
    "Export",
    "ExportReport",
    "FormattedSQLWarning",
    "FromS3",
    "ListS3Objects",
    "Placeholder",
    "Plan",
    "ResourceError",
    "ResourceManager",
    "Rows",
    "RunPipeline",
    "S3Client",
    "S3Task",
    "S3Upload",
    "SNSClient",
    "SNSPublish",
    "SNSPublishEmail",
    "SNSTask",
    "SQLExecute",
    "SQLQuery",
    "SQLSession",
    "SQLTask",
    "SQLWrite",
    "Task",
    "TaskError",
    "TaskInterfaceError",
    "TasksFailed",
    "ToCSV",
    "ToS3",
    "Watcher",
    "bigrays_run",
    "errors",
    "export",
    "from_s3",
    "list_s3_objects",
    "resources",
    "run_pipeline",
    "run_tasks",
    "sns_publish",
    "sns_publish_email",
    "sns_task",
    "sql_execute",
    "sql_query",
    "sql_write",
    "to_csv",
    "to_s3",
    "update_format_kws",
    "wrap_task",
]

logging.getLogger("bigrays").addHandler(logging.NullHandler())
