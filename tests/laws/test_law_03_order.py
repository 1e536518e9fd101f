"""Law 3, order: with concurrency 1 a target gets its records in the order of acceptance, whatever happens."""

from __future__ import annotations

import random
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resilient_exporters import Batch, ExporterPool, RetryableError, Split
from tests.targets import PATIENCE, FakeClock, Target


class Picky:
    """A target's mood that changes from one attempt to the next."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    def __call__(self, batch: Batch) -> Any:
        return self.dice.choice(
            [
                None,
                None,
                ConnectionError("cut"),
                RetryableError("busy"),
                Split() if len(batch) > 1 else None,
                TimeoutError("slow"),
            ]
        )


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 10**6),
    parts=st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from(["go", "restart", "save", "step"])), min_size=1, max_size=8
    ),
    size=st.sampled_from([0, 300, 3000]),
)
def test_in_the_order_of_acceptance(seed: int, parts: list[tuple[int, str]], size: int) -> None:
    # Given: failures, restarts, disk, and a wall clock that jumps
    clock = FakeClock()
    name, taken, sent = uuid4().hex, list[Any](), 0

    def opened() -> Target:
        target = Target(
            Picky(seed), name=name, clock=clock, max_memory="128 kB", on_full="block", batch_records=16, loss_window=0.1
        )
        target.taken = taken
        return target

    exporter = opened()

    # When
    for count, what in parts:
        for _ in range(count):
            exporter.send({"n": sent, "pad": "x" * size})
            sent += 1
        if what == "restart":
            exporter.close(0)
            exporter = opened()
        elif what == "save":
            exporter.save(None)
        elif what == "step":
            clock.step(random.Random(sent).uniform(-1e9, 1e9))
            clock.advance(1)
    exporter.answer = None
    while not exporter.flush(None).complete:
        pass
    exporter.close(0)

    # Then: a batch that was in flight at a close may have been given twice, which changes no order
    assert list(dict.fromkeys(record["n"] for record in taken)) == list(range(sent))


def test_each_member_of_a_pool_for_itself() -> None:
    # Given
    members = [Target(Picky(n), name=f"t{n}") for n in range(4)]
    pool = ExporterPool(members, batch_records=10)

    # When
    for n in range(500):
        pool.send({"n": n})
    while not pool.flush(PATIENCE).complete:
        pass

    # Then
    for member in members:
        assert [record["n"] for record in member.taken] == list(range(500))


@pytest.mark.parametrize("step", [-1e9, -3600, 3600, 1e9])
def test_a_step_of_the_wall_clock_changes_no_order(step: float) -> None:
    # Given
    clock = FakeClock()
    exporter = Target(ConnectionError("down"), clock=clock, retry=10**6, max_age=10**5, name="step")
    exporter.send(0)

    # When
    clock.step(step)
    exporter.send(1)
    exporter.close(0)
    clock.step(-2 * step)
    later = Target(clock=clock, max_age=10**5, name="step")
    later.send(2)
    while not later.flush(None).complete:
        pass

    # Then
    assert later.taken == [0, 1, 2]
