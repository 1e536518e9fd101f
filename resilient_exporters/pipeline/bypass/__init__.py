"""Bypass: data that goes straight from source to target, past the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from resilient_exporters.pipeline.bypass.base import BaseBypass
from resilient_exporters.pipeline.bypass.s3 import S3Bypass
from resilient_exporters.pipeline.bypass.stream import StreamBypass
from resilient_exporters.pipeline.errors import RequisitesNotMet

if TYPE_CHECKING:
    from resilient_exporters.pipeline.pipeline import Pipeline

__all__ = ["CASES", "BaseBypass", "RequisitesNotMet", "S3Bypass", "StreamBypass", "chosen", "possible"]

CASES: Sequence[type[BaseBypass]] = (S3Bypass, StreamBypass)
"""Tried in this order. A subclass of ``Pipeline`` may have others, in ``bypass_cases``."""


def chosen(pipeline: Pipeline, persistence: Any, stopping: Callable[[], bool] = lambda: False) -> BaseBypass | None:
    """The first way past the pipeline that can be taken; None: there is none.

    Args:
        pipeline: that is to be run; its writer has begun, or was given its state.
        persistence: of its job.
        stopping: whether the run is asked to stop.
    """
    if pipeline.prevent_bypass:
        return None
    begun: Any = None
    if pipeline.resume is not None:
        begun = persistence.states(pipeline.resume).get(BaseBypass.part)
        if begun is None:
            return None  # its records went through the pipeline so far
    for case in getattr(pipeline, "bypass_cases", CASES):
        if _fits(case, pipeline) and begun in (None, *_plans(begun, case)):
            return case(pipeline, persistence, stopping)
    return None


def possible(pipeline: Pipeline) -> bool:
    """Whether there is a way past the pipeline, for a new job."""
    return not pipeline.prevent_bypass and any(
        _fits(case, pipeline) for case in getattr(pipeline, "bypass_cases", CASES)
    )


def _plans(begun: Any, case: type[BaseBypass]) -> tuple[Any, ...]:
    return (begun,) if begun is not None and begun["bypass"] == case.__name__ else ()


def _fits(case: type[BaseBypass], pipeline: Pipeline) -> bool:
    given = pipeline.configuration.get("exporter_options") or {}
    options = {**given, "prevent_bypass": pipeline.prevent_bypass, "stream_bypass": pipeline.stream_bypass}
    config = {**pipeline.configuration, "exporter_options": options}
    for section, module in (("reader", pipeline.reader), ("writer", pipeline.writer)):
        config[section] = {**(config.get(section) or {}), "class": type(module)}
    try:
        return case.meets_conditions(config) is not False
    except RequisitesNotMet:  # the form that the old documents have
        return False
