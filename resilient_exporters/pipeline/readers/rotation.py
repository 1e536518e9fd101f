"""Which file of a log that is rotated is the one that was read, and which comes after it."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

__all__ = ["Place", "Seal", "before", "find", "following"]

_SAMPLE: Final = 256  # bytes


class Place(msgspec.Struct, frozen=True):
    """Where a log was read to.

    Attributes:
        inode: of the file.
        offset: bytes read of it.
        seal: what tells the file from another one that has the same inode, or begins alike.
        mtime: its last change, in nanoseconds, as the file system says.
        before: inode of the file that came before it; 0: none.
    """

    inode: int
    offset: int
    seal: int
    mtime: int
    before: int = 0


class Seal:
    """The first bytes of a file, and the last ones before some place in it, as they were read.

    Args:
        number: of an open file.
        offset: of the place.
    """

    def __init__(self, number: int, offset: int) -> None:
        self._first = os.pread(number, min(_SAMPLE, offset), 0)
        self._last = os.pread(number, min(_SAMPLE, offset), max(offset - _SAMPLE, 0))

    def add(self, data: bytes) -> None:
        """The place is after these bytes, too."""
        if len(self._first) < _SAMPLE:
            self._first = (self._first + data)[:_SAMPLE]
        self._last = (self._last + data)[-_SAMPLE:]

    @property
    def sum(self) -> int:
        """A checksum of them."""
        return zlib.crc32(self._last, zlib.crc32(self._first))


def find(path: Path, place: Place) -> tuple[Path, int] | None:
    """The file that was read: the log itself, or what it was renamed or copied to. None: it is gone.

    Of a file of which nothing was read there is nothing to tell it by: then it is the one after that before it.
    """
    files = _files(path)
    if not place.offset:
        return following(path, place.before, place.mtime)
    holding = [(one, status.st_ino) for one, status in files if _holds(one, status, place)]
    same = [one for one in holding if one[1] == place.inode]
    return next(iter(same or holding), None)


def before(path: Path, inode: int) -> int:
    """The inode of the file that came before one; 0: there is none."""
    inodes = [0, *(status.st_ino for _, status in _files(path))]
    return inodes[inodes.index(inode) - 1] if inode in inodes else inodes[-1]


def following(path: Path, inode: int, mtime: int) -> tuple[Path, int]:
    """The file that comes after one, and its inode: by the time it is opened its name may be that of another.

    Args:
        path: of the log.
        inode: of that file; 0: there was none.
        mtime: its last change, in nanoseconds, or a later time; needed where it is gone.
    """
    files = _files(path)
    inodes = [status.st_ino for _, status in files]
    if not inode:
        rest = files
    elif inode in inodes:
        rest = files[inodes.index(inode) + 1 :]
    else:
        rest = [one for one in files if one[1].st_mtime_ns > mtime]
    return (rest[0][0], rest[0][1].st_ino) if rest else (path, 0)


def _files(path: Path) -> list[tuple[Path, os.stat_result]]:
    """What the log was before, the oldest first, and the log; what is compressed cannot be gone on with.

    While it is being rotated names move from file to file: it counts what two looks in a row have seen.
    """
    seen: list[tuple[Path, int]] = []
    while True:
        found = list(_listed(path))
        names = [(one, status.st_ino) for one, status in found]
        if names == seen:
            return found
        seen = names


def _listed(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    name = re.compile(re.escape(path.name) + r"[.\-_]\d[\dT:.\-_]*")
    found: list[tuple[Path, os.stat_result]] = []
    with os.scandir(path.parent) as entries:
        for entry in entries:
            if name.fullmatch(entry.name) or entry.name == path.name:
                status = _status(Path(entry.path))
                if status is not None:
                    found.append((path.parent / entry.name, status))
    found.sort(key=lambda one: (one[0] == path, one[1].st_mtime_ns, _age(one[0].name[len(path.name) + 1 :])))
    yield from found


def _age(ending: str) -> tuple[int, str]:
    """What tells the older of two files of the same time: the higher number, the earlier date."""
    return (-int(ending), "") if ending.isdigit() and len(ending) < 4 else (0, ending)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:  # renamed or removed just now
        return None


def _holds(path: Path, status: os.stat_result, place: Place) -> bool:
    if status.st_size < place.offset:
        return False
    try:
        with path.open("rb", buffering=0) as file:
            return Seal(file.fileno(), place.offset).sum == place.seal
    except FileNotFoundError:  # as above
        return False
