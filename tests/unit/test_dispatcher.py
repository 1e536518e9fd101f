"""The dispatcher: what makes it look again before its time, and what must not end it."""

from __future__ import annotations

import types
from typing import Any

import psutil
import pytest

from resilient_exporters import HoldError
from resilient_exporters.testing import eventually
from tests.targets import PATIENCE, FakeClock, Target, numbers, until


def test_a_link_that_comes_up_brings_the_probe_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a target that is to be tried again in an hour, and a machine whose link is down
    links = {"lo": types.SimpleNamespace(isup=True), "wwan0": types.SimpleNamespace(isup=False)}
    monkeypatch.setattr(psutil, "net_if_stats", lambda: dict(links))
    clock = FakeClock()
    exporter = Target(ConnectionError("no route"), retry=3600, clock=clock)
    exporter.send({"n": 0})
    exporter.flush()
    attempts = exporter.stats().targets["target"].attempts

    # When nothing changes, then it is left alone
    dispatcher = exporter._open().dispatcher
    while dispatcher._link is None:  # it looks at the links first when it has found that it must wait
        dispatcher.ring()
    for _ in range(5):
        clock.advance(2.5)
    assert exporter.stats().targets["target"].attempts == attempts

    # When the link comes up, then it is tried at once
    exporter.answer = None
    links["wwan0"] = types.SimpleNamespace(isup=True)

    def delivered() -> bool:
        clock.advance(0.5)  # far less than an hour in all, and enough for a look however late the last one was
        return exporter.stats().pending == 0

    eventually(delivered)
    assert exporter.taken == [{"n": 0}]


def test_a_slip_of_ours_does_not_end_deliveries(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a turn of the dispatcher that fails
    exporter = Target()
    dispatcher = exporter._open().dispatcher
    real, slips = dispatcher._turn, iter([ZeroDivisionError("a slip")])

    def turn() -> Any:
        for slip in slips:
            raise slip
        return real()

    monkeypatch.setattr(dispatcher, "_turn", turn)

    # When
    exporter.send(numbers(3))

    # Then the next one delivers
    assert exporter.flush(PATIENCE).complete
    assert exporter.taken == numbers(3)
    assert "the dispatcher failed" in caplog.text


def test_what_is_mended_is_tried_at_once() -> None:
    # Given
    exporter, other = Target(HoldError("wrong password")), Target(HoldError("no such table"), name="other")
    for one in (exporter, other):
        one.send({"n": 0})
        one.flush(PATIENCE)
        one.answer = None
    assert exporter.stats().targets["target"].state == "held"

    # When
    exporter.mended()

    # Then that target is, and no other
    until(exporter, lambda stats: stats.targets["target"].state == "closed")
    assert exporter.taken == [{"n": 0}]
    assert other.stats().targets["other"].state == "held"
