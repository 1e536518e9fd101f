"""Groupers: which records belong together."""

from __future__ import annotations

from resilient_exporters.pipeline.groupers.base import BaseGrouper

__all__ = ["BaseGrouper"]
