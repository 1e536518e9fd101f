"""Notifications: who is told that a run began, ended or failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resilient_exporters.pipeline.module import Module

__all__ = ["CLIENTS", "TEAM", "BaseNotifier"]

CLIENTS, TEAM = 0, 1
"""Groups of receivers."""


class BaseNotifier(Module):
    """Is told what becomes of a run. An exception of it is logged and ends nothing.

    Receivers are ``CLIENTS``, ``TEAM``, or addresses; ``info`` is ``ExportMetadata.to_dict()``.
    """

    family = "notification"

    def notify_start_dump(self, receivers: Sequence[Any] = (), info: dict[str, Any] | None = None) -> None:
        """A run began; CLIENTS and TEAM are told."""

    def notify_complete_dump(self, receivers: Sequence[Any] = (), info: dict[str, Any] | None = None) -> None:
        """A run is complete; CLIENTS and TEAM are told."""

    def notify_failed_job(
        self, msg: str, stack_trace: str, receivers: Sequence[Any] = (), info: dict[str, Any] | None = None
    ) -> None:
        """A run failed; the TEAM is told."""
