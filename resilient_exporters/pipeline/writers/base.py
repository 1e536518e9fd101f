"""What every writer is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Final

from resilient_exporters.pipeline.errors import BadRecordError, ItemsLimitReached
from resilient_exporters.pipeline.formatters.base import BaseFormatter
from resilient_exporters.pipeline.module import Module
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.workplace import Workplace
from resilient_exporters.units import parse_count

__all__ = ["OUTDATED", "BaseWriter"]

OUTDATED: Final[Mapping[str, Option]] = {
    name: Option(type=kind, default=None, help="Read for the sake of old configurations, and not used.")
    for name, kind in {
        "items_per_buffer_write": int, "size_per_buffer_write": int, "check_consistency": bool, "compression": str,
        "write_buffer": str, "write_buffer_options": dict,
    }.items()
}  # fmt: skip
"""What the old system's configurations may say to any writer."""


class BaseWriter(Module):
    """Takes records, and can go on from any batch's end.

    After each batch the pipeline calls ``prepare``, then commits the reader's position together with
    ``get_state``, in one transaction, then ``committed``. So:

    - ``prepare`` makes durable what was taken, in a place where a resume finds it;
    - ``get_state`` says what is there: open buffers with their durable length, files to be delivered, numbers used;
    - ``committed`` does what must not be done twice, or may be done again without harm: deliver files under the names
      that the state fixed. What it did is in the next state, and that is committed at the latest at the end;
    - ``set_state`` at a resume throws away what came after, and does again what ``committed`` may not have done.

    Attributes:
        formatter: set by the pipeline before the first batch.
        workplace: directory for buffers that outlive the process; set by the pipeline, else a temporary one.
        prints: it writes to the terminal: then nothing else moves there.
        items_count: records written, over all resumes; the figure ``items_count`` holds them, too.
    """

    family = "writer"
    prints: ClassVar[bool] = False
    formats: ClassVar[bool] = True
    """It writes what the formatter makes of records."""
    groups: ClassVar[bool] = True
    """It tells groups apart."""
    supported_options = {
        "items_limit": Option(
            type=int, default=0, check=lambda value: parse_count(value, "items_limit", minimum=0),
            help="Records to write before the run ends; 0: no limit.",
        ),
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.items_limit: int = self.read_option("items_limit")
        self.items_count = 0
        self.formatter: BaseFormatter | None = None
        self.workplace = Workplace()

    def write_batch(self, batch: Iterable[BaseRecord]) -> None:
        """Take records.

        Raises:
            ItemsLimitReached: as many as ``items_limit`` are written. The run ends as if there were no more.
        """
        for record in self.counted(batch):
            self.write_record(record)

    def write_record(self, record: BaseRecord) -> None:
        """Take one record."""
        raise NotImplementedError(f"{type(self).__name__} must define write_batch(batch) or write_record(record)")

    def counted(self, batch: Iterable[BaseRecord]) -> Iterator[BaseRecord]:
        """The records of a batch up to ``items_limit``, counted when they were written."""
        limit = self.items_limit
        try:
            if limit and self.items_count >= limit:
                raise ItemsLimitReached(None, f"items_limit={limit} is reached")
            for record in batch:
                yield record
                self.items_count += 1
                if self.items_count == limit:
                    raise ItemsLimitReached(None, f"items_limit={limit} is reached")
        finally:
            self.set_metadata("items_count", self.items_count)

    def sound(self, function: Callable[[BaseRecord], bytes], record: BaseRecord) -> bytes | None:
        """What a function makes of a record; None: it is a bad one, and not counted.

        Raises:
            BadRecordError: it is, and ``on_bad_record`` is "fail".
        """
        try:
            return function(record)
        except BadRecordError:
            raise
        except Exception as error:  # noqa: BLE001 - any formatter's; on_bad_record decides
            self.bad_records.add(record, error, part=self.part)
            self.items_count -= 1
            return None

    def unused(self) -> list[str]:
        """The options that were given and change nothing."""
        return [name for name in self.options if self.supported_options[name] is OUTDATED.get(name)]

    def begin(self) -> None:
        """The run is new. Called once, before the first batch; a resumed one gets ``set_state`` instead."""

    def prepare(self) -> None:
        """Make durable what was taken so far."""

    def committed(self) -> None:
        """What was taken so far is on record: a resume begins after it."""

    def flush(self) -> None:
        """There is no more to come: what is buffered goes out with the next ``committed``."""

    def finish_writing(self) -> None:
        """All is written and committed: say so at the target, check, sum up. Called at the end.

        A process that is killed while it does so is resumed, and does it again.
        """

    def get_state(self) -> Any:
        """How many were written. A subclass adds its own: ``{**super().get_state(), …}``."""
        return {"items_count": self.items_count}

    def set_state(self, state: Any) -> None:
        """Go on from there."""
        self.items_count = state["items_count"]
        self.set_metadata("items_count", self.items_count)
