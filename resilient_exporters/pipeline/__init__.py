"""The export pipeline: records from any source, through stages, into any exporter, resumable to the record."""

from __future__ import annotations

from resilient_exporters.pipeline.catalogue import module_options
from resilient_exporters.pipeline.configuration import check_for_errors
from resilient_exporters.pipeline.errors import (
    BadRecordError,
    ConfigCheckError,
    ConfigurationError,
    ExpressionError,
    InconsistentWriteState,
    InvalidDateRangeError,
    InvalidExpression,
    InvalidMailProvided,
    InvalidOperator,
    ItemsLimitReached,
    LimitExceeded,
    MaxMailsSent,
    PipelineError,
    RequisitesNotMet,
    StateError,
    UnsupportedCompressionFormat,
)
from resilient_exporters.pipeline.metadata import ExportMetadata
from resilient_exporters.pipeline.pipeline import BasicExporter, Pipeline
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.report import PipelineReport

__all__ = [
    "BadRecordError",
    "BaseRecord",
    "BasicExporter",
    "ConfigCheckError",
    "ConfigurationError",
    "ExportMetadata",
    "ExpressionError",
    "InconsistentWriteState",
    "InvalidDateRangeError",
    "InvalidExpression",
    "InvalidMailProvided",
    "InvalidOperator",
    "ItemsLimitReached",
    "LimitExceeded",
    "MaxMailsSent",
    "Pipeline",
    "PipelineError",
    "PipelineReport",
    "RequisitesNotMet",
    "StateError",
    "UnsupportedCompressionFormat",
    "check_for_errors",
    "module_options",
]
