"""What every grouper is."""

from __future__ import annotations

from collections.abc import Iterable

from resilient_exporters.pipeline.module import Module
from resilient_exporters.pipeline.record import BaseRecord

__all__ = ["BaseGrouper"]


class BaseGrouper(Module):
    """Says which group a record belongs to. A subclass writes ``group_batch``."""

    family = "grouper"

    def group_batch(self, batch: Iterable[BaseRecord]) -> Iterable[BaseRecord]:
        """The same records, with ``group_membership`` set, one by one as they are asked for."""
        raise NotImplementedError(f"{type(self).__name__} must define group_batch(batch)")
