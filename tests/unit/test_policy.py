"""The retry policy: tenacity's strategies as values."""

from __future__ import annotations

import dataclasses
import logging
import math
from datetime import timedelta
from typing import Any

import pytest
import tenacity

from resilient_exporters.errors import InvalidConfigError
from resilient_exporters.policy import FALLBACK_WAIT, RetryPolicy


def waits(policy: RetryPolicy, count: int = 8) -> list[float]:
    return [policy.delay(attempt) for attempt in range(1, count + 1)]


def attempts(policy: RetryPolicy) -> int:
    return next(attempt for attempt in range(1, 1000) if policy.gives_up(attempt, 0))


def test_the_default_waits_at_random_in_a_window_that_doubles_and_never_gives_up() -> None:
    # Given the default policy
    policy = RetryPolicy()
    # When it is asked often
    for attempt, window in ((1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (10**6, 300)):
        delays = [policy.delay(attempt) for _ in range(200)]
        # Then the waits fill the window, and stay in it
        assert 0 <= min(delays) < window / 4
        assert window * 3 / 4 < max(delays) <= window
    assert not policy.gives_up(10**9, 1e9)


def test_the_presets_have_the_attempts_and_waits_of_the_original_pipeline() -> None:
    assert waits(RetryPolicy.short, 9) == [2, 4, 8, 10, 10, 10, 10, 10, 10]
    assert attempts(RetryPolicy.short) == 10
    assert waits(RetryPolicy.long, 7) == [10, 20, 40, 80, 160, 320, 640]
    assert attempts(RetryPolicy.long) == 8


def test_what_the_server_asks_counts_if_it_is_longer() -> None:
    policy = RetryPolicy(wait=5)
    assert [policy.delay(1, after=after) for after in (None, 0, 3, 60.5, -1)] == [5, 5, 5, 60.5, 5]


@pytest.mark.parametrize(
    ("wait", "expected"),
    [
        (tenacity.wait_fixed(3), [3, 3, 3, 3]),
        (tenacity.wait_none(), [0, 0, 0, 0]),
        (tenacity.wait_incrementing(start=5, increment=5), [5, 10, 15, 20]),
        (tenacity.wait_exponential(multiplier=2, max=10), [2, 4, 8, 10]),
        (tenacity.wait_fixed(1) + tenacity.wait_incrementing(1, 1), [2, 3, 4, 5]),
        (tenacity.wait_combine(tenacity.wait_fixed(1), tenacity.wait_fixed(2)), [3, 3, 3, 3]),
        (tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(7)), [1, 7, 7, 7]),
        (tenacity.wait_exponential_jitter(multiplier=1, jitter=0), [1, 2, 4, 8]),
        (tenacity.wait_random(2, 2), [2, 2, 2, 2]),
        (lambda retry_state: retry_state.attempt_number * 0.5, [0.5, 1, 1.5, 2]),
        (4, [4, 4, 4, 4]),
        (timedelta(seconds=90), [90, 90, 90, 90]),
        (0, [0, 0, 0, 0]),
    ],
)
def test_every_wait_of_tenacity_is_a_value(wait: Any, expected: list[float]) -> None:
    assert waits(RetryPolicy(wait), 4) == expected


def test_a_wait_may_look_at_the_error() -> None:
    policy = RetryPolicy(tenacity.wait_exception(lambda error: 7 if isinstance(error, OSError) else 1))
    assert policy.delay(1, error=OSError()) == 7
    assert policy.delay(1) == 1
    assert RetryPolicy(tenacity.wait_exception(lambda error: error.after)).delay(1, after=9) == 9  # type: ignore[attr-defined] # ours has it


@pytest.mark.parametrize(
    ("stop", "answers"),
    [
        (None, [False, False, False]),
        (2, [False, True, True]),
        (tenacity.stop_after_attempt(3), [False, False, True]),
        (tenacity.stop_after_delay(20), [False, True, True]),
        (tenacity.stop_before_delay(25), [False, True, True]),
        (tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(20), [False, True, True]),
        (tenacity.stop_after_attempt(2) & tenacity.stop_after_delay(30), [False, False, True]),
        (lambda state: state.outcome.failed and state.attempt_number > 1, [False, True, True]),
    ],
)
def test_every_stop_of_tenacity_is_a_value(stop: Any, answers: list[bool]) -> None:
    # Given attempts that failed 10, 20 and 30 s after the first one began, each with a wait of 5 s to come
    policy = RetryPolicy(stop=stop)
    assert [policy.gives_up(attempt, attempt * 10.0, upcoming=5) for attempt in (1, 2, 3)] == answers


def broken(_state: Any) -> Any:
    raise RuntimeError("a bug of the program")


@pytest.mark.parametrize("wait", [broken, lambda _: math.nan, lambda _: math.inf, lambda _: None, lambda _: "x"])
def test_a_broken_wait_does_not_stop_deliveries(wait: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert RetryPolicy(wait).delay(1) == FALLBACK_WAIT
    assert "The wait strategy" in caplog.text


def test_a_broken_stop_keeps_the_record(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not RetryPolicy(stop=broken).gives_up(5, 5)
    assert "a bug of the program" in caplog.text


def test_a_negative_wait_is_none() -> None:
    assert RetryPolicy(lambda _: -5).delay(1) == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"wait": "5"}, "wait='5' is not possible"),
        ({"wait": -1}, "wait=-1 is not possible"),
        ({"wait": True}, "wait=True is not possible"),
        ({"wait": math.inf}, "wait=inf is not possible"),
        ({"wait": tenacity.wait_fixed}, "wait=<class"),
        ({"wait": tenacity.stop_never}, "wait=<tenacity"),
        ({"stop": 0}, "stop=0 is not possible"),
        ({"stop": 1.5}, "stop=1.5 is not possible"),
        ({"stop": True}, "stop=True is not possible"),
        ({"stop": "never"}, "stop='never' is not possible"),
        ({"stop": tenacity.wait_none()}, "stop=<tenacity"),
    ],
)
def test_what_is_no_strategy_is_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        RetryPolicy(**arguments)
    assert str(caught.value).startswith(text)


def test_an_option_stands_for_a_policy() -> None:
    policy = RetryPolicy(3)
    assert RetryPolicy.parse(policy) is policy
    assert RetryPolicy.parse(None).delay(1) <= 1
    assert RetryPolicy.parse(tenacity.wait_fixed(9)).delay(1) == 9
    assert RetryPolicy.parse(9).delay(1) == 9
    for value in ("short", tenacity.stop_never, RetryPolicy, -1):
        with pytest.raises(InvalidConfigError, match=r"^retry="):
            RetryPolicy.parse(value)  # type: ignore[arg-type] # wrong on purpose


def test_a_policy_does_not_change() -> None:
    policy = RetryPolicy()
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.wait = tenacity.wait_none()  # type: ignore[misc] # frozen, as is asked here
    assert not hasattr(policy, "__dict__")
    assert dataclasses.replace(policy, stop=tenacity.stop_after_attempt(3)).gives_up(3, 0)
