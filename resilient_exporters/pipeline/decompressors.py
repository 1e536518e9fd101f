"""Decompressors: between the bytes of a stream and its records."""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Generator, Iterator
from typing import Any, ClassVar, Final, Protocol

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.pipeline.errors import UnreadableStreamError
from resilient_exporters.pipeline.module import Module

__all__ = [
    "AutoDecompressor",
    "BZ2Decompressor",
    "BaseDecompressor",
    "NoDecompressor",
    "Source",
    "XZDecompressor",
    "ZLibDecompressor",
    "ZstdDecompressor",
]

_PLAIN: Final = 256 * 1024  # bytes in a block of what is not compressed
_PACKED: Final = 64 * 1024  # bytes read at once of what is
_BLOCK: Final = 1024 * 1024  # a small file may hold gigabytes: no more than this is unpacked at once
_HEAD: Final = 10


class Source(Protocol):
    """What a stream must have; any binary file does."""

    def read(self, size: int, /) -> bytes:
        """As many bytes, or fewer; none at the end."""

    def close(self) -> None:
        """Let go of it."""


class BaseDecompressor(Module):
    """Takes a stream as it lies at the source, and gives the bytes that it stands for."""

    family = "decompressor"

    def decompress(self, stream: Source) -> Iterator[bytes]:
        """The bytes in blocks of any size, cut anywhere.

        Raises:
            UnreadableStreamError: the stream is damaged, or something else.
        """
        raise NotImplementedError(f"{type(self).__name__} must define decompress(stream)")


class NoDecompressor(BaseDecompressor):
    """Gives the bytes as they are."""

    def decompress(self, stream: Source) -> Iterator[bytes]:
        """The bytes as they are."""
        while block := stream.read(_PLAIN):
            yield block


class _Members(BaseDecompressor):
    """A format of one or more members, one after the other, each with an end of its own."""

    kind: ClassVar[str]
    errors: ClassVar[tuple[type[Exception], ...]]
    padding: ClassVar[bool] = False  # zeros may follow: tapes and block devices leave them

    def _member(self) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define _member()")

    def _unpacked(self, member: Any, data: bytes) -> Generator[bytes, None, bytes]:
        """All that can be unpacked of the data, in bounded blocks; returns what follows the member."""
        block = member.decompress(data, _BLOCK)
        while block:
            yield block
            block = b"" if member.eof or member.needs_input else member.decompress(b"", _BLOCK)
        return bytes(member.unused_data)

    def decompress(self, stream: Source) -> Iterator[bytes]:
        """What the members hold, one after the other."""
        data = head = stream.read(_PACKED)
        member, first = None, True
        while data:
            if member is None:
                data = data if first or not self.padding else data.lstrip(b"\0")
                member = self._member() if data else None
            if member is not None:
                try:
                    data = yield from self._unpacked(member, data)
                except self.errors as error:
                    raise UnreadableStreamError(None, self._reason(head, error)) from error
                if member.eof:
                    member, first = None, False
            data = data or stream.read(_PACKED)
        if member is not None:
            raise UnreadableStreamError(None, f"the {self.kind} data ends in the middle: it was not written whole")

    def _reason(self, head: bytes, error: Exception) -> str:
        found = _kind_of(head)
        if found is type(self):
            return f"the {self.kind} data is damaged: {error}"
        other = (found or NoDecompressor).__name__
        return f"this is no {self.kind} data ({error}): use {other}, or leave it to be detected"


class ZLibDecompressor(_Members):
    """Unpacks gzip (of one or more members) and zlib; which of them it is shows in its first bytes.

    The checksum stands at the end of a member. Damage that shows only there is said then; what was read of the member
    before has gone on its way by that time.
    """

    kind = "gzip or zlib"
    errors = (zlib.error,)
    padding = True

    def _member(self) -> Any:
        return zlib.decompressobj(zlib.MAX_WBITS | 32)

    def _unpacked(self, member: Any, data: bytes) -> Generator[bytes, None, bytes]:
        while data:
            block = member.decompress(data, _BLOCK)
            if block:
                yield block
            data = member.unconsumed_tail
        return bytes(member.unused_data)


class BZ2Decompressor(_Members):
    """Unpacks bzip2, of one or more members."""

    kind = "bzip2"
    errors = (OSError,)

    def _member(self) -> Any:
        return bz2.BZ2Decompressor()


