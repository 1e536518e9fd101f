"""Listeners: told of what happens; what they raise goes no further."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from resilient_exporters import ExporterPool, HoldError, InvalidConfigError, Listener, RejectedError
from resilient_exporters.delivery.keeper import Keeper
from tests.targets import PATIENCE, Target, balanced, numbers, until


class Diary(Listener):
    """Writes down every call."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, ...]] = []

    def state_changed(self, target: str, state: str, reason: str) -> None:
        self.lines.append(("state", target, state, reason))

    def delivered(self, target: str, records: int, seconds: float) -> None:
        assert seconds >= 0
        self.lines.append(("delivered", target, records))

    def dropped(self, target: str | None, records: int, reason: str) -> None:
        self.lines.append(("dropped", target, records, reason))

    def dead_lettered(self, target: str, record_id: str, reason: str) -> None:
        self.lines.append(("dead", target, record_id, reason))

    def disk_changed(self, trouble: str | None) -> None:
        self.lines.append(("disk", trouble))

    def of(self, *kinds: str) -> list[tuple[Any, ...]]:
        return [line for line in self.lines if line[0] in kinds]


def test_an_outage_is_told_once_each_way() -> None:
    # Given
    diary = Diary()
    exporter = Target(ConnectionError("refused"), retry=3600, listeners=[diary])

    # When: ten failures in a row, then recovery
    exporter.send(numbers(3))
    for _ in range(10):
        exporter.flush()
    exporter.answer = None
    assert exporter.flush(PATIENCE).complete
    exporter.close()

    # Then
    assert diary.of("state") == [
        ("state", "target", "open", "ConnectionError: refused"),
        ("state", "target", "closed", ""),
    ]


def test_a_hold_is_told_and_a_new_reason_too() -> None:
    # Given
    diary = Diary()
    exporter = Target(HoldError("wrong password"), listeners=[diary])

    # When
    exporter.send({"n": 0})
    exporter.flush()
    exporter.flush()
    exporter.answer = HoldError("no such database")
    exporter.flush()

    # Then
    assert diary.of("state") == [
        ("state", "target", "held", "HoldError: wrong password"),
        ("state", "target", "held", "HoldError: no such database"),
    ]


@pytest.mark.parametrize("stepwise", [False, True])
def test_every_change_between_held_and_open_is_told_once(stepwise: bool) -> None:
    # Given
    diary = Diary()
    exporter = Target(None, listeners=[diary], retry=3600)
    exporter.send({"n": 0})
    answers = [
        ConnectionError("refused"), HoldError("refused"), HoldError("refused"), ConnectionError("refused"),
        ValueError("unclear"), RejectedError("never"), HoldError("password"), None,
    ]  # fmt: skip

    # When
    assert exporter.flush(PATIENCE).complete
    for number, answer in enumerate(answers):
        exporter.answer = answer
        if number in (0, 6):
            exporter.send({"n": number})
        exporter.flush(PATIENCE)
        if stepwise:
            exporter.flush(PATIENCE)

    # Then
    assert [line[2] for line in diary.of("state")] == ["open", "held", "open", "closed", "held", "closed"]
    assert exporter.stats().targets["target"].state == "closed"


