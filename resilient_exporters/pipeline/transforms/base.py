"""What every transform is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from resilient_exporters.pipeline.module import Module
from resilient_exporters.pipeline.record import BaseRecord

__all__ = ["BaseTransform"]


class BaseTransform(Module):
    """Changes records, leaves some out, or makes several of one. A subclass writes ``transform_batch``."""

    family = "transform"

    def transform_batch(self, batch: Iterable[BaseRecord]) -> Iterable[dict[str, Any]]:
        """The changed records, one by one as they are asked for: a generator."""
        raise NotImplementedError(f"{type(self).__name__} must define transform_batch(batch)")
