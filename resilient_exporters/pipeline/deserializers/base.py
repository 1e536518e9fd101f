"""What every deserializer is."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from resilient_exporters.pipeline.errors import UnreadableStreamError
from resilient_exporters.pipeline.module import Module

__all__ = ["ROWS", "BaseDeserializer", "Lot", "RawBlocks", "Unreadable", "check_encoding", "check_line_encoding"]

ROWS: Final = 1000
"""Rows or messages in a lot."""


class Unreadable(msgspec.Struct, frozen=True):
    """What stands in a lot in the place of a record that cannot be read.

    Attributes:
        data: the bytes or texts that should have been one.
        error: what is wrong with them.
        size: bytes that it takes in the stream, where that is more than those in ``data``.
    """

    data: Any
    error: Any
    size: int = 0


class Lot(msgspec.Struct):
    """Some units of a stream (lines, rows, messages) in their order.

    Attributes:
        found: a dict or an ``Unreadable`` for each unit; None for an empty one (a blank line).
        clean: all of them are dicts.
        unit: what one is, for people.
    """

    found: list[Any]
    clean: bool = True
    unit: str = "record"


class BaseDeserializer(Module):
    """Makes records of the bytes of a stream.

    A subclass writes ``deserialize``; or ``lots``, which is faster and can put bad records aside.
    """

    family = "deserializer"

    def deserialize(self, blocks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        """The records of a stream.

        Args:
            blocks: its bytes, cut anywhere.

        Raises:
            UnreadableStreamError: what is no record.
        """
        for lot in self.lots(blocks):
            for one in lot.found:
                if isinstance(one, Unreadable):
                    raise UnreadableStreamError(None, f"{one.error}: {one.data!r:.200}")
                if one is not None:
                    yield one

    def lots(self, blocks: Iterable[bytes], skip: int = 0) -> Iterator[Lot]:
        """The units of a stream, some at a time, without the first ones.

        Args:
            blocks: its bytes, cut anywhere.
            skip: units to leave out; always the same ones for the same bytes.

        Raises:
            UnreadableStreamError: nothing more can be read of it.
        """
        if type(self).deserialize is BaseDeserializer.deserialize:
            raise NotImplementedError(f"{type(self).__name__} must define deserialize(blocks) or lots(blocks, skip)")
        records: Iterator[Any] = itertools.islice(self.deserialize(blocks), skip, None)
        while found := list(itertools.islice(records, ROWS)):
            yield Lot([one if isinstance(one, dict) else Unreadable(one, "no mapping") for one in found], clean=False)


class RawBlocks(io.RawIOBase):
    """Blocks of bytes as a file.

    Attributes:
        error: what went wrong in getting them: a library must not turn that into an error of the data.
    """

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._held = memoryview(b"")
        self.error: Exception | None = None

    def readable(self) -> bool:
        """It can be read."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Some of the bytes, none at the end."""
        while not self._held:
            try:
                self._held = memoryview(next(self._blocks))
            except StopIteration:
                return 0
            except Exception as error:
                self.error = error
                raise
        size = min(len(buffer), len(self._held))
        buffer[:size] = self._held[:size]
        self._held = self._held[size:]
        return size


def check_encoding(value: str) -> None:
    """Whether it is an encoding of text.

    Raises:
        ValueError: it is not.
    """
    try:
        "a\n".encode(value)  # codecs know base64 and the like, too, which are none of text
    except (LookupError, ValueError) as error:
        raise ValueError(f"{error}; give one that Python knows") from error


def check_line_encoding(value: str) -> None:
    """Whether it is an encoding of text in which lines end with one byte, a newline.

    Raises:
        ValueError: it is not.
    """
    check_encoding(value)
    if "a\n".encode(value)[-1:] != b"\n" or len("\n".encode(value)) != 1:
        raise ValueError("lines end otherwise in it; CSVDeserializer reads such text, TextLinesDeserializer does not")
