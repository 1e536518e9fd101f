"""What every reader is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from resilient_exporters.pipeline.module import Module

__all__ = ["BaseReader"]

_LOOK: Final = 0.2  # seconds between two looks at whether the run is asked to stop


class BaseReader(Module):
    """Gives records in batches, and can go on from any batch's end.

    A subclass writes ``get_next_batch``, and ``get_last_position`` and ``set_last_position`` where its source can be
    entered in the middle. The position is asked for when the batch was consumed to its end: it stands for all records
    given so far, and none after. Records may be plain dicts; the pipeline makes ``BaseRecord`` of them.

    Attributes:
        finished: set by the reader: there is nothing more. The batch in hand is still taken.
        stopping: set by the pipeline: whether the run is asked to stop. A reader that waits for records looks at it
            several times a second, and ends its batch with what it has.
    """

    family = "reader"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.finished = False
        self.stopping: Callable[[], bool] = bool  # which says False

    def get_next_batch(self) -> Iterable[dict[str, Any]]:
        """The next records: a list or a generator. Sets ``finished`` when there are no more after these."""
        raise NotImplementedError(f"{type(self).__name__} must define get_next_batch()")

    def get_last_position(self) -> Any:
        """Where it stands: None, or any value that the codec knows. Kept with the job, given back at a resume."""
        return None

    def set_last_position(self, position: Any) -> None:
        """Go on from there. Called before the first batch of a resumed run; None: from the beginning."""

    def committed(self, position: Any) -> None:
        """All up to this position is on record: a resume begins after it. Here a source is told what it may forget.

        In a threaded run this is another thread than the one that reads, and the reader is ahead of the position.
        """

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than until the run is asked to stop."""
        until = time.monotonic() + seconds
        while not self.stopping() and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK))

    def is_finished(self) -> bool:
        """Whether all was given."""
        return self.finished

    def share_done(self) -> float | None:
        """Which share of the source was read, 0 to 1, for the time that is left; None: nobody knows."""
        return None
