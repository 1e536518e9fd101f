"""When to try again: tenacity's strategies, used as values."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar, Final, TypeAlias

import tenacity

from resilient_exporters.errors import InvalidConfigError, RetryableError
from resilient_exporters.units import parse_count, parse_seconds

__all__ = ["RetryPolicy"]

_log = logging.getLogger(__name__)

Wait: TypeAlias = Callable[[tenacity.RetryCallState], float]
Stop: TypeAlias = Callable[[tenacity.RetryCallState], bool]

#: Seconds to wait where a strategy of the program raises, or gives no number: a bug in it must not stop deliveries.
FALLBACK_WAIT: Final = 60.0


@dataclasses.dataclass(frozen=True, slots=True, init=False)
class RetryPolicy:
    """How long to wait after a failed attempt, and when to give up.

    The strategies are tenacity's ``wait_*`` and ``stop_*`` objects, also combined with ``+``, ``|``, ``&``,
    ``wait_chain`` and so on, or any callable that takes a ``tenacity.RetryCallState``. They are only asked; tenacity
    itself never calls, sleeps or raises here.

    Args:
        wait: strategy; or seconds, a fixed wait. Default None: exponential with full jitter, at random between 0 and
            1 s after the first failure, 2 s after the second, and so on up to 5 minutes. Full jitter spreads the
            clients of a server that comes back, so a single wait may be close to 0.
        stop: strategy; or a number of attempts. Default None: never, a record leaves the queue by delivery, by a
            bound, by age or by rejection.

    Raises:
        InvalidConfigError: not a strategy, a negative time, or less than one attempt.

    Attributes:
        short: 10 attempts, with waits of 2, 4, 8, 10, 10, … s.
        long: 8 attempts, with waits of 10, 20, 40, 80, … s.

    Example:
        >>> import tenacity
        >>> policy = RetryPolicy(tenacity.wait_exponential(max=60) + tenacity.wait_random(0, 1), stop=20)
    """

    wait: Wait
    stop: Stop

    short: ClassVar[RetryPolicy]
    long: ClassVar[RetryPolicy]

    def __init__(self, wait: Wait | float | timedelta | None = None, stop: Stop | int | None = None) -> None:
        object.__setattr__(self, "wait", _wait_strategy(wait))
        object.__setattr__(self, "stop", _stop_strategy(stop))

    @classmethod
    def parse(cls, value: RetryPolicy | Wait | float | timedelta | None, option: str = "retry") -> RetryPolicy:
        """Return the policy that an option stands for.

        Args:
            value: a policy; None, the default one; or what ``wait`` takes.
            option: name of the option, for the error.

        Raises:
            InvalidConfigError: none of these.
        """
        if isinstance(value, RetryPolicy):
            return value
        if isinstance(value, tenacity.stop.stop_base):
            raise InvalidConfigError(f"{option}={value!r} says when to stop only; give RetryPolicy(stop=…)")
        try:
            return cls(value)
        except InvalidConfigError as error:
            raise InvalidConfigError(
                f"{option}={value!r} is not possible; give a RetryPolicy, a tenacity wait_* object, seconds, or None"
            ) from error

    def delay(self, attempt: int, *, after: float | None = None, error: BaseException | None = None) -> float:
        """Return how long to wait after a failed attempt.

        Args:
            attempt: number of the attempt that failed; the first is 1.
            after: seconds that the target asked to wait, or None. The larger of the two counts.
            error: what the attempt raised, for strategies that look at it (``tenacity.wait_exception``).

        Returns:
            Seconds, 0 or more and finite. ``FALLBACK_WAIT`` (and a warning in the log) if the strategy raises or
            gives no number.
        """
        state = _state(attempt, 0.0, error or RetryableError("the target asked to try again later", after=after))
        try:
            seconds = float(self.wait(state))
            if not math.isfinite(seconds):
                raise ValueError(f"it gave {seconds}")
        except Exception as problem:  # noqa: BLE001 - it is the program's, and it runs in the delivery thread
            _log.warning("The wait strategy %r failed, waiting %g s: %r", self.wait, FALLBACK_WAIT, problem)
            seconds = FALLBACK_WAIT
        return max(seconds, after or 0.0, 0.0)

    def gives_up(
        self, attempt: int, seconds: float, *, upcoming: float = 0.0, error: BaseException | None = None
    ) -> bool:
        """Tell whether no further attempt should follow.

        Args:
            attempt: number of the attempt that failed; the first is 1.
            seconds: time since the first attempt began.
            upcoming: wait that would come next, for ``tenacity.stop_before_delay``.
            error: what the attempt raised, for strategies that look at it.

        Returns:
            False, too (and a warning in the log), if the strategy raises: in doubt a record stays.
        """
        state = _state(attempt, seconds, error or RetryableError("the target asked to try again later"))
        state.upcoming_sleep = upcoming
        try:
            return bool(self.stop(state))
        except Exception as problem:  # noqa: BLE001 - as above
            _log.warning("The stop strategy %r failed, not stopping: %r", self.stop, problem)
            return False


def _state(attempt: int, seconds: float, error: BaseException) -> tenacity.RetryCallState:
    """Make what tenacity's strategies look at, without a ``Retrying`` around it."""
    state = tenacity.RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]  # no strategy reads it
    state.attempt_number = attempt
    state.outcome = tenacity.Future(attempt)
    state.outcome.set_exception(error)
    state.start_time, state.outcome_timestamp = 0.0, seconds  # seconds_since_start is their difference
    return state


def _wait_strategy(value: Any) -> Wait:
    if value is None:
        return tenacity.wait_random_exponential(multiplier=1, max=300)
    if isinstance(value, (int, float, timedelta)):
        seconds = parse_seconds(value, "wait")
        if math.isfinite(seconds):
            return tenacity.wait_fixed(seconds)
    elif callable(value) and not isinstance(value, (type, tenacity.stop.stop_base)):
        strategy: Wait = value
        return strategy
    raise InvalidConfigError(f"wait={value!r} is not possible; give a tenacity wait_* object, seconds, or None")


def _stop_strategy(value: Any) -> Stop:
    if value is None:
        return tenacity.stop_never
    if isinstance(value, (int, float)):
        return tenacity.stop_after_attempt(parse_count(value, "stop"))
    if callable(value) and not isinstance(value, (type, tenacity.wait.wait_base)):
        strategy: Stop = value
        return strategy
    raise InvalidConfigError(f"stop={value!r} is not possible; give a tenacity stop_* object, a number, or None")


RetryPolicy.short = RetryPolicy(tenacity.wait_exponential(multiplier=2, max=10), stop=10)
RetryPolicy.long = RetryPolicy(tenacity.wait_exponential(multiplier=10), stop=8)
