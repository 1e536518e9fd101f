"""Readers: where the records of a pipeline come from."""

from __future__ import annotations

from resilient_exporters.pipeline.readers.base import BaseReader
from resilient_exporters.pipeline.readers.iterable import IterableReader

__all__ = ["BaseReader", "IterableReader"]
