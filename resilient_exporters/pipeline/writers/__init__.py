"""Writers: where the records of a pipeline go."""

from __future__ import annotations

from resilient_exporters.pipeline.writers.base import BaseWriter
from resilient_exporters.pipeline.writers.exporter_writer import ExporterWriter

__all__ = ["BaseWriter", "ExporterWriter"]
