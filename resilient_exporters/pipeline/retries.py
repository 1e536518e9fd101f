"""Retries of readers and writers: the one RetryPolicy, because a run has to end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from resilient_exporters import retrying as shared
from resilient_exporters.policy import RetryPolicy
from resilient_exporters.retrying import disabled

__all__ = ["LONG", "SHORT", "disabled", "retrying"]

LONG = RetryPolicy.long
SHORT = RetryPolicy.short
log = logging.getLogger("export-pipeline")

_T = TypeVar("_T")


def retrying(
    function: Callable[[], _T],
    what: str,
    policy: RetryPolicy = SHORT,
    *,
    errors: type[BaseException] | tuple[type[BaseException], ...] = Exception,
    sleep: Callable[[float], None] = time.sleep,
) -> _T:
    """Call a function until it works, or the policy gives up.

    Args:
        function: without arguments; may be called several times.
        what: for the log: what is being done.
        policy: waits and attempts.
        errors: what is worth another attempt; any other exception goes through at once.
        sleep: waits so many seconds.

    Raises:
        BaseException: what the last attempt raised.
    """
    return shared.retrying(function, what, policy, log=log, errors=errors, sleep=sleep)
