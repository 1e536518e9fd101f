"""What is known of a run: of the whole, and of each of its modules."""

from __future__ import annotations

import time
from typing import Any

__all__ = ["ExportMetadata"]


class ExportMetadata:
    """Figures of one run, shared by its modules.

    Args:
        configuration: of the run, without secrets.

    Attributes:
        start_time: seconds since the epoch; None before the run.
        end_time: the same, or None while it runs.
        bypassed_pipeline: the data went straight from source to target.
        accurate_items_count: the number of records written is known.
        modules: figures of each module, by family: "reader", "filter_before", "writer" and so on.
    """

    def __init__(self, configuration: dict[str, Any] | None = None) -> None:
        self.configuration = configuration or {}
        self.start_time: float | None = None
        self.end_time: float | None = None
        self.bypassed_pipeline = False
        self.accurate_items_count = True
        self.modules: dict[str, dict[str, Any]] = {}

    @property
    def elapsed_time(self) -> float:
        """Seconds from the start to the end, or until now."""
        if self.start_time is None:
            return 0.0
        return (time.time() if self.end_time is None else self.end_time) - self.start_time

    def of(self, part: str) -> dict[str, Any]:
        """The figures of one module; kept, and changed in place."""
        return self.modules.setdefault(part, {})

    def to_dict(self) -> dict[str, Any]:
        """All of it, as it goes into notifications and reports."""
        return {
            "configuration": self.configuration,
            "start_time": self.start_time,
            "end_time": self.end_time,
            "elapsed_time": self.elapsed_time,
            "bypassed_pipeline": self.bypassed_pipeline,
            "accurate_items_count": self.accurate_items_count,
            **{part: dict(figures) for part, figures in self.modules.items()},
        }
