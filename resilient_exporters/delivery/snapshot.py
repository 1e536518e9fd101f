"""Snapshots: ring and database of a queue directory, read without changing or locking anything.

The program that holds the directory may go on writing meanwhile. What it moves while we look is read again.
"""

from __future__ import annotations

import mmap
import os
import shutil
import sqlite3
import stat
import tempfile
from array import array
from pathlib import Path
from urllib.parse import quote

import msgspec

from resilient_exporters.delivery.database import DAMAGE
from resilient_exporters.delivery.intake import RingState
from resilient_exporters.delivery.ring import _IDENTITY, _SLOTS_AT, SLOT_SIZE, SLOTS, Ring, ring_path
from resilient_exporters.delivery.spool import LETTERS, STATE

__all__ = ["RingUnreadable", "RowReader", "copy_ring", "ring_file"]

_CHUNK = 1 << 20


class RingUnreadable(Exception):
    """There is a ring, but it cannot be read, or it is not this queue's."""


def ring_file(directory: Path) -> Path | None:
    """Where the ring of a queue directory lies: that of its owner, who need not be us. None without tmpfs."""
    path = ring_path(directory)
    if path is None:
        return None
    prefix, _, rest = path.name.split(".", 2)
    return path.with_name(f"{prefix}.{directory.stat().st_uid}.{rest}")


def copy_ring(directory: Path) -> Ring | None:
    """A copy of a ring in memory of our own, to do with as we like; None if there is no ring.

    The cursors are read before the state of the ring, and that before the frames: whatever the owner does
    meanwhile, no cursor is ahead of the state, and the frames that the state speaks of were all written.

    Raises:
        RingUnreadable: it cannot be read, or is not this queue's.
    """
    path = ring_file(directory)
    if path is None:
        return None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RingUnreadable(f"{path}: {error.strerror}") from error
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != directory.stat().st_uid or info.st_mode & 0o077:
            raise RingUnreadable(f"{path} is not a file of the directory's owner alone")
        return _copy(handle, path, info.st_size, directory)
    finally:
        os.close(handle)


def _copy(handle: int, path: Path, size: int, directory: Path) -> Ring:
    ring = Ring(None, mmap.PAGESIZE, directory)
    if size < ring.base or not ring._identify(os.pread(handle, _IDENTITY.size, 0), size):
        raise RingUnreadable(f"{path} is damaged, or the ring of another directory")
    ring.memory.close()
    ring.memory = mmap.mmap(-1, ring.base + ring.capacity)
    ring.end = ring.base + ring.capacity
    ring.fresh = False
    _read(handle, ring, _SLOTS_AT + 2 * SLOT_SIZE, _SLOTS_AT + 2 * SLOT_SIZE * SLOTS)
    _read(handle, ring, _SLOTS_AT, _SLOTS_AT + 2 * SLOT_SIZE)
    raw = ring.read_slot(0)
    if raw is None or size == ring.base:
        return ring
    try:
        state = _decode_state(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RingUnreadable(f"{path}: its state cannot be read: {error}") from error
    if state.sealed < state.head or (state.sealed == state.head and state.following > state.offset):
        _read(handle, ring, ring.base, ring.end)
    else:
        # The open block, behind what is sealed, is at most an eighth of the ring and one large record.
        _read(handle, ring, state.head, min(ring.end, state.sealed + ring.capacity // 8 + ring.capacity // 4))
        if state.sealed + ring.capacity // 2 > ring.end:
            _read(handle, ring, ring.base, min(state.head, ring.base + ring.capacity // 2))
    return ring


def _read(handle: int, ring: Ring, start: int, stop: int) -> None:
    while start < stop:
        data = os.pread(handle, min(_CHUNK, stop - start), start)
        if not data:
            return
        ring.memory[start : start + len(data)] = data
        start += len(data)


class RowReader:
    """The rows of a queue's database, read through SQLite alone.

    A database without a log is opened as one that does not change, so that not even an index of the log is left
    beside it. Where a log has to be read and the directory cannot be written, a copy is read.

    Args:
        directory: the queue directory.
        live: a program holds it, and may begin a log at any moment: then the database does change.

    Attributes:
        exists: whether there is a database.
        damage: why it cannot be read, or None.
    """

    def __init__(self, directory: Path, *, live: bool = False) -> None:
        self._path = directory / "cache.db"
        self._live = live
        self._connection: sqlite3.Connection | None = None
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self.exists = self._path.exists()
        self.damage: str | None = None
        if self.exists:
            self._open()

    def keys(self) -> tuple[array[int], list[int]]:
        """The keys of all blocks, sorted, and those of all dead letters."""
        blocks: array[int] = array("q")
        letters: list[int] = []
        for (key,) in self._rows("SELECT key FROM Cache ORDER BY key"):
            if type(key) is int and key >= 0:
                blocks.append(key)
            elif type(key) is int and key <= LETTERS:
                letters.append(key)
        return blocks, letters

    def strange(self) -> int:
        """How many rows are none of ours."""
        query = (
            "SELECT 1 FROM Cache WHERE typeof(key) != 'integer' OR typeof(value) != 'blob' "
            "OR (key < 0 AND key != ? AND key > ?)"
        )
        return len(self._rows(query, STATE, LETTERS))

    def get(self, key: int) -> bytes | None:
        """The bytes of a row; None if there is none (any more)."""
        rows = self._rows("SELECT value FROM Cache WHERE key = ? AND raw = 1", key)
        return rows[0][0] if rows and type(rows[0][0]) is bytes else None

    def check(self) -> list[str]:
        """What SQLite finds wrong with the file."""
        found = [str(row[0]) for row in self._rows("PRAGMA quick_check(20)")]
        return [] if found == ["ok"] else found

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None

    def _rows(self, query: str, *values: int) -> list[tuple[object, ...]]:
        """All rows of a query: reading is over when this returns, so that the owner's log can be folded in."""
        if self._connection is None:
            return []
        try:
            return self._connection.execute(query, values).fetchall()
        except DAMAGE as error:
            self.damage = str(error)
            return []

    def _open(self) -> None:
        still = not self._live and not self._path.with_name("cache.db-wal").exists()
        if still and self._try(self._path, "immutable=1"):
            return
        if self._try(self._path, "mode=ro"):
            return
        if self.damage is not None and ("unable to open" in self.damage or "readonly" in self.damage):
            # The index of the log cannot be made where it should lie: a directory that we cannot write.
            try:
                self._try(self._copied(), "mode=rw")
            except OSError as error:
                self.damage = str(error)

    def _try(self, path: Path, mode: str) -> bool:
        connection: sqlite3.Connection | None = None
        try:
            # Used by one thread at a time; it need not be the same one that closes it.
            where = f"file:{quote(str(path))}?{mode}"
            connection = sqlite3.connect(where, uri=True, timeout=5, check_same_thread=False)
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'Cache'").fetchone() is None:
                self.exists = False  # it is just being made, or its maker was killed: nothing is in it
            else:
                connection.execute("SELECT count(*) FROM Cache WHERE key = 0").fetchone()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self.damage = str(error)
            if connection is not None:
                connection.close()
            return False
        self._connection, self.damage = connection, None
        return True

    def _copied(self) -> Path:
        self._copy = tempfile.TemporaryDirectory(prefix="rexport-")
        for name in ("cache.db", "cache.db-wal"):
            if self._path.with_name(name).exists():
                shutil.copyfile(self._path.with_name(name), Path(self._copy.name) / name)
        return Path(self._copy.name) / "cache.db"


_decode_state = msgspec.msgpack.Decoder(RingState).decode
