"""A write that is about to be made, and how far it came when it was cut short."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import msgspec

__all__ = ["Intent", "Standing", "read_at"]


class Standing(NamedTuple):
    """What of an intent stands in the file.

    Attributes:
        records: how many of its records are there whole; they are the first ones.
        end: where the last of them ends.
        torn: whether what follows is the rest of our own write and may be cut off.
    """

    records: int
    end: int
    torn: bool


class Intent(msgspec.Struct, frozen=True, array_like=True):
    """A write that is about to be made.

    Attributes:
        spans: the records in it: run, first offset, count. Empty for lines that come from no queue.
        inode: of the file.
        start: size of the file before the write.
        lengths: of its lines in bytes, as unsigned 32-bit numbers.
        sums: crc32 of its lines, likewise.
        counts: lines per record, likewise; empty if one each.
    """

    spans: list[tuple[str, int, int]]
    inode: int
    start: int
    lengths: bytes
    sums: bytes
    counts: bytes

    @classmethod
    def of(cls, spans: list[tuple[str, int, int]], pieces: Sequence[bytes], *, inode: int, start: int) -> Intent:
        """The intent to append ``pieces``, one per record, each of whole lines."""
        lines = pieces
        counts = b""
        if sum(piece.count(b"\n") for piece in pieces) != len(pieces):
            split = [[line + b"\n" for line in piece[:-1].split(b"\n")] for piece in pieces]
            counts = array("I", map(len, split)).tobytes()
            lines = [line for piece in split for line in piece]
        sums = array("I", map(crc32, lines)).tobytes()
        return cls(spans, inode, start, array("I", map(len, lines)).tobytes(), sums, counts)

    def standing(self, handle: int) -> Standing:
        """Compare it with the file open as ``handle``: by content, so that neither zeros nor others' lines deceive."""
        lengths, sums = array("I", self.lengths), array("I", self.sums)
        total = sum(lengths)
        size = os.fstat(handle).st_size
        data = read_at(handle, total, self.start)
        position = lines = 0
        for length, expected in zip(lengths, sums, strict=True):
            if crc32(data[position : position + length]) != expected or position + length > len(data):
                break
            position += length
            lines += 1
        records, whole = self._records(lines)
        ours = lines < len(lengths) and size <= self.start + total
        ours = ours and _is_torn(data[position:], lengths[lines:], sums[lines:])
        end = self.start + sum(lengths[:whole])
        return Standing(records, end, ours and size > end)

    def _records(self, lines: int) -> tuple[int, int]:
        """How many records, and lines of them, are in the first ``lines`` lines."""
        if not self.counts:
            return lines, lines
        records = whole = 0
        for count in array("I", self.counts):
            if whole + count > lines:
                break
            whole += count
            records += 1
        return records, whole

    def written(self, records: int) -> list[tuple[str, int, int]]:
        """The spans of its first ``records`` records."""
        spans = []
        for run, first, count in self.spans:
            if records <= 0:
                break
            spans.append((run, first, min(count, records)))
            records -= count
        return spans


def _is_torn(rest: bytes, lengths: array[int], sums: array[int]) -> bool:
    """Whether this is what a write left that was cut short: a power cut leaves any sectors of it, and zeros between.

    So each line is whole, or has zeros in it, or ends with the file. What another program wrote there has none of it.
    """
    start = 0
    for length, expected in zip(lengths, sums, strict=True):
        part = rest[start : start + length]
        is_last = len(part) < length and b"\n" not in part
        if not is_last and b"\0" not in part and crc32(part) != expected:
            return False
        start += length
    return True


def read_at(handle: int, size: int, start: int) -> bytes:
    """Up to ``size`` bytes from ``start``; fewer at the end of the file."""
    parts = []
    while size > 0 and (part := os.pread(handle, min(size, 1 << 24), start)):
        parts.append(part)
        size -= len(part)
        start += len(part)
    return b"".join(parts)
