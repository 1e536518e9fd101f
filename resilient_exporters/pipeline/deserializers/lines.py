"""Deserializers of streams with a record in each line."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from resilient_exporters.pipeline.deserializers.base import BaseDeserializer, Lot, Unreadable, check_line_encoding
from resilient_exporters.pipeline.option import Option
from resilient_exporters.units import parse_count, parse_size

__all__ = ["BaseLineDeserializer", "JsonLinesDeserializer", "LineSplitter", "TextLinesDeserializer"]

_HEAD: Final = 200  # bytes that are kept of a line that is too long
_LOT: Final = 2000  # lines decoded at once: the objects of a lot are in memory together


class BaseLineDeserializer(BaseDeserializer):
    """Makes a record of each line. Lines end with a newline character, and with no other."""

    supported_options = {
        "max_line": Option(
            type=(int, str), default="64 MB",
            check=lambda value: parse_count(parse_size(value, "max_line"), "max_line"),
            help="Longer lines are bad records, and are not kept in memory.",
        ),
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._longest = parse_size(self.read_option("max_line"), "max_line")

    def splitter(self) -> LineSplitter:
        """For a stream that is read piece by piece."""
        return LineSplitter(self._longest)

    def lots(self, blocks: Iterable[bytes], skip: int = 0) -> Iterator[Lot]:
        """The lines, some at a time."""
        splitter = self.splitter()
        for lines in itertools.chain(map(splitter.feed, blocks), map(LineSplitter.end, (splitter,))):
            if skip >= len(lines):
                skip -= len(lines)
                continue
            for start in range(skip, len(lines), _LOT):
                yield self.lot(lines[start : start + _LOT])
            skip = 0

    def lot(self, lines: list[Any]) -> Lot:
        """The records of some lines, each bytes without its end, or ``Unreadable``."""
        raise NotImplementedError(f"{type(self).__name__} must define lot(lines)")


class LineSplitter:
    """Cuts bytes into lines.

    Args:
        longest: bytes of a line that is kept; a longer one becomes ``Unreadable`` with its beginning.

    Attributes:
        held: bytes of the line that has not ended.
    """

    def __init__(self, longest: int) -> None:
        self.held = 0
        self._longest = longest
        self._pieces: list[bytes] = []

    def feed(self, block: bytes) -> list[Any]:
        """The lines that end in this block."""
        lines: list[Any] = block.split(b"\n")
        last = lines.pop()
        if lines and self.held:
            lines[0] = self._joined(lines[0])
        if len(block) > self._longest:
            lines = [self._kept(line) for line in lines]
        if last:
            self.held += len(last)
            if self.held <= self._longest or not self._pieces:
                self._pieces.append(last if self.held <= self._longest else last[:_HEAD])
        return lines

    def end(self) -> list[Any]:
        """The line that has no end, if there is one."""
        return [self._joined(b"")] if self.held else []

    def _joined(self, last: bytes) -> Any:
        line, size = b"".join((*self._pieces, last)), self.held + len(last)
        self._pieces, self.held = [], 0
        return line if size <= self._longest else self._too_long(line, size)

    def _kept(self, line: Any) -> Any:
        return line if isinstance(line, Unreadable) or len(line) <= self._longest else self._too_long(line, len(line))

    def _too_long(self, line: bytes, size: int) -> Unreadable:
        return Unreadable(line[:_HEAD], f"the line has {size} bytes, max_line={self._longest}", size)


class JsonLinesDeserializer(BaseLineDeserializer):
    """Reads JSON lines: an object in each line. Values are those that Python's ``json`` gives."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._decode = msgspec.json.Decoder(dict).decode

    def lot(self, lines: list[Any]) -> Lot:
        """The objects of some lines."""
        try:
            return Lot(list(map(self._decode, lines)))
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError, RecursionError):
            return Lot([self._one(line) for line in lines], clean=False, unit="line")

    def _one(self, line: Any) -> Any:
        if isinstance(line, Unreadable):
            return line
        try:
            return self._decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if not line.strip():
                return None
        try:
            found = json.loads(line)  # NaN, Infinity, 1e999, a lone surrogate: json knows them, the standard does not
        except (ValueError, RecursionError) as error:
            return Unreadable(line, error)
        if isinstance(found, dict):
            return found
        return Unreadable(line, f"the line is no object but a {type(found).__name__}")


class TextLinesDeserializer(BaseLineDeserializer):
    """Makes of each line of text a record ``{"line": text}``; blank lines are left out."""

    supported_options = {
        "encoding": Option(type=str, default="utf-8", check=check_line_encoding, help="Of the text."),
    }

    def lot(self, lines: list[Any]) -> Lot:
        """The texts of some lines."""
        return Lot([self._one(line) for line in lines], clean=False, unit="line")

    def _one(self, line: Any) -> Any:
        if isinstance(line, Unreadable):
            return line
        try:
            text = line.removesuffix(b"\r").decode(self.read_option("encoding"))
        except UnicodeDecodeError as error:
            return Unreadable(line, error)
        return {"line": text} if text else None
