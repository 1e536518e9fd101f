from __future__ import annotations

import math

import pytest
import tenacity

from resilient_exporters.delivery.breaker import CLOSED, HALF_OPEN, HELD, OPEN, Breaker
from resilient_exporters.policy import RetryPolicy


def breaker(*, manual: bool = False, stop: int | None = None) -> Breaker:
    """Waits 10, 20, 30, … s."""
    return Breaker(RetryPolicy(tenacity.wait_incrementing(10, 10), stop), manual=manual)


def test_one_failure_opens_it_one_probe_is_let_through_and_one_success_closes_it() -> None:
    one = breaker()
    assert (one.state, one.allows(0)) == (CLOSED, True)
    one.begin()
    assert one.state == CLOSED
    # When an attempt fails, then it waits
    assert one.fail(100, "refused") is True
    assert (one.state, one.until, one.failures, one.since, one.reason) == (OPEN, 110, 1, 100, "refused")
    assert [one.allows(at) for at in (100, 109.9, 110)] == [False, False, True]
    # When its time has come, then one probe is sent, and no other
    one.begin()
    assert (one.state, one.allows(1e9)) == (HALF_OPEN, False)
    # When that fails too, then it waits longer, and that is no news
    assert one.fail(111, "refused") is False
    assert (one.state, one.until, one.failures, one.since) == (OPEN, 131, 2, 100)
    one.begin()
    # When it succeeds, then it is as new
    assert one.succeed() is True
    assert (one.state, one.failures, one.reason) == (CLOSED, 0, "")
    assert one.succeed() is False


def test_batches_of_one_round_that_fail_together_are_one_failure() -> None:
    # Given eight batches in flight when the link goes down
    one = breaker()
    for _ in range(8):
        one.begin()
    # When all of them fail
    assert [one.fail(100 + at, "down") for at in range(8)] == [True, *[False] * 7]
    # Then the wait is that of a first failure, not of an eighth
    assert (one.failures, one.until) == (1, 110)
    # but what the server asks is honoured
    one.fail(105, "down", after=60)
    assert (one.failures, one.until) == (1, 165)


def test_what_the_server_asks_counts_if_it_is_longer() -> None:
    one = breaker()
    one.fail(0, "429", after=120)
    assert one.until == 120
    one.begin()
    one.fail(120, "429", after=1)
    assert one.until == 140


def test_a_link_that_came_up_or_somebody_who_asks_brings_the_probe_forward() -> None:
    one = breaker()
    one.poke()
    assert one.state == CLOSED
    one.fail(100, "down")
    one.poke()
    assert one.allows(100)
    one.begin()
    # A probe under way is not doubled
    one.poke()
    assert not one.allows(1e9)


def test_held_is_probed_slowly_and_says_what_to_mend() -> None:
    one = breaker()
    assert one.hold(100, "bad password") is True
    assert (one.state, one.until, one.reason, one.failures, one.since) == (HELD, 160, "bad password", 1, 100)
    assert not one.allows(159)
    one.begin()
    assert one.state == HALF_OPEN
    assert one.hold(160, "bad password") is False
    one.begin()
    assert one.hold(220, "no such database") is True
    one.failures = 9
    one.hold(300, "no such database")
    assert one.until == 400
    one.poke()
    assert one.allows(300)
    one.begin()
    assert one.succeed() is True


def test_manual_waits_for_somebody() -> None:
    one = breaker(manual=True)
    one.fail(0, "down", after=1)
    assert one.until == math.inf
    one.fail(0, "down", after=1)
    assert not one.allows(1e12)
    one.poke()
    assert one.allows(0)
    one.begin()
    one.hold(0, "bad password")
    assert one.until == math.inf
    one.begin()
    one.succeed()
    one.wait_for_poke()
    assert (one.state, one.until) == (OPEN, math.inf)
    one.poke()
    assert one.allows(0)
    one.begin()
    one.wait_for_poke()
    assert one.state == HALF_OPEN


def test_an_attempt_that_says_nothing_of_the_target_is_followed_by_the_next_at_once() -> None:
    one = breaker()
    one.again()
    assert one.state == CLOSED
    one.fail(0, "down")
    one.poke()
    one.begin()
    one.again()
    assert (one.state, one.allows(0)) == (OPEN, True)
    one.begin()
    one.failures = 0
    one.again()
    assert one.state == CLOSED


@pytest.mark.parametrize("stop", [1, 3])
def test_giving_up_is_the_policy_s(stop: int) -> None:
    one = breaker(stop=stop)
    for number in range(1, 5):
        one.fail(number, "down")
        assert one.gives_up(number) == (number >= stop)
        one.begin()
    assert not breaker().gives_up(1e9)


def test_giving_up_after_a_time_since_the_first_failure() -> None:
    one = Breaker(RetryPolicy(1, tenacity.stop_after_delay(60)))
    one.fail(1000, "down")
    one.begin()
    one.fail(1030, "down")
    assert [one.gives_up(at) for at in (1030, 1059, 1061)] == [False, False, True]


@pytest.mark.parametrize("manual", [False, True])
def test_what_is_mended_while_a_probe_is_under_way_is_probed_once_more_at_once(manual: bool) -> None:
    # Given a probe that was sent before the password was right
    one = breaker(manual=manual)
    one.hold(0, "bad password")
    one.poke()
    one.begin()

    # When
    one.mended()
    one.hold(1, "bad password")

    # Then
    assert one.allows(1)
    one.begin()
    one.hold(2, "bad password")
    assert not one.allows(2)

    # And one that is mended when nothing is under way is probed at once, and once
    one.mended()
    assert one.allows(2)
    one.begin()
    one.fail(3, "down")
    assert not one.allows(3)
