"""Bypass: data that goes straight from source to target, past the pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resilient_exporters.pipeline.pipeline import Pipeline

__all__ = ["take"]


def take(pipeline: Pipeline) -> bool:  # noqa: ARG001 - the ways past the pipeline look at it
    """Take the first way past the pipeline that can be taken. False: there is none."""
    return False
