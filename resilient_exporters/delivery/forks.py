"""Work that a fork must not cut in two.

SQLite holds locks of the whole process for moments in each call. A child that is forked in such a moment waits for
ever at its own first call, because the thread that would let go of them is not there.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from types import TracebackType
from typing import Final

__all__ = ["Whole"]

_PATIENCE: Final = 0.5  # a disk may stand still; in that, no lock of the process is held, as far as one can know
_all: weakref.WeakSet[Whole] = weakref.WeakSet()
_forking = threading.local()


class Whole:
    """A context: while a thread is in it, ``os.fork`` in another one waits, for half a second in all at most."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        _all.add(self)

    def __reduce__(self) -> tuple[type[Whole], tuple[()]]:
        return Whole, ()  # one of its own, where an exporter is pickled for another process

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lock.release()


def _before() -> None:
    deadline = time.monotonic() + _PATIENCE
    _forking.held = []
    for one in sorted(_all, key=id):  # two that fork at once take them in one order
        if one.lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            _forking.held.append(one)


def _in_parent() -> None:
    for one in reversed(_forking.held):
        one.lock.release()
    _forking.held = []


def _in_child() -> None:
    _forking.held = []
    for one in list(_all):
        one.lock = threading.RLock()  # whoever held it is not here


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
