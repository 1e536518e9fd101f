"""What came of a run."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["PipelineReport"]


class PipelineReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run.

    Attributes:
        job: id of the job, and ``uri`` what ``rexport resume`` takes.
        read: records read in this run.
        written: records written over all runs of the job.
        bad: records that could not be used, by part; in this run.
        batches: batches committed in this run.
        seconds: that this run took.
        complete: False: it was asked to stop, and can be resumed.
        bypassed: the data went straight from source to target.
        figures: of each module.
    """

    job: str
    uri: str
    read: int
    written: int
    bad: dict[str, int]
    batches: int
    seconds: float
    complete: bool
    bypassed: bool = False
    figures: dict[str, Any] = {}
