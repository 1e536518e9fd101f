from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from resilient_exporters.delivery.pace import Concurrency, Rate
from resilient_exporters.errors import InvalidConfigError


@pytest.mark.parametrize("given", [0, -1, 1.5, True, "2", "fast", None])
def test_what_is_no_concurrency(given: Any) -> None:
    with pytest.raises(InvalidConfigError, match=r"concurrency=.*number from 1 on"):
        Concurrency(given)


def test_a_number_stays() -> None:
    fixed = Concurrency(20)
    for _ in range(10):
        fixed.note(1, full=True, failed=True)
        fixed.note(100, full=True, failed=False)
    assert fixed.level == 20


def test_auto_grows_by_one_a_round_of_full_batches_up_to_eight() -> None:
    auto = Concurrency("auto")
    levels = []
    for _ in range(100):
        levels.append(auto.level)
        auto.note(1.0, full=True, failed=False)
    # Then each level lasts for a round to get there, and one to look at
    assert sorted(levels) == levels
    assert max(levels) == 8
    assert all(levels.count(level) == 2 * level + 1 for level in range(1, 8))


def levels_of(seconds: Callable[[int], float], seed: int, batches: int = 1500) -> list[int]:
    """How many are in flight at a target that takes so long with so many, on a machine that others use, too."""
    auto, chance, levels = Concurrency("auto"), random.Random(seed), []
    for _ in range(batches):
        levels.append(auto.level)
        disturbed = (1 + 0.4 * chance.random()) * (10 if chance.random() < 0.02 else 1)
        auto.note(seconds(auto.level) * disturbed, full=True, failed=False)
    return levels


@pytest.mark.parametrize("seed", range(8))
def test_accidents_do_not_keep_auto_from_what_brings_more(seed: int) -> None:
    # Given a server that takes two batches in hardly more time than one, and a third not any sooner
    levels = levels_of(lambda level: 0.004 if level == 1 else 0.00225 * level, seed)
    assert levels.count(1) < 200
    assert sum(level > 3 for level in levels) < 300

    # Given one that takes any number at once
    assert levels_of(lambda _: 0.004, seed).count(8) > 1000


@pytest.mark.parametrize("seed", range(8))
def test_accidents_do_not_lead_auto_to_what_brings_nothing(seed: int) -> None:
    # Given a server that writes one batch at a time, with some loss for each that waits
    levels = levels_of(lambda level: 0.004 * level * (0.95 + 0.05 * level), seed)
    assert levels.count(1) > 1000
    assert sum(level > 2 for level in levels) < 100


def test_auto_is_one_while_the_backlog_is_short() -> None:
    auto = Concurrency("auto")
    for _ in range(20):
        auto.note(0.1, full=False, failed=False)
    assert auto.level == 1
    for _ in range(20):
        auto.note(0.1, full=True, failed=False)
    grown = auto.level
    for _ in range(100):
        auto.note(0.1, full=False, failed=False)
    assert grown > 3
    assert auto.level == 1


def test_auto_stays_low_where_more_in_flight_bring_nothing() -> None:
    # Given a server that writes one batch at a time: two in flight take twice as long each
    auto = Concurrency("auto")
    levels = []
    for _ in range(1000):
        levels.append(auto.level)
        auto.note(0.1 * auto.level, full=True, failed=False)

    # Then it tries a second one now and then, and goes back
    assert max(levels) == 2
    assert levels.count(2) < 50
    assert levels.count(1) + levels.count(2) == 1000

    # When the server gets better
    for _ in range(600):
        auto.note(0.1, full=True, failed=False)
    assert auto.level == 8


def test_auto_is_halved_by_failures_and_by_rising_latency() -> None:
    auto = Concurrency("auto")
    for _ in range(100):
        auto.note(0.1, full=True, failed=False)
    auto.note(0.1, full=True, failed=True)
    assert auto.level == 4
    # Given eight in flight, a target that shares its time among them is not slow, one far beyond that is
    for _ in range(100):
        auto.note(0.1, full=True, failed=False)
    auto.note(0.1 * 8, full=True, failed=False)
    assert auto.level == 8
    auto.note(0.1 * 40, full=True, failed=False)
    assert auto.level == 4
    for _ in range(10):
        auto.note(1, full=False, failed=True)
    assert auto.level == 1


def test_auto_gets_used_to_a_target_that_stays_slower() -> None:
    auto = Concurrency("auto")
    for _ in range(30):
        auto.note(0.1, full=True, failed=False)
    for _ in range(200):
        auto.note(2.0, full=True, failed=False)
    assert auto.level > 2


def test_a_rate_of_records() -> None:
    rate = Rate(100, "records")
    assert rate.ready_at(10.0) == 10.0
    rate.spend(10.0, 50, 999_999)
    assert rate.ready_at(10.0) == 10.5
    rate.spend(10.5, 100, 0)
    assert rate.ready_at(10.6) == 11.5
    # What was not used is not saved up
    assert rate.ready_at(100.0) == 100.0
    rate.spend(100.0, 100, 0)
    assert rate.ready_at(100.0) == 101.0


def test_a_rate_of_bytes() -> None:
    rate = Rate(1000, "bytes")
    rate.spend(0.0, 1, 2500)
    assert rate.ready_at(0.0) == 2.5
