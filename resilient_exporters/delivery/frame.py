"""Frames: how one record lies in the ring and in a block.

A frame is 8 bytes of head and the payload::

    u32  length of the payload | flags
    u32  crc32(payload) xor the low 32 bits of the record's offset

The offset in the checksum tells a frame from the remains of an earlier lap of the ring, which would be whole but
for another place. The same bytes go from the ring to disk: nothing is encoded twice.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["ELSEWHERE", "FLAGS", "HEAD", "HEAD_SIZE", "LENGTH", "OPTIONS", "ROUTED", "WRAP", "Frame", "frame", "scan"]

HEAD = struct.Struct("<II")
HEAD_SIZE = HEAD.size
LENGTH = 0x1FFF_FFFF
OPTIONS = 0x8000_0000
"""The payload is a pair: the record and the keywords that were sent with it."""
ROUTED = 0x4000_0000
"""The payload is a record for one target only, under an id of its own (a dead letter replayed)."""
ELSEWHERE = 0x2000_0000
"""Empty: the record was too large for the ring and is a block of its own in the spool."""
FLAGS = OPTIONS | ROUTED | ELSEWHERE
WRAP = 0xFFFF_FFFF
"""In place of a length: the ring goes on at its beginning."""

_LOW = 0xFFFF_FFFF
_SEARCH = 1 << 16  # how far past a damaged frame the next whole one is looked for
_SKIP = 4096  # how many records may be missing in between


class Frame(NamedTuple):
    """One whole frame found by ``scan``: its record's offset, its flags, and where its payload lies."""

    offset: int
    flags: int
    start: int
    stop: int


def frame(payload: bytes, offset: int, flags: int = 0) -> bytes:
    """The bytes of one frame."""
    return HEAD.pack(len(payload) | flags, zlib.crc32(payload) ^ (offset & _LOW)) + payload


def scan(data: memoryview, position: int, end: int, offset: int, *, known: int | None = None) -> Iterator[Frame]:
    """Walk the whole frames of ``data[position:end]``, the first of which should be the record ``offset``.

    A damaged frame is stepped over: by its own length where the next frame proves that right, else by looking for
    the next frame whose checksum fits a later offset. Offsets that are missing between two results were damaged.

    Args:
        known: up to where frames are known to have been; damage is only searched past before it. Where the data
            just ends (the fresh end of a ring) there is nothing to look for.
    """
    known = end if known is None else known
    unpack, crc32 = HEAD.unpack_from, zlib.crc32
    while position + HEAD_SIZE <= end:
        word, check = unpack(data, position)
        if word == WRAP:
            return
        start = position + HEAD_SIZE
        stop = start + (word & LENGTH)
        if stop <= end and crc32(data[start:stop]) ^ (offset & _LOW) == check and (stop > start or word):
            yield Frame(offset, word & FLAGS, start, stop)
            position, offset = stop, offset + 1
            continue
        found = _next_whole(data, position, min(known, end), offset) if position < known else None
        if found is None:
            return
        position, offset = found


def _next_whole(data: memoryview, position: int, end: int, offset: int) -> tuple[int, int] | None:
    for candidate in range(position, min(position + _SEARCH, end - HEAD_SIZE + 1)):
        word, check = HEAD.unpack_from(data, candidate)
        stop = candidate + HEAD_SIZE + (word & LENGTH)
        if stop > end or not word or word == WRAP:
            continue
        ahead = (check ^ zlib.crc32(data[candidate + HEAD_SIZE : stop]) ^ (offset & _LOW)) & _LOW
        # The xor of both offsets' low bits; a small step ahead must give back exactly this pattern.
        later = offset ^ ahead
        if offset < later <= offset + _SKIP:
            return candidate, later
    return None
