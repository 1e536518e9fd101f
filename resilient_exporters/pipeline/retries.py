"""Retries of readers and writers: the one RetryPolicy, because a run has to end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar, cast

from resilient_exporters import retrying as shared
from resilient_exporters.policy import RetryPolicy
from resilient_exporters.retrying import disabled

__all__ = ["LONG", "SHORT", "Stopped", "disabled", "retrying", "stop_waiting"]

LONG = RetryPolicy.long
SHORT = RetryPolicy.short
log = logging.getLogger("export-pipeline")

_T = TypeVar("_T")
_stop = threading.Event()


class Stopped(BaseException):
    """The run is to stop, and waits for another attempt. No failure, and nothing for ``except Exception``."""


def stop_waiting(stop: bool = True) -> None:
    """End the waits of all retries in this process, and let no new one begin; False: let them wait again."""
    if stop:
        _stop.set()
    else:
        _stop.clear()


def wait(seconds: float) -> None:
    """Wait for another attempt.

    Raises:
        Stopped: the run is to stop.
    """
    if _stop.wait(seconds):
        raise Stopped


def retrying(
    function: Callable[[], _T],
    what: str,
    policy: RetryPolicy = SHORT,
    *,
    errors: type[BaseException] | tuple[type[BaseException], ...] = Exception,
    unless: tuple[type[BaseException], ...] = (),
    sleep: Callable[[float], None] = wait,
) -> _T:
    """Call a function until it works, or the policy gives up.

    Args:
        function: without arguments; may be called several times.
        what: for the log: what is being done.
        policy: waits and attempts.
        errors: what is worth another attempt; any other exception goes through at once.
        unless: which of these are not.
        sleep: waits so many seconds.

    Raises:
        BaseException: what the last attempt raised.
        Stopped: the run is to stop.
    """
    if not unless:
        return shared.retrying(function, what, policy, log=log, errors=errors, sleep=sleep)
    hopeless: list[BaseException] = []

    def guarded() -> _T | None:
        try:
            return function()
        except unless as error:
            hopeless.append(error)
            return None

    value = shared.retrying(guarded, what, policy, log=log, errors=errors, sleep=sleep)
    if hopeless:
        raise hopeless[0]
    return cast("_T", value)
