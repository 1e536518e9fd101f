"""Filters: which records go on."""

from __future__ import annotations

from resilient_exporters.pipeline.filters.base import BaseFilter, BaseRecordFilter
from resilient_exporters.pipeline.filters.dupe import DupeFilter
from resilient_exporters.pipeline.filters.key_value import KeyValueFilter, KeyValueRegexFilter
from resilient_exporters.pipeline.filters.no_filter import NoFilter
from resilient_exporters.pipeline.filters.pythonexp import PythonexpFilter

__all__ = [
    "BaseFilter",
    "BaseRecordFilter",
    "DupeFilter",
    "KeyValueFilter",
    "KeyValueRegexFilter",
    "NoFilter",
    "PythonexpFilter",
]
