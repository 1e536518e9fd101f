"""The grouper that makes no groups."""

from __future__ import annotations

from collections.abc import Iterable

from resilient_exporters.pipeline.groupers.base import BaseGrouper
from resilient_exporters.pipeline.record import BaseRecord

__all__ = ["NoGrouper"]


class NoGrouper(BaseGrouper):
    """Leaves all records in one group."""

    def group_batch(self, batch: Iterable[BaseRecord]) -> Iterable[BaseRecord]:
        """The same records."""
        return batch
