"""Frames: how one record lies in the ring and in a block.

A frame is 8 bytes of head and the payload::

    u32  length of the payload | flags
    u32  crc32(payload) xor the flags xor the low 32 bits of the record's offset

The offset in the checksum tells a frame from the remains of an earlier lap of the ring, which would be whole but for
another place. The same bytes go from the ring to disk: nothing is encoded twice. (Adler-32 would be three times
cheaper, but lets records pass that damage has pieced together of others like them.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from resilient_exporters.delivery.checksum import crc32_function

__all__ = [
    "ELSEWHERE", "FLAGS", "HEAD", "HEAD_SIZE", "LENGTH", "OPTIONS", "ROUTED", "WRAP", "Frame", "frame", "payloads",
    "scan", "walk",
]  # fmt: skip

HEAD = struct.Struct("<II")
HEAD_SIZE = HEAD.size
_SIZE = struct.Struct("<I")
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
_SEARCH = 1 << 16  # how far past a damaged head the next whole frame is looked for


class Frame(NamedTuple):
    """One whole frame found by ``scan``: its record's offset, its flags, and where its payload lies."""

    offset: int
    flags: int
    start: int
    stop: int


def frame(payload: bytes, offset: int, flags: int = 0) -> bytes:
    """The bytes of one frame."""
    return HEAD.pack(len(payload) | flags, crc32_function()(payload) ^ flags ^ (offset & _LOW)) + payload


def scan(
    data: memoryview, position: int, end: int, offset: int, *, known: int | None = None, lost: int = 0
) -> Iterator[Frame]:
    """Walk the whole frames of ``data[position:end]``, the first of which should be the record ``offset``.

    A damaged frame is stepped over: by its own length where the next frame proves that right, else by looking for
    the next frame whose checksum fits a later offset. Offsets that are missing between two results were damaged.

    Args:
        data: where the frames lie.
        position, end: from where, and how far.
        offset: of the first record.
        known: up to where frames are known to have been; damage is only searched past before it. Where the data
            just ends (the fresh end of a ring) there is nothing to look for.
        lost: bytes of damage just before ``position``, which the caller stepped over.
    """
    known = end if known is None else known
    unpack, crc32 = HEAD.unpack_from, crc32_function()
    while position + HEAD_SIZE <= end:
        word, check = unpack(data, position)
        if word == WRAP:
            return
        start = position + HEAD_SIZE
        stop = start + (word & LENGTH)
        seal = word & FLAGS ^ (offset & _LOW)
        if stop <= end and (stop > start or word) and crc32(data[start:stop]) ^ seal == check:
            yield Frame(offset, word & FLAGS, start, stop)
            position, offset = stop, offset + 1
            continue
        found = _behind(data, position, end, offset)
        if found is None and position < known:
            found = _next_whole(data, position, min(known, end), offset, lost)
        if found is None:
            return
        position, offset = found


def walk(data: bytes, offset: int) -> list[Frame]:
    """The frames of data that is known to be whole (a checksum over all of it fits), without looking at each."""
    found: list[Frame] = []
    unpack, new, position, end = HEAD.unpack_from, tuple.__new__, 0, len(data)
    while position < end:
        word = unpack(data, position)[0]
        start = position + HEAD_SIZE
        position = start + (word & LENGTH)
        found.append(new(Frame, (offset, word & FLAGS, start, position)))
        offset += 1
    return found


def payloads(data: bytes, offset: int | None = None) -> list[bytes] | None:
    """The payloads of whole data in which no record is out of the ordinary; None: ``walk`` or ``scan`` tells more.

    The usual case, and the inner loop of every delivery.

    Args:
        data: the frames.
        offset: of the first record, if each checksum is to be looked at.
    """
    found: list[bytes] = []
    append, position, end = found.append, 0, len(data)
    try:
        if offset is None:
            unpack_size = _SIZE.unpack_from
            while position < end:
                # With a flag among its bits a length leads far behind the end.
                (size,) = unpack_size(data, position)
                position += HEAD_SIZE
                append(data[position : (position := position + size)])
        else:
            unpack, crc32 = HEAD.unpack_from, crc32_function()
            while position < end:
                size, check = unpack(data, position)
                position += HEAD_SIZE
                payload = data[position : (position := position + size)]
                if not size or crc32(payload) ^ (offset & _LOW) != check:
                    return None
                append(payload)
                offset += 1
    except struct.error:
        return None
    return found if position == end else None


def _behind(data: memoryview, position: int, end: int, offset: int) -> tuple[int, int] | None:
    """Where the frame behind a damaged one begins, if the length of that is right: a whole ``offset + 1`` proves it."""
    stop = position + HEAD_SIZE + (HEAD.unpack_from(data, position)[0] & LENGTH)
    return (stop, offset + 1) if _is_whole(data, stop, end, offset + 1) else None


def _next_whole(data: memoryview, position: int, end: int, offset: int, lost: int) -> tuple[int, int] | None:
    """Look byte by byte for a frame whose checksum fits a later offset.

    So many places are tried that one fitting checksum is not beyond chance: there must be as many bytes before it as
    the missing frames take at least, and a whole frame (or the end) behind it.
    """
    crc32 = crc32_function()
    # A flip in a checksum makes a frame look like one of another offset: the damaged one itself is no candidate.
    for candidate in range(position if lost else position + HEAD_SIZE, min(position + _SEARCH, end - HEAD_SIZE + 1)):
        word, check = HEAD.unpack_from(data, candidate)
        stop = candidate + HEAD_SIZE + (word & LENGTH)
        if stop > end or not word or word == WRAP:
            continue
        if stop - candidate > _SEARCH and not _may_begin(data, stop, end):
            continue  # spares the checksum of megabytes at places where nothing begins
        ahead = (check ^ crc32(data[candidate + HEAD_SIZE : stop]) ^ (word & FLAGS) ^ (offset & _LOW)) & _LOW
        # The xor of both offsets' low bits; a small step ahead must give back exactly this pattern.
        later = offset ^ ahead
        missing = later - offset
        if 1 <= missing <= max(1, (lost + candidate - position) // HEAD_SIZE) and (
            _ends(data, stop, end) or _is_whole(data, stop, end, later + 1)
        ):
            return candidate, later
    return None


def _is_whole(data: memoryview, position: int, end: int, offset: int) -> bool:
    if position + HEAD_SIZE > end:
        return False
    word, check = HEAD.unpack_from(data, position)
    start = position + HEAD_SIZE
    stop = start + (word & LENGTH)
    seal = word & FLAGS ^ (offset & _LOW)
    return bool(word) and stop <= end and crc32_function()(data[start:stop]) ^ seal == check


def _ends(data: memoryview, position: int, end: int) -> bool:
    return position + HEAD_SIZE > end or HEAD.unpack_from(data, position)[0] == WRAP


def _may_begin(data: memoryview, position: int, end: int) -> bool:
    return _ends(data, position, end) or (position + HEAD_SIZE + (HEAD.unpack_from(data, position)[0] & LENGTH) <= end)
