"""Rows of the spool that are no blocks of records: each of their parts has a checksum of its own."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from resilient_exporters.delivery.frame import HEAD_SIZE, frame, scan

__all__ = ["seal", "unseal"]

_COUNT = struct.Struct("<I")


def seal(parts: Sequence[bytes]) -> bytes:
    """The bytes of a row."""
    return _COUNT.pack(len(parts)) + b"".join(frame(part, at) for at, part in enumerate(parts))


def unseal(row: bytes) -> list[bytes | None]:
    """The parts of a row in their order; None for one that is not as it was written."""
    data, found = memoryview(row), dict[int, bytes]()
    for one in scan(data, _COUNT.size, len(row), 0):
        found[one.offset] = bytes(data[one.start : one.stop])
    count = _COUNT.unpack_from(row)[0] if len(row) >= _COUNT.size else -1
    if not len(found) <= count <= len(row) // HEAD_SIZE or any(at >= count for at in found):
        count = max(found, default=-1) + 2  # it is the count that was hit: nobody knows what else there was
    return [found.get(at) for at in range(count)]
