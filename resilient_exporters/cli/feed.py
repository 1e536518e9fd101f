"""The lines of stdin, until it ends or a signal says so."""

from __future__ import annotations

import io
import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FORMATS", "Feed", "Parser"]

FORMATS = ("auto", "lines", "json")
_CHUNK = 1 << 16


class Feed:
    """Numbered lines of a stream. SIGINT and SIGTERM end it between two lines, never within one.

    What was read is handed out before it ends, so that no line is taken from the producer and lost.

    Args:
        stream: binary.
        stopped: called, in the signal's handler, when a signal came. It must not wait.

    Attributes:
        signal: the name of the signal that ended it, or "".
        unfinished: bytes after the last newline that were left when a signal came.
    """

    def __init__(self, stream: IO[bytes], stopped: Callable[[], None]) -> None:
        self._stream = stream
        self._stopped = stopped
        self._handlers: dict[signal.Signals, Any] = {}
        self.signal: str = ""
        self.unfinished = 0

    def __enter__(self) -> Self:
        # A signal writes a byte here, so that waiting for input ends: there is no moment at which it goes unseen.
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._waker_before = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                self._handlers[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._waker_before)
        os.close(self._wake)
        os.close(self._waker)

    def _stop(self, number: int, _: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        self._stopped()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        try:
            descriptor = self._stream.fileno()
        except (OSError, io.UnsupportedOperation):
            yield from enumerate((line.removesuffix(b"\n") for line in self._stream), 1)
            return
        number, rest = 0, bytearray()
        while True:
            ready, _, _ = select.select([descriptor, self._wake], [], [])
            if self.signal:
                break
            if descriptor not in ready:
                os.read(self._wake, _CHUNK)  # a signal that is not ours
                continue
            data = os.read(descriptor, _CHUNK)
            if not data:
                if rest:
                    yield number + 1, bytes(rest)
                return
            rest += data
            if b"\n" in data:
                *lines, last = bytes(rest).split(b"\n")
                rest = bytearray(last)
                for line in lines:
                    number += 1
                    yield number, line
        self.unfinished = len(rest)


class Parser:
    """Lines to records.

    Args:
        kind: "lines": each line is a text. "json": each line is a JSON value, empty ones are passed over. "auto":
            JSON if the first line that is not empty is a JSON object or list, else text.
        encoding: of text.
    """

    def __init__(self, kind: str, encoding: str) -> None:
        self.kind = kind
        self._encoding = encoding

    def parse(self, line: bytes) -> Any:
        """The record of a line; None if it holds none.

        Raises:
            ValueError: it is not what it should be; the text says why.
        """
        try:
            text = line.decode(self._encoding)
        except UnicodeDecodeError as error:
            raise ValueError(f"not {self._encoding} ({error.reason} at byte {error.start}): give --encoding") from error
        if self.kind == "auto":
            if not text.strip():
                return None
            self.kind = "json" if _is_container(text) else "lines"
        if self.kind == "lines":
            return text.removesuffix("\r")
        if not text.strip():
            return None
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"no JSON: {error.msg} at column {error.colno}") from error
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if value is None:
            raise ValueError("null is no record")
        return value


def _is_container(text: str) -> bool:
    try:
        return text.lstrip()[:1] in ("{", "[") and isinstance(json.loads(text), (dict, list))
    except (ValueError, RecursionError):
        return False
