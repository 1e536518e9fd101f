"""The transform that changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.transforms.base import BaseTransform

__all__ = ["NoTransform"]


class NoTransform(BaseTransform):
    """Leaves every record as it is."""

    def transform_batch(self, batch: Iterable[BaseRecord]) -> Iterable[dict[str, Any]]:
        """The same records."""
        return batch
