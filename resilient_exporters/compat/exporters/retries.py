"""The old decorators for retries, on the one RetryPolicy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import tenacity

from resilient_exporters.pipeline.retries import LONG, SHORT, disabled, retrying
from resilient_exporters.policy import RetryPolicy

__all__ = ["disable_retries", "disabled_retries", "retry_generator", "retry_long", "retry_short"]

_F = TypeVar("_F", bound=Callable[..., Any])
_GENERATOR = RetryPolicy(tenacity.wait_incrementing(start=5, increment=5, max=3600), stop=8)

disabled_retries = disabled


def _decorator(policy: RetryPolicy) -> Callable[[_F], _F]:
    def decorate(function: _F) -> _F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return retrying(lambda: function(*args, **kwargs), function.__qualname__, policy)

        return call  # type: ignore[return-value] # it takes and gives what the function does

    return decorate


retry_short = _decorator(SHORT)
retry_long = _decorator(LONG)


def retry_generator(function: _F) -> _F:
    """Begin a generator again when it fails, and leave out what it gave already; eight attempts."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
        given = 0
        running: Iterator[Any] | None = None

        def following() -> tuple[Any, ...]:
            nonlocal running
            if running is None:
                running = iter(function(*args, **kwargs))
                for _ in range(given):
                    next(running, None)
            try:
                return (next(running),)
            except StopIteration:
                return ()
            except Exception:
                running = None
                raise

        while found := retrying(following, function.__qualname__, _GENERATOR):
            given += 1
            yield found[0]

    return call  # type: ignore[return-value] # as above


def disable_retries() -> None:
    """Switch all retries off, for good and for all threads."""
    disabled().__enter__()
