"""bigrays: its modules and names, which are those of `resilient_exporters.tasks`.

``from resilient_exporters.compat.bigrays import tasks, bigrays_run`` where it was ``from bigrays import …``; its
modules (``.tasks``, ``.config``, ``.resources``, ``.exceptions``, ``.run``) can be imported by their old names.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Final

from resilient_exporters import tasks
from resilient_exporters.tasks import (
    S3Task,
    SQLExecute,
    SQLQuery,
    SQLTask,
    SQLWrite,
    ToCSV,
    ToS3,
    bigrays_run,
    config,
    from_s3,
    list_s3_objects,
    resources,
    run,
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
from resilient_exporters.tasks import errors as exceptions
from resilient_exporters.tasks import functions as functional_interface

__all__ = [
    "S3Task",
    "SQLExecute",
    "SQLQuery",
    "SQLTask",
    "SQLWrite",
    "ToCSV",
    "ToS3",
    "bigrays_run",
    "config",
    "exceptions",
    "from_s3",
    "functional_interface",
    "list_s3_objects",
    "resources",
    "run",
    "sns_publish",
    "sns_publish_email",
    "sns_task",
    "sql_execute",
    "sql_query",
    "sql_write",
    "tasks",
    "to_csv",
    "to_s3",
    "wrap_task",
]

#: The modules of the old package.
MODULES: Final[dict[str, ModuleType]] = {
    "config": config,
    "exceptions": exceptions,
    "functional_interface": functional_interface,
    "resources": resources,
    "run": run,
    "tasks": tasks,
}

sys.modules.update({f"{__name__}.{name}": module for name, module in MODULES.items()})
