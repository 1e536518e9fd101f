"""A server is asked something: again while it cannot answer, until the run is to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from resilient_exporters.errors import InvalidConfigError
from resilient_exporters.pipeline.errors import PipelineError
from resilient_exporters.pipeline.retries import SHORT, retrying

__all__ = ["StopAsked", "ask"]

_LOOK: Final = 0.1
_T = TypeVar("_T")


class StopAsked(Exception):
    """The run is to stop, and the server has not answered yet. Never leaves a reader."""


class _Passing(Exception):
    """What may be gone at the next attempt."""


def ask(
    question: Callable[[], _T],
    what: str,
    *,
    passing: Callable[[Exception], bool],
    reason: Callable[[Exception], str],
    stopping: Callable[[], bool],
) -> _T:
    """The answer.

    Args:
        question: without arguments; may be called several times.
        what: of whom, and what for, without secrets.
        passing: whether an exception is worth another attempt.
        reason: an exception in words.
        stopping: whether the run is asked to stop.

    Raises:
        PipelineError: it cannot be had.
        InvalidConfigError: the question cannot be asked.
        StopAsked: the run is to stop.
    """

    def once() -> _T:
        try:
            return question()
        except (PipelineError, InvalidConfigError):
            raise
        except Exception as error:
            if passing(error):
                raise _Passing(reason(error)) from error
            raise PipelineError(None, f"{what}: {reason(error)}") from error

    def sleep(seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if stopping():
                raise StopAsked
            time.sleep(min(_LOOK, left))

    try:
        return retrying(once, what, SHORT, errors=_Passing, sleep=sleep)
    except _Passing as error:
        raise PipelineError(None, f"{what}: {error}") from error.__cause__
