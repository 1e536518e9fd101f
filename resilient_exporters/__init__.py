"""Exporters that survive bad links: ``send`` never waits, and nothing is lost without being counted.

Exporters for single targets, and the ready ``pool`` with its ``send`` and ``add_exporter``, are loaded when they are
first asked for.
"""

from __future__ import annotations

import importlib
import logging
import threading
from typing import TYPE_CHECKING, Any

from resilient_exporters.delivery.deadletters import DeadLetter
from resilient_exporters.delivery.listener import Listener
from resilient_exporters.delivery.outcome import Batch, Delivered, Full, Hold, Outcome, Record, Reject, Retry, Split
from resilient_exporters.delivery.receipt import ExportResult, Receipt
from resilient_exporters.delivery.stats import CloseReport, FlushReport, Stats, TargetStats
from resilient_exporters.errors import (
    ClosedError,
    ConnectionError,
    DataTypeError,
    EncodingError,
    ExportError,
    HoldError,
    InvalidConfigError,
    MissingConfigError,
    MissingModuleError,
    QueueFullError,
    QueueLockedError,
    RejectedError,
    ResilientExporterException,
    RetryableError,
    TimeoutError,
    TransformError,
)
from resilient_exporters.exporter import Exporter
from resilient_exporters.exporter_pool import ExporterPool
from resilient_exporters.policy import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilient_exporters.exporters.elasticsearch import ElasticSearchExporter, ElasticsearchExporter
    from resilient_exporters.exporters.file import FileExporter
    from resilient_exporters.exporters.mongodb import MongoDBExporter
    from resilient_exporters.exporters.mysql import MySQLExporter
    from resilient_exporters.exporters.postgresql import PostgreSQLExporter
    from resilient_exporters.exporters.sql import SQLExporter
    from resilient_exporters.exporters.sqlserver import SQLServerExporter
    from resilient_exporters.urls import from_url

    pool: ExporterPool
    send: Callable[..., Receipt]
    add_exporter: Callable[[Any], None]

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "CloseReport",
    "ClosedError",
    "ConnectionError",
    "DataTypeError",
    "DeadLetter",
    "Delivered",
    "ElasticSearchExporter",
    "ElasticsearchExporter",
    "EncodingError",
    "ExportError",
    "ExportResult",
    "Exporter",
    "ExporterPool",
    "FileExporter",
    "FlushReport",
    "Full",
    "Hold",
    "HoldError",
    "InvalidConfigError",
    "Listener",
    "MissingConfigError",
    "MissingModuleError",
    "MongoDBExporter",
    "MySQLExporter",
    "Outcome",
    "PostgreSQLExporter",
    "QueueFullError",
    "QueueLockedError",
    "Receipt",
    "Record",
    "Reject",
    "RejectedError",
    "ResilientExporterException",
    "Retry",
    "RetryPolicy",
    "RetryableError",
    "SQLExporter",
    "SQLServerExporter",
    "Split",
    "Stats",
    "TargetStats",
    "TimeoutError",
    "TransformError",
    "add_exporter",
    "from_url",
    "pool",
    "send",
]

_LATER = {
    "ElasticSearchExporter": "resilient_exporters.exporters.elasticsearch",
    "ElasticsearchExporter": "resilient_exporters.exporters.elasticsearch",
    "FileExporter": "resilient_exporters.exporters.file",
    "MongoDBExporter": "resilient_exporters.exporters.mongodb",
    "MySQLExporter": "resilient_exporters.exporters.mysql",
    "PostgreSQLExporter": "resilient_exporters.exporters.postgresql",
    "SQLExporter": "resilient_exporters.exporters.sql",
    "SQLServerExporter": "resilient_exporters.exporters.sqlserver",
    "from_url": "resilient_exporters.urls",
}
_POOL = ("pool", "send", "add_exporter")
_making = threading.Lock()


def __getattr__(name: str) -> Any:
    if name in _LATER:
        value = getattr(importlib.import_module(_LATER[name]), name)
    elif name in _POOL:
        with _making:
            if "pool" not in globals():
                made = ExporterPool(name="default-pool")
                globals().update(pool=made, send=made.send, add_exporter=made.add_exporter)
        return globals()[name]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


logging.getLogger(__name__).addHandler(logging.NullHandler())
