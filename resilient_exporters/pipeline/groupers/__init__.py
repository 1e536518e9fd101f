"""Groupers: which records belong together."""

from __future__ import annotations

from resilient_exporters.pipeline.groupers.base import BaseGrouper, BaseRecordGrouper
from resilient_exporters.pipeline.groupers.file_key import FileKeyGrouper
from resilient_exporters.pipeline.groupers.no_grouper import NoGrouper
from resilient_exporters.pipeline.groupers.python_exp import PythonExpGrouper

__all__ = ["BaseGrouper", "BaseRecordGrouper", "FileKeyGrouper", "NoGrouper", "PythonExpGrouper"]
