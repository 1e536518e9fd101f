"""Statistics of the keys that records have."""

from __future__ import annotations

from typing import Any

from resilient_exporters.pipeline.checks import at_least_one
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.writers.base import OUTDATED, BaseWriter

__all__ = ["AggregationStatsWriter"]


class AggregationStatsWriter(BaseWriter):
    """Counts how many records have each key, and how many per cent of all these are; writes no record.

    The result is said at the end, in the log and in the figures of the run: ``occurrences`` and ``coverage``, by key.
    """

    formats = groups = False
    supported_options = {
        **OUTDATED,
        "max_keys": Option(
            type=int, default=10_000, check=at_least_one, help="Keys that are told apart; others are counted together."
        ),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._occurrences: dict[str, int] = {}
        self._others = 0
        self._most: int = self.read_option("max_keys")

    def write_record(self, record: BaseRecord) -> None:
        """Count its keys."""
        found = self._occurrences
        for key in record:
            if key in found:
                found[key] += 1
            elif len(found) < self._most:
                found[key] = 1
            else:
                self._others += 1

    def get_aggregated_occurrences(self) -> dict[str, int]:
        """How many records have each key, the most frequent first."""
        return dict(sorted(self._occurrences.items(), key=lambda pair: (-pair[1], str(pair[0]))))

    def get_aggregated_coverage(self) -> dict[str, float]:
        """How many per cent of the records have each key."""
        total = self.items_count or 1
        return {key: 100.0 * number / total for key, number in self.get_aggregated_occurrences().items()}

    def get_state(self) -> Any:
        """The counts."""
        return {**super().get_state(), "occurrences": list(self._occurrences.items()), "others": self._others}

    def set_state(self, state: Any) -> None:
        """Count on."""
        super().set_state(state)
        self._occurrences = dict(state["occurrences"])
        self._others = state["others"]

    def finish_writing(self) -> None:
        """Say the result."""
        coverage = self.get_aggregated_coverage()
        self.update_metadata({"occurrences": self.get_aggregated_occurrences(), "coverage": coverage})
        if self._others:
            self.set_metadata("other_occurrences", self._others)
        lines = [f"{key}: {self._occurrences[key]} ({coverage[key]:.4g} %)" for key in coverage]
        self.logger.info("keys of %d records: %s", self.items_count, "; ".join(lines[:50]) or "none")
