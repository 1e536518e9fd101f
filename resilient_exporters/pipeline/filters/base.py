"""What every filter is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from resilient_exporters.pipeline.errors import ItemsLimitReached
from resilient_exporters.pipeline.module import Module
from resilient_exporters.pipeline.record import BaseRecord

__all__ = ["BaseFilter", "BaseRecordFilter"]


class BaseFilter(Module):
    """Lets records pass, or leaves them out. A subclass writes ``filter``.

    Attributes:
        filtered_out: how many were left out in this run; the figure ``filtered_out`` holds them, too.
    """

    family = "filter"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.filtered_out = 0

    def filter(self, item: BaseRecord) -> bool:
        """Whether a record passes."""
        raise NotImplementedError(f"{type(self).__name__} must define filter(item)")

    def filter_batch(self, batch: Iterable[BaseRecord]) -> Iterator[BaseRecord]:
        """The records that pass, one by one as they are asked for."""
        passes = self.filter
        try:
            for record in batch:
                if passes(record):
                    yield record
                else:
                    self.filtered_out += 1
        finally:
            self.set_metadata("filtered_out", self.filtered_out)

    def get_state(self) -> Any:
        """How many were left out."""
        return self.filtered_out

    def set_state(self, state: Any) -> None:
        """Go on counting."""
        self.filtered_out = state


class BaseRecordFilter(BaseFilter):
    """For filters that look at the record only: where ``filter`` raises, the record is a bad one."""

    def filter_batch(self, batch: Iterable[BaseRecord]) -> Iterator[BaseRecord]:
        """The records that pass, one by one as they are asked for."""
        passes = self.filter
        try:
            for record in batch:
                try:
                    found = passes(record)
                except ItemsLimitReached:
                    raise
                except Exception as error:  # noqa: BLE001 - a record that cannot be judged; on_bad_record decides
                    self.bad_records.add(record, error, part=self.part)
                    continue
                if found:
                    yield record
                else:
                    self.filtered_out += 1
        finally:
            self.set_metadata("filtered_out", self.filtered_out)
