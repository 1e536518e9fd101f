"""Formatters: what files look like."""

from __future__ import annotations

from resilient_exporters.pipeline.formatters.base import BaseFormatter
from resilient_exporters.pipeline.formatters.json import JsonExportFormatter

__all__ = ["BaseFormatter", "JsonExportFormatter"]
