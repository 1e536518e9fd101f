"""Transforms: what becomes of records."""

from __future__ import annotations

from resilient_exporters.pipeline.transforms.base import BaseRecordTransform, BaseTransform
from resilient_exporters.pipeline.transforms.flatson import FlatsonTransform
from resilient_exporters.pipeline.transforms.jq import JQTransform
from resilient_exporters.pipeline.transforms.no_transform import NoTransform
from resilient_exporters.pipeline.transforms.pythonexp import PythonexpTransform, PythonMapTransform

__all__ = [
    "BaseRecordTransform",
    "BaseTransform",
    "FlatsonTransform",
    "JQTransform",
    "NoTransform",
    "PythonMapTransform",
    "PythonexpTransform",
]
