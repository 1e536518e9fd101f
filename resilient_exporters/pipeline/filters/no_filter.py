"""The filter that lets everything pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from resilient_exporters.pipeline.filters.base import BaseFilter
from resilient_exporters.pipeline.record import BaseRecord

__all__ = ["NoFilter"]


class NoFilter(BaseFilter):
    """Lets every record pass."""

    def filter(self, item: BaseRecord) -> bool:  # noqa: ARG002 - whatever it is
        """True."""
        return True

    def filter_batch(self, batch: Iterable[BaseRecord]) -> Iterator[BaseRecord]:
        """The same records."""
        return iter(batch)
