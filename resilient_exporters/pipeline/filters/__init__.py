"""Filters: which records go on."""

from __future__ import annotations

from resilient_exporters.pipeline.filters.base import BaseFilter

__all__ = ["BaseFilter"]
