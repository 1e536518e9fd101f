"""Large files are packed by a thread while their records still come: compressing needs no Python."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from resilient_exporters.pipeline.writers.compression import Counted, compressing

__all__ = ["Packer", "Packing"]

_WAITING: Final = 2  # parts that may wait for the thread


class Packing:
    """One file that is being packed.

    Args:
        path: of the file; what lies there goes.
        compression: of the file.
        inner: name of what is in it.
        header: what it begins with.
        separator: what stands between its parts.
    """

    def __init__(self, path: Path, compression: str, inner: str, header: bytes, separator: bytes) -> None:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._stack = contextlib.ExitStack()
        self._raw = self._stack.enter_context(os.fdopen(descriptor, "wb"))
        self.target = Counted(self._raw)
        self._inside = contextlib.ExitStack()
        self._packed = self._inside.enter_context(compressing(self.target, compression, inner))
        self._packed.write(header)
        self._between, self._separator = b"", separator

    def write(self, part: bytes) -> None:
        """Some records."""
        self._packed.write(self._between)
        self._packed.write(part)
        self._between = self._separator

    def write_raw(self, part: bytes) -> None:
        """Bytes as they are."""
        self._packed.write(part)

    def finish(self, footer: bytes) -> None:
        """The end; the file is on disk."""
        with self._stack:
            self._packed.write(footer)
            self._inside.close()
            self._raw.flush()
            os.fdatasync(self._raw.fileno())

    def abandon(self) -> None:
        """It is not needed any more."""
        with self._stack:
            self._inside.close()


class Packer:
    """A thread that packs, begun when it is first needed.

    Attributes:
        packings: those begun, by number of the buffer.
    """

    def __init__(self) -> None:
        self.packings: dict[int, Packing] = {}
        self._executor: ThreadPoolExecutor | None = None
        self._waiting: deque[Future[None]] = deque()

    def feed(self, packing: Packing, parts: Iterable[bytes]) -> None:
        """Let the thread add parts; waits where it does not keep up.

        Raises:
            OSError: what went wrong with earlier ones.
        """
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="pipeline-packer")
        for part in parts:
            self._waiting.append(self._executor.submit(packing.write, part))
            while len(self._waiting) > _WAITING:
                self._waiting.popleft().result()

    def finish(self, number: int, rest: Iterable[bytes], footer: bytes) -> Counted:
        """Add the last parts, and wait for the end."""
        packing = self.packings.pop(number)
        self.feed(packing, rest)
        while self._waiting:
            self._waiting.popleft().result()
        packing.finish(footer)
        return packing.target

    def close(self) -> None:
        """End the thread; what was begun is abandoned."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None
        self._waiting.clear()
        while self.packings:
            with contextlib.suppress(OSError):  # a disk that is full: the file goes anyway
                self.packings.popitem()[1].abandon()
