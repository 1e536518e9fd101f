"""Transforms: what a program does to each record before it is sent."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from resilient_exporters.delivery.outcome import Record
from resilient_exporters.errors import TransformError

__all__ = ["apply_transform", "preparer"]


def apply_transform(exporter: object, transform: Callable[[Any], Any], data: Any) -> Any:
    """Call a transform with a copy of a record.

    Raises:
        TransformError: it raised, or returned None.
    """
    try:
        changed = transform(copy.deepcopy(data))
    except Exception as error:
        raise TransformError(exporter, f"the transform raised {type(error).__name__}: {error}") from error
    if changed is None:
        raise TransformError(exporter, "the transform returned None: it must return the record")
    return changed


def preparer(transform: Callable[[Any], Any]) -> Callable[[Record], Record]:
    """What applies a transform to records at their delivery."""

    def prepare(record: Record) -> Record:
        return Record(record.run, record.offset, apply_transform(None, transform, record.data), record.options)

    return prepare
