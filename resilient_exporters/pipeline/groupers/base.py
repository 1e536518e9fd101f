"""What every grouper is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from resilient_exporters.codec import encode
from resilient_exporters.pipeline.errors import ItemsLimitReached
from resilient_exporters.pipeline.module import Module
from resilient_exporters.pipeline.record import BaseRecord

__all__ = ["BaseGrouper", "BaseRecordGrouper"]


class BaseGrouper(Module):
    """Says which group a record belongs to. A subclass writes ``group_batch``."""

    family = "grouper"

    def group_batch(self, batch: Iterable[BaseRecord]) -> Iterable[BaseRecord]:
        """The same records, with ``group_membership`` set, one by one as they are asked for."""
        raise NotImplementedError(f"{type(self).__name__} must define group_batch(batch)")


class BaseRecordGrouper(BaseGrouper):
    """Groups record by record. A subclass writes ``group_of``; where it raises, the record is a bad one."""

    def group_of(self, item: BaseRecord) -> tuple[Any, ...]:
        """The values that name the group of a record."""
        raise NotImplementedError(f"{type(self).__name__} must define group_of(item)")

    def group_batch(self, batch: Iterable[BaseRecord]) -> Iterator[BaseRecord]:
        """The same records, with ``group_membership`` set."""
        group_of = self.group_of
        for record in batch:
            try:
                found = group_of(record)
                hash(found)  # a list is no group
                for value in found:
                    if type(value) is not str:
                        encode(value, "group")  # it is kept with the job
            except ItemsLimitReached:
                raise
            except Exception as error:  # noqa: BLE001 - a record that cannot be grouped; on_bad_record decides
                self.bad_records.add(record, error, part=self.part)
                continue
            record.group_membership = found
            yield record
