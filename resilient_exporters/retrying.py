"""Calling something until it works or a RetryPolicy gives up: for what has an end, a run of a pipeline or of a job."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from resilient_exporters.policy import RetryPolicy

__all__ = ["disabled", "retrying"]

_T = TypeVar("_T")
_lock = threading.Lock()
_off = {"by": 0}  # how many have them switched off


@contextlib.contextmanager
def disabled(off: bool = True) -> Iterator[None]:
    """Within it everything is tried once only, in all threads of the process."""
    with _lock:
        _off["by"] += off
    try:
        yield
    finally:
        with _lock:
            _off["by"] -= off


def retrying(
    function: Callable[[], _T],
    what: str,
    policy: RetryPolicy,
    *,
    log: logging.Logger,
    errors: type[BaseException] | tuple[type[BaseException], ...] = Exception,
    sleep: Callable[[float], None] = time.sleep,
) -> _T:
    """Call a function until it works, or the policy gives up.

    Args:
        function: without arguments; may be called several times.
        what: for the log: what is being done.
        policy: waits and attempts.
        log: told of each attempt that failed and is repeated.
        errors: what is worth another attempt; any other exception goes through at once. Where it has ``after``, as
            ``RetryableError`` has, the wait is at least that long.
        sleep: waits so many seconds.

    Raises:
        BaseException: what the last attempt raised.
    """
    begun, attempt = time.monotonic(), 0
    while True:
        attempt += 1
        try:
            return function()
        except errors as error:
            wait = policy.delay(attempt, after=getattr(error, "after", None), error=error)
            if _off["by"] or policy.gives_up(attempt, time.monotonic() - begun, upcoming=wait, error=error):
                raise
            log.warning("%s failed (%r), attempt %d; again in %g s", what, error, attempt, wait)
            sleep(wait)
