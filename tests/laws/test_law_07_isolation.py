"""Law 7, isolation: a dead, slow or poisoned target changes nothing for the others."""

from __future__ import annotations

import random
import threading
from typing import Any
from uuid import uuid4

import pytest

from resilient_exporters import Batch, ExporterPool, HoldError, RejectedError, Split
from tests.targets import PATIENCE, FakeClock, Target, balanced, numbers, until

SICK: dict[str, Any] = {
    "dead": ConnectionError("down"),
    "unclear": RuntimeError("?"),
    "held": HoldError("wrong password"),
    "rejecting": RejectedError("no"),
    "poisoned": lambda batch: ValueError("7") if any(record.data["n"] % 7 == 0 for record in batch) else None,
    "splitting": lambda batch: Split(),
    "nonsense": lambda batch: "what",
}


def waits(event: threading.Event, seconds: float | None = None) -> None:
    """Hang until someone lets go, or for ``seconds``."""
    event.wait(seconds)


@pytest.mark.parametrize("sickness", SICK)
def test_the_healthy_one_gets_everything_in_order(sickness: str) -> None:
    # Given
    healthy, sick = Target(name="healthy"), Target(SICK[sickness], name="sick", retry=0.001)
    pool = ExporterPool([sick, healthy])

    # When
    receipts = [pool.send(record) for record in numbers(500)]

    # Then: without waiting for the other
    for receipt in receipts:
        while not receipt.targets["healthy"].successful:
            pool.flush(PATIENCE, max_records=None)
    assert healthy.taken == numbers(500)
    target = balanced(pool).targets["healthy"]
    assert (target.delivered, target.retries, target.state, target.last_error) == (500, 0, "closed", "")


def test_a_hanging_one_does_not_hold_up_the_others() -> None:
    # Given: one that hangs in every call there is
    stuck = threading.Event()

    class Stuck(Target):
        def connect(self) -> None:
            self.inside.release()
            stuck.wait()

    hanging, healthy = Stuck(name="stuck", timeout=0), Target(name="healthy")
    pool = ExporterPool([hanging, healthy])

    # When
    pool.send({"n": 0})
    hanging.entered()
    for record in numbers(200, 1):
        pool.send(record)

    # Then
    until(pool, lambda stats: stats.targets["healthy"].delivered == 201)
    assert healthy.taken == numbers(201)
    stuck.set()


def test_many_hanging_ones_do_not_use_up_the_workers() -> None:
    # Given
    clock, stuck = FakeClock(), threading.Event()
    hanging = [Target(lambda _: waits(stuck), name=f"stuck{n}", timeout=5) for n in range(5)]
    healthy = Target(name="healthy")
    pool = ExporterPool([*hanging, healthy], retry=0, linger=0, clock=clock)

    # When: each hangs as often as it may
    for record in numbers(50):
        pool.send(record)
    for _ in range(4):
        for target in hanging:
            target.entered()
        clock.advance(5)
    until(pool, lambda stats: {stats.targets[f"stuck{n}"].hung for n in range(5)} == {4})
    pool.send({"n": 50})

    # Then
    until(pool, lambda stats: stats.targets["healthy"].delivered == 51)
    assert healthy.taken == numbers(51)
    assert {balanced(pool).targets[f"stuck{n}"].hung for n in range(5)} == {4}
    stuck.set()


def test_a_dead_ones_backlog_on_disk_does_not_slow_the_others() -> None:
    # Given: a dead one with all it missed on disk, and a restart
    name = uuid4().hex
    options: dict[str, Any] = {"name": name, "max_memory": "128 kB", "max_disk": "4 MB", "on_full": "drop_oldest"}
    healthy = Target(name="healthy")
    pool = ExporterPool([healthy, Target(ConnectionError("down"), name="dead", retry=3600)], **options)
    for n in range(2000):
        pool.send({"n": n, "pad": "x" * 200})
        if n % 200 == 0:
            pool.flush(PATIENCE)
    pool.flush(PATIENCE)
    pool.close(0)
    assert [record["n"] for record in healthy.taken] == list(range(2000))

    # When
    healthy = Target(name="healthy")
    pool = ExporterPool([healthy, Target(ConnectionError("down"), name="dead", retry=3600)], **options)
    receipts = [pool.send({"n": n}) for n in range(2000, 2100)]
    pool.flush(PATIENCE)

    # Then
    assert all(receipt.targets["healthy"].successful for receipt in receipts)
    assert healthy.taken == numbers(100, 2000)


def test_transforms_of_members_do_not_meet() -> None:
    # Given: one that spoils its copy, one whose transform fails now and then
    dice = random.Random(1)

    def spoil(data: Any) -> Any:
        data.clear()
        data["spoilt"] = True
        return data

    def fail(data: Any) -> Any:
        return {"n": data["n"]} if dice.random() < 0.5 else None

    seen: list[Any] = []

    def mutate(batch: Batch) -> None:
        for record in batch:
            seen.append(dict(record.data))
            record.data["mutated"] = True

    members = [
        Target(name="a", transform=spoil),
        Target(name="b", transform=fail),
        Target(mutate, name="c"),
        Target(name="d"),
    ]
    pool = ExporterPool(members)

    # When
    pool.send(numbers(100))
    assert pool.flush(PATIENCE).complete

    # Then
    assert members[3].taken == numbers(100)
    assert seen == numbers(100)
    assert members[0].taken == [{"spoilt": True}] * 100
    stats = balanced(pool)
    assert stats.targets["b"].dead + stats.targets["b"].delivered == 100
