"""Writers that keep what they get, and a run that stumbles and is resumed until it is through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resilient_exporters.pipeline import Pipeline
from resilient_exporters.pipeline.readers import BaseReader
from resilient_exporters.pipeline.writers import BaseWriter


class Keeping(BaseWriter):
    """Keeps records in a list, as durable as a database: what was not committed is cut off at a resume."""

    def __init__(self, kept: list[Any]) -> None:
        super().__init__()
        self.kept = kept

    def write_record(self, record: Any) -> None:
        self.kept.append(dict(record))

    def set_state(self, state: Any) -> None:
        super().set_state(state)
        del self.kept[self.items_count :]


class StumbledError(Exception):
    """The writer failed, as it was told to."""


class Stumbling(Keeping):
    """Fails at the record of this number, once it has taken it: in the middle of a batch."""

    def __init__(self, kept: list[Any], at: int) -> None:
        super().__init__(kept)
        self.at = at

    def write_record(self, record: Any) -> None:
        super().write_record(record)
        if len(self.kept) == self.at:
            raise StumbledError


def run_with_stumbles(
    reader: Callable[[], BaseReader],
    at: list[int],
    after: Callable[[], object] = lambda: None,
    threaded: bool = False,
) -> tuple[list[Any], int]:
    """Run until it is through, resumed after each failure.

    Args:
        reader: makes the reader of each run.
        at: the numbers of the records at which it fails.
        after: called after each failure.
        threaded: as of the pipeline.

    Returns:
        What was kept, and how many runs it took.
    """
    kept: list[Any] = []
    job: str | None = None
    for number, place in enumerate([*at, -1], 1):
        pipeline = Pipeline(reader(), writer=Stumbling(kept, place), resume=job, threaded=threaded)
        try:
            report = pipeline.run()
        except StumbledError:
            after()
            job = pipeline.persistence.job
        else:
            assert report.complete
            return kept, number
    raise AssertionError("the last run has no place to stumble at")