def test_waiting_for_the_next_flush_is_told_like_any_other_change() -> None:
    diary = Diary()
    exporter = Target(ConnectionError("down"), listeners=[diary], manual_reexport=True)
    exporter.send(numbers(5))
    exporter.flush(PATIENCE)
    exporter.answer = None
    exporter.flush(PATIENCE, max_records=2)
    exporter.flush(PATIENCE, max_records=2)
    assert exporter.flush(PATIENCE).complete
    states = [line[2] for line in diary.of("state")]
    assert states == ["open", "closed"] * (len(states) // 2)
    assert exporter.stats().targets["target"].state == states[-1]


def test_a_dead_letter_is_told_once_it_is_on_disk() -> None:
    # Given a disk that does not take letters
    diary = Diary()
    exporter = Target(RejectedError("no"), listeners=[diary])
    keeper = exporter._open().keeper
    release = threading.Event()
    with disk_held(keeper, release):
        exporter.send({"n": 0})
        exporter.entered()
        # When the target has refused the record, then nobody is told that it is kept
        exporter.gate.wait()
        until(exporter, lambda stats: stats.targets["target"].attempts == 1 and not exporter._open().targets[0].flying)
        assert diary.of("dead") == []
        assert balanced(exporter).targets["target"].pending == 1
    # And when it is there, then it is told
    until(exporter, lambda stats: stats.targets["target"].dead == 1)
    assert [line[3] for line in diary.of("dead")] == ["RejectedError: no"]
    assert [letter.data for letter in exporter.dead_letters()] == [{"n": 0}]


@contextmanager
def disk_held(keeper: Keeper, release: threading.Event) -> Iterator[None]:
    """The keeper's thread is busy with a disk that does not answer."""
    thread = threading.Thread(target=keeper.call, args=(release.wait,))
    thread.start()
    try:
        yield
    finally:
        release.set()
        thread.join(PATIENCE)


def test_deliveries_are_told_per_batch() -> None:
    # Given
    diary = Diary()
    exporter = Target(listeners=[diary])
    exporter.gate.clear()
    exporter.send("first")
    exporter.entered()

    # When
    exporter.send(numbers(50))
    exporter.gate.set()
    assert exporter.flush(PATIENCE).complete
    exporter.close()

    # Then
    told = diary.of("delivered")
    assert sum(line[2] for line in told) == 51
    assert len(told) <= 3


def test_drops_and_dead_letters_are_told() -> None:
    # Given
    diary = Diary()
    exporter = Target(RejectedError("no"), listeners=[diary], max_records=10, max_dead=1, retry=3600)

    # When
    first = exporter.send({"n": 0})
    first.result(PATIENCE)
    exporter.send({"n": 1}).result(PATIENCE)
    exporter.answer = ConnectionError("down")
    for record in numbers(30, 2):
        exporter.send(record)
    exporter.flush()

    # Then
    assert diary.of("dead")[0] == ("dead", "target", first.id, "RejectedError: no")
    assert ("dropped", "target", 1, "dead_overflow") in diary.lines
    overflow = sum(line[2] for line in diary.of("dropped") if line[3] == "overflow")
    assert overflow == exporter.stats().targets["target"].dropped["overflow"]


def test_trouble_with_the_disk_is_told() -> None:
    # Given
    import random

    noise = random.Random(1)
    diary = Diary()
    exporter = Target(ConnectionError("down"), retry=3600, listeners=[diary], min_free_disk="100000 TB")

    # When
    exporter.send([noise.randbytes(1000) for _ in range(300)])
    assert not exporter.save(PATIENCE)

    # Then: it was told once
    assert len(diary.of("disk")) == 1
    assert "min_free_disk" in diary.of("disk")[0][1]


def test_a_listener_that_raises_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    # Given
    class Broken(Listener):
        def delivered(self, target: str, records: int, seconds: float) -> None:
            raise ZeroDivisionError("in the listener")

        state_changed = dropped = dead_lettered = delivered  # type: ignore[assignment] # all raise

    diary = Diary()
    failing = iter([ConnectionError("cut"), RejectedError("no")])
    exporter = Target(lambda _: next(failing, None), listeners=[Broken(), diary])

    # When
    with caplog.at_level(logging.ERROR, logger="resilient_exporters"):
        exporter.send({"n": 0}).result(PATIENCE)
        assert exporter.send({"n": 1}).result(PATIENCE).successful

    # Then
    assert exporter.taken == numbers(1, 1)
    assert diary.of("delivered") == [("delivered", "target", 1)]
    assert "Broken.delivered failed" in caplog.text


def test_a_pool_tells_by_target() -> None:
    # Given
    diary = Diary()
    pool = ExporterPool([Target(name="a"), Target(ConnectionError("down"), name="b", retry=3600)], listeners=[diary])

    # When
    pool.send({"n": 0})
    pool.flush()

    # Then
    assert ("delivered", "a", 1) in diary.lines
    assert ("state", "b", "open", "ConnectionError: down") in diary.lines


def test_the_base_does_nothing() -> None:
    exporter = Target(RejectedError("no"), listeners=[Listener()])
    assert not exporter.send({"n": 0}).result(PATIENCE).successful


@pytest.mark.parametrize("listeners", [[object()], [print], [Listener], 5, Listener()])
def test_what_is_no_listener_is_refused(listeners: Any) -> None:
    with pytest.raises(InvalidConfigError, match="listeners"):
        Target(listeners=listeners)


def test_logs_are_one_line_per_change_never_one_per_record(caplog: pytest.LogCaptureFixture) -> None:
    # Given
    exporter = Target(ConnectionError("refused"), retry=3600, max_records=50)

    # When
    with caplog.at_level(logging.INFO, logger="resilient_exporters"):
        tuple(exporter.send({"n": -1}))
        for record in numbers(1000):
            exporter.send(record)
        for _ in range(5):
            exporter.flush()
        exporter.answer = None
        exporter.flush(PATIENCE)

    # Then
    ours = [record for record in caplog.records if record.name.startswith("resilient_exporters")]
    assert len(ours) <= 4
    assert any("not reached" in record.getMessage() for record in ours)
    assert any("healthy again" in record.getMessage() for record in ours)
