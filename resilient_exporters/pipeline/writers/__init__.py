"""Writers: where the records of a pipeline go."""

from __future__ import annotations

from resilient_exporters.pipeline.writers.aggregation import AggregationStatsWriter
from resilient_exporters.pipeline.writers.base import BaseWriter
from resilient_exporters.pipeline.writers.console import ConsoleWriter
from resilient_exporters.pipeline.writers.exporter_writer import ExporterWriter
from resilient_exporters.pipeline.writers.http import HTTPWriter
from resilient_exporters.pipeline.writers.reduce import ReduceWriter
from resilient_exporters.pipeline.writers.search import CloudSearchWriter
from resilient_exporters.pipeline.writers.sql import OdoWriter, SQLWriter

__all__ = [
    "AggregationStatsWriter",
    "BaseWriter",
    "CloudSearchWriter",
    "ConsoleWriter",
    "ExporterWriter",
    "HTTPWriter",
    "OdoWriter",
    "ReduceWriter",
    "SQLWriter",
]