class XZDecompressor(_Members):
    """Unpacks xz and the older lzma, of one or more members."""

    kind = "xz"
    errors = (lzma.LZMAError,)
    padding = True

    def _member(self) -> Any:
        return lzma.LZMADecompressor()


class ZstdDecompressor(_Members):
    """Unpacks Zstandard, of one or more frames. Needs the extra ``fast``.

    Raises:
        MissingModuleError: zstandard is not installed.
    """

    kind = "Zstandard"
    _step: ClassVar[int] = 256  # unpacks to 8 MB at most: the library bounds nothing itself

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            import zstandard
        except ModuleNotFoundError as error:
            raise MissingModuleError(None, "Zstandard needs: pip install 'resilient-exporters[fast]'") from error
        self._library = zstandard
        self.errors = (zstandard.ZstdError,)  # type: ignore[misc]  # known only once the optional package is there

    def _member(self) -> Any:
        return self._library.ZstdDecompressor().decompressobj()

    def _unpacked(self, member: Any, data: bytes) -> Generator[bytes, None, bytes]:
        blocks: list[bytes] = []
        size = at = 0
        while at < len(data) and not member.eof:
            block = member.decompress(data[at : at + self._step])
            at += self._step
            blocks.append(block)
            size += len(block)
            if size > _BLOCK:
                yield b"".join(blocks) if len(blocks) > 1 else block
                blocks, size = [], 0
        yield b"".join(blocks)
        return bytes(member.unused_data) + data[at:] if member.eof else b""


class AutoDecompressor(BaseDecompressor):
    """Finds out by the first bytes what a stream is; what readers use where no decompressor is given.

    Args:
        name: of the stream. Its ending tells what is expected: a ``.gz`` that is none is an error, not text.
    """

    def __init__(self, *args: Any, name: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = name

    def decompress(self, stream: Source) -> Iterator[bytes]:
        """The bytes that it stands for."""
        head = b""
        while len(head) < _HEAD and (more := stream.read(_PACKED)):
            head += more
        found = _kind_of(head)
        expected = next((cls for ending, cls in _ENDINGS.items() if self.name.lower().endswith(ending)), None)
        if head and found is None and expected is not None:
            raise UnreadableStreamError(
                None,
                f"the name says {getattr(expected, 'kind', '')}, the first bytes ({head[:4]!r}) do not: it is damaged, "
                "or else give NoDecompressor",
            )
        yield from (found or NoDecompressor)().decompress(_Rejoined(head, stream))


class _Rejoined:
    """A stream of which the beginning has been read."""

    def __init__(self, head: bytes, rest: Source) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        head, self._head = self._head[:size], self._head[size:]
        return head or self._rest.read(size)

    def close(self) -> None:
        self._rest.close()


# RFC 1952 2.3.1; RFC 1950 2.2 (the usual window of 32 KB; none of these second bytes is one of a text); bzip2's, xz's
# and lzma's own descriptions; RFC 8878 3.1.1.
_MAGIC: Final[dict[re.Pattern[bytes], type[BaseDecompressor]]] = {
    re.compile(rb"\x1f\x8b|\x78[\x01\x9c\xda]"): ZLibDecompressor,
    re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)"): BZ2Decompressor,
    re.compile(rb"\xfd7zXZ\x00|\x5d\x00\x00"): XZDecompressor,
    re.compile(rb"\x28\xb5\x2f\xfd"): ZstdDecompressor,
}
_ENDINGS: Final[dict[str, type[BaseDecompressor]]] = {
    ".gz": ZLibDecompressor,
    ".gzip": ZLibDecompressor,
    ".zlib": ZLibDecompressor,
    ".bz2": BZ2Decompressor,
    ".lzma": XZDecompressor,
    ".xz": XZDecompressor,
    ".zst": ZstdDecompressor,
    ".zstd": ZstdDecompressor,
}


def _kind_of(head: bytes) -> type[BaseDecompressor] | None:
    return next((cls for magic, cls in _MAGIC.items() if magic.match(head)), None)


def base_name(name: str) -> str:
    """The name of a stream without the ending of its compression."""
    lower = name.lower()
    ending = next((ending for ending in _ENDINGS if lower.endswith(ending)), "")
    return name[: len(name) - len(ending)]
