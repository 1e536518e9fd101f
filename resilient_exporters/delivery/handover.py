"""Handover: the backlog of a queue given to another target, under the ids that its records have."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec

from resilient_exporters.delivery.attempt import route
from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.engine import Engine, Member
from resilient_exporters.delivery.frame import ROUTED
from resilient_exporters.delivery.inspection import WaitingRecord
from resilient_exporters.delivery.listener import Listener
from resilient_exporters.delivery.ring import ring_path
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.errors import QueueFullError

__all__ = ["Handover", "hand_over"]


class Handover(msgspec.Struct, frozen=True):
    """What a handover did.

    Attributes:
        given: records taken from the queue.
        delivered: those that the target took.
        refused: why it refused the others for good, by record id.
        trouble: why it did not take them all, or "".
    """

    given: int
    delivered: int
    refused: dict[str, str]
    trouble: str


def hand_over(records: Iterable[WaitingRecord], member: Member, directory: Path, timeout: float) -> Handover:
    """Deliver records to a target through an engine of its own; the queue they come from does not change.

    They keep their ids, so a target with idempotent ids has one copy however often this is repeated.

    Args:
        records: what to deliver.
        member: the target.
        directory: for the engine's own queue, of no use afterwards.
        timeout: seconds without any progress after which it is given up.
    """
    refused = _Refused()
    settings = Settings.check(
        directory=directory, loss_window=None, on_full="block", full_timeout=timeout, save_unsent=False
    )
    engine = Engine(
        name="handover",
        key="handover",
        settings=settings,
        members=[member],
        listener=refused,
        clock=Clock(),
        patience=None,
    )
    given, trouble = 0, ""
    try:
        try:
            for record in records:
                run = bytes.fromhex(record.run)
                engine.queue.append(route(member.identity, run, record.offset, record.flags, record.payload), ROUTED)
                given += 1
            while not (report := engine.flush(timeout, None)).complete and report.delivered:
                continue
        except QueueFullError:
            given += 1  # the one that found no room
        figures = engine.stats().targets[member.sink.name]
        if figures.pending:
            trouble = figures.last_error or f"no answer within {timeout:g} s"
        return Handover(given, figures.delivered, refused.reasons, trouble)
    finally:
        engine.close(0.0)
        ring = ring_path(directory)
        if ring is not None:
            ring.unlink(missing_ok=True)


class _Refused(Listener):
    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self._lock = threading.Lock()

    def dead_lettered(self, target: str, record_id: str, reason: str) -> None:  # noqa: ARG002 - there is one target
        with self._lock:
            self.reasons[record_id] = reason
