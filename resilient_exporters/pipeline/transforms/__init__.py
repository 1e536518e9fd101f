"""Transforms: what becomes of records."""

from __future__ import annotations

from resilient_exporters.pipeline.transforms.base import BaseTransform

__all__ = ["BaseTransform"]
