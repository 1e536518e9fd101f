"""Stats managers: what is made of the times of a run."""

from __future__ import annotations

import itertools
import json

from resilient_exporters.pipeline.module import Module

__all__ = ["BaseStatsManager", "BasicStatsManager", "LoggingStatsManager"]


class BaseStatsManager(Module):
    """Gets the times of each batch. An exception of it is logged and ends nothing."""

    family = "stats_manager"

    def iteration_report(self, times: dict[str, float]) -> None:
        """A batch was committed.

        Args:
            times: seconds since the epoch at which each step was done, in this order: started, read, filtered,
                transformed, filtered_after, grouped, written, persisted. Stages are lazy: what they take shows in
                "written", unless ``forced_reads`` or ``threaded`` is on.
        """

    def final_report(self) -> None:
        """The run is complete."""


class BasicStatsManager(BaseStatsManager):
    """Says all figures at the end, at level DEBUG."""

    def final_report(self) -> None:
        """Say them."""
        self.logger.debug("%s", json.dumps(self.metadata.to_dict(), default=str))


class LoggingStatsManager(BasicStatsManager):
    """Says the seconds of each step after each batch, as JSON, at level INFO."""

    def iteration_report(self, times: dict[str, float]) -> None:
        """Say them."""
        names = list(times)
        seconds = {name: round(times[name] - times[before], 6) for before, name in itertools.pairwise(names)}
        self.logger.info("%s", json.dumps(seconds))
