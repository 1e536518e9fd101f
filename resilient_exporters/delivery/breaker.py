"""The breaker of one target: whether it is worth trying."""

from __future__ import annotations

import math

from resilient_exporters.policy import RetryPolicy

__all__ = ["CLOSED", "HALF_OPEN", "HELD", "OPEN", "Breaker"]

CLOSED = "closed"
OPEN = "open"
HALF_OPEN = "half-open"
HELD = "held"

_HOLD_WAIT = 60.0


class Breaker:
    """Closed: healthy. Open: waiting. Half-open: one probe is under way. Held: someone has to mend something.

    One failure opens it and one success closes it: what fails is the target, not one request. Times are those of the
    caller's monotonic clock.

    Args:
        policy: how long to wait.
        manual: an open breaker waits for ``poke``, not for time.

    Attributes:
        state: "closed", "open", "half-open" or "held".
        failures: attempts in a row that failed.
        since: when the first of them did.
        until: when the next probe may be sent.
        reason: what the last failure said.
    """

    __slots__ = ("_manual", "_mended", "_policy", "failures", "reason", "since", "state", "until")

    def __init__(self, policy: RetryPolicy, *, manual: bool = False) -> None:
        self._policy = policy
        self._manual = manual
        self._mended = False
        self.state = CLOSED
        self.failures = 0
        self.since = 0.0
        self.until = 0.0
        self.reason = ""

    def allows(self, now: float) -> bool:
        """Whether a batch may be sent now; if it is a probe, it is the only one."""
        if self.state == CLOSED:
            return True
        return self.state != HALF_OPEN and now >= self.until

    def begin(self) -> None:
        """A batch is being sent."""
        if self.state != CLOSED:
            self.state = HALF_OPEN

    def succeed(self) -> bool:
        """The target answered. Returns whether that is news."""
        news = self.state != CLOSED
        self.state = CLOSED
        self.failures = 0
        self._mended = False
        self.reason = ""
        return news

    def again(self) -> None:
        """The attempt settled nothing either way: the next one follows at once."""
        if self.state != CLOSED:
            self.state = CLOSED if not self.failures else OPEN
            self.until = 0.0

    def fail(self, now: float, reason: str, after: float | None = None, *, alone: bool = False) -> bool:
        """The target did not take it. Returns whether that is news.

        Args:
            now: the time.
            reason: what the failure said.
            after: seconds that the target asked to wait.
            alone: it takes other records, so the wait does not grow as in an outage.
        """
        if self.state == OPEN and self.failures:
            # Another batch of the same round, begun before the first one failed: one outage, one wait.
            if not self._manual and after:
                self.until = max(self.until, now + after)
            return False
        news = self.state == CLOSED
        self.failures += 1
        if self.failures == 1:
            self.since = now
        self.state = OPEN
        self.until = math.inf if self._manual else now + self._policy.delay(1 if alone else self.failures, after=after)
        self._look_again()
        self.reason = reason
        return news

    def hold(self, now: float, reason: str) -> bool:
        """Someone has to mend something. Probed slowly. Returns whether that is news."""
        news = self.state == CLOSED or reason != self.reason
        self.failures += 1
        if self.failures == 1:
            self.since = now
        self.state = HELD
        self.until = math.inf if self._manual else now + max(_HOLD_WAIT, self._policy.delay(self.failures))
        self._look_again()
        self.reason = reason
        return news

    def poke(self) -> None:
        """Probe at the next opportunity: a link came up, or someone asks."""
        if self.state in (OPEN, HELD):
            self.until = 0.0

    def mended(self) -> None:
        """What it was held for is mended. A probe that is under way may have been too early: then one more follows."""
        self._mended = self.state == HALF_OPEN
        self.poke()

    def _look_again(self) -> None:
        if self._mended:
            self._mended = False
            self.until = 0.0

    def wait_for_poke(self) -> None:
        """Manual: nothing more is sent until someone asks."""
        if self.state in (CLOSED, OPEN):
            self.state = OPEN
            self.until = math.inf

    def gives_up(self, now: float) -> bool:
        """Whether the policy's ``stop`` says that what failed is to be given up."""
        return self._policy.gives_up(self.failures, now - self.since)
