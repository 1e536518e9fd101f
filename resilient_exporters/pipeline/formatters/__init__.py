"""Formatters: what files look like."""

from __future__ import annotations

from resilient_exporters.pipeline.formatters.avro import AvroExportFormatter
from resilient_exporters.pipeline.formatters.base import BaseFormatter, BaseWholeFormatter
from resilient_exporters.pipeline.formatters.csv import CSVExportFormatter
from resilient_exporters.pipeline.formatters.json import JsonExportFormatter
from resilient_exporters.pipeline.formatters.parquet import ParquetExportFormatter
from resilient_exporters.pipeline.formatters.xml import XMLExportFormatter

__all__ = [
    "AvroExportFormatter",
    "BaseFormatter",
    "BaseWholeFormatter",
    "CSVExportFormatter",
    "JsonExportFormatter",
    "ParquetExportFormatter",
    "XMLExportFormatter",
]
