"""The part of the queue on disk: blocks, cursors and dead letters in a diskcache ``Cache``.

One thread owns a ``Spool``. A row is a block, never a record; values are bytes and nothing else, so no data can run;
nothing is evicted behind our back; every commit is synced.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import diskcache

from resilient_exporters.delivery.block import BlockDamaged, CodecMissing, Payload, salvage, unpack
from resilient_exporters.delivery.directory import sync_directory

__all__ = ["STATE", "Spool", "SpoolDamaged", "SpoolUnavailable", "key_of", "rows", "span_of"]

log = logging.getLogger("resilient_exporters")

STATE = -1
"""Key of the row that holds the cursors."""
LETTERS = -1000
"""Keys from here down hold dead letters."""
_DATABASE = "cache.db"
_FILES = (_DATABASE, f"{_DATABASE}-wal", f"{_DATABASE}-shm")
_COUNT_BITS = 20
_PAGE = 4096
_WAL_PAGES = 1000
_FULL = 2  # SQLite syncs at every commit
_FAR = 1 << 62
_MISSES = 1000  # rows that may be unreadable in a row
_ROWS = "SELECT rowid, key, value FROM Cache WHERE rowid > ? AND rowid < ? ORDER BY rowid "
_NUMBER = (int, float)
_SETTINGS: dict[str, Any] = {
    name: str if isinstance(value, str) else _NUMBER
    for name, value in {**diskcache.core.DEFAULT_SETTINGS, **diskcache.core.METADATA}.items()
} | dict.fromkeys(("sqlite_wal_autocheckpoint", "sqlite_journal_size_limit", "sqlite_secure_delete"), _NUMBER)
_EMPTY = 12 * _PAGE  # what tables and indexes without rows take


class SpoolUnavailable(OSError):
    """The disk does not take or give anything just now: full, read-only, failing. May pass."""


class SpoolDamaged(Exception):
    """The database is not one any more."""


def key_of(first: int, count: int) -> int:
    """The key of a block's row: where it stands and how many records it has, known without reading it."""
    return first << _COUNT_BITS | count


def span_of(key: int) -> tuple[int, int]:
    """First offset and the offset after the last of a block's row."""
    first = key >> _COUNT_BITS
    return first, first + (key & ((1 << _COUNT_BITS) - 1))


class _BytesDisk(diskcache.Disk):  # type: ignore[misc] # diskcache has no type information
    """Integers to bytes, inside the database: no pickle in either direction and no side files."""

    def put(self, key: object) -> tuple[int, bool]:
        if type(key) is not int:
            raise TypeError(f"spool keys are int, not {type(key).__name__}")
        return key, True

    def get(self, key: object, raw: object) -> int:
        if type(key) is not int or not raw:
            raise SpoolDamaged(f"a key that is no integer: {key!r:.40}")
        return key

    def store(
        self,
        value: object,
        read: bool,
        key: object = None,  # noqa: ARG002 - the signature is diskcache's
    ) -> tuple[int, int, None, sqlite3.Binary]:
        if type(value) is not bytes or read:
            raise TypeError(f"spool values are bytes, not {type(value).__name__}")
        return len(value), diskcache.core.MODE_RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: object, filename: object, value: object, read: object) -> bytes:  # noqa: ARG002 - as above
        if mode != diskcache.core.MODE_RAW or filename is not None or type(value) is not bytes:
            raise SpoolDamaged(f"a row that holds no bytes (mode {mode!r})")
        return value

    def remove(self, file_path: object) -> None:
        """No row has a side file. One that names a file was tampered with, and that file is not ours to delete."""


class Spool:
    """The database of one queue directory. Opened only when there is something to save, or one is there already.

    Args:
        directory: the queue directory, which must exist by the first write.
        max_disk: bound in bytes, as ``du`` shows them.
    """

    def __init__(self, directory: Path, max_disk: int) -> None:
        self.directory = directory
        self.max_disk = max_disk
        # The log of a transaction and the room it is kept in are part of the bound.
        self._wal_pages = max(16, min(_WAL_PAGES, max_disk // 16 // _PAGE))
        self._cache: Any = None

    @property
    def exists(self) -> bool:
        """Whether there is a database."""
        return (self.directory / _DATABASE).exists()

    @property
    def transaction_bytes(self) -> int:
        """How much one ``write`` should hold at most, so that the log stays within its share of the bound."""
        return self._wal_pages * _PAGE

    def open(self) -> None:
        """Open or make the database.

        Raises:
            SpoolUnavailable, SpoolDamaged
        """
        if self._cache is not None:
            return
        fresh = not self.exists
        with _translated():
            if fresh:
                os.close(os.open(self.directory / _DATABASE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            else:
                _check_settings(self.directory / _DATABASE)
            self._cache = diskcache.Cache(
                str(self.directory),
                timeout=5,
                disk=_BytesDisk,
                eviction_policy="none",
                cull_limit=0,
                size_limit=1 << 62,
                statistics=0,
                tag_index=0,
                disk_min_file_size=1 << 40,
                sqlite_auto_vacuum=2,  # incremental: space is given back when we say so, not at every commit
                sqlite_journal_mode="wal",
                # diskcache makes a fresh database in 30 transactions, each synced: a slow card would be late for the
                # first save. There is nothing in it to lose yet, so it is synced once, below.
                sqlite_synchronous=0 if fresh else _FULL,
                sqlite_secure_delete=0,  # Debian's default overwrites what is deleted: twice the wear
                sqlite_mmap_size=0,
                sqlite_cache_size=512,
                sqlite_wal_autocheckpoint=self._wal_pages,
                sqlite_journal_size_limit=self._wal_pages * _PAGE,
            )
            if fresh:
                self._cache.reset("sqlite_synchronous", _FULL)
                with (self.directory / _DATABASE).open("rb") as file:
                    os.fsync(file.fileno())
                sync_directory(self.directory)

    def close(self) -> None:
        """Close the database; its log is folded in by SQLite."""
        if self._cache is not None:
            cache, self._cache = self._cache, None
            with _translated():
                cache.close()

    def keys(self) -> tuple[array[int], list[int]]:
        """The keys of all blocks, sorted, and those of all dead letters."""
        blocks, letters = array("q"), []
        with _translated():
            for key in self._cache.iterkeys():
                if key >= 0:
                    blocks.append(key)
                elif key <= LETTERS:
                    letters.append(key)
        return blocks, letters

    def get(self, key: int) -> bytes | None:
        """The bytes of a row, or None."""
        if self._cache is None:
            raise SpoolUnavailable("the database is not open just now")
        with _translated():
            value: bytes | None = self._cache.get(key)
        return value

    def read(self, key: int) -> tuple[Payload | None, bytes]:
        """A block, and its row if that is damaged (else empty). None with the row: not even its head is left."""
        row = self.get(key)
        if row is None:
            return None, b""
        try:
            return unpack(row), b""
        except CodecMissing as error:
            raise SpoolUnavailable(str(error)) from error
        except BlockDamaged as error:
            log.warning("block at offset %d in %s is damaged (%s)", key >> _COUNT_BITS, self.directory, error)
            return salvage(row), row

    def write(self, puts: Mapping[int, bytes], deletes: Iterable[int] = ()) -> None:
        """Store and remove rows in one synced transaction: all of it, or nothing."""
        with _translated(), self._cache.transact():
            for key in deletes:
                self._cache.delete(key)
            for key, value in puts.items():
                self._cache.set(key, value)

    def quarantine(self, name: str, row: bytes) -> None:
        """Keep the bytes of a damaged row beside the database, for whoever wants to look."""
        folder = self.directory / "quarantine"
        folder.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(row)

    def disk_bytes(self) -> int:
        """Bytes of the whole directory, as ``du`` shows them."""
        return disk_bytes(self.directory)

    def fits(self, sizes: Iterable[int], growth: int) -> bool:
        """Whether rows of these sizes can be written within ``max_disk``, worst case assumed.

        SQLite uses the free pages of its file before it grows, so a file that is at its bound takes new rows as soon
        as as many bytes were deleted. Where the log needs the room, free pages are given back.

        Args:
            sizes: of the rows, in bytes.
            growth: by how many bytes the file may grow for the sake of others on the same file system.
        """
        new = sum(size + _PAGE for size in sizes)
        others = self.disk_bytes() - sum(_blocks(self.directory / name) for name in _FILES)
        share = self._wal_pages * _PAGE
        # A transaction larger than the log's share passes through it as well, and the log keeps that size for a while.
        log_bytes = max(share + max(share, new + new // 64), _blocks(self.directory / _FILES[1])) + 24 * _PAGE
        room = self.max_disk - others - log_bytes
        with _translated():
            file = self._pragma("page_count") * _PAGE
            used = file - self._pragma("freelist_count") * _PAGE
            if used + new > min(room, file + max(0, growth)):
                return False
            if file > room:
                self._give_back((file - room) // _PAGE + 1)
        return True

    def shrink(self) -> None:
        """Give free space back to the file system."""
        with _translated():
            self._give_back(1 << 30)

    def _give_back(self, pages: int) -> None:
        least = max(0, self._pragma("freelist_count") - pages)
        while (free := self._pragma("freelist_count")) > least:
            # A script, because the pragma gives a page back at each step, and ``execute`` takes the first only.
            self._cache._con.executescript(f"PRAGMA incremental_vacuum({min(free - least, self._wal_pages)})")
            if self._pragma("freelist_count") >= free:
                break
        self._cache.reset("sqlite_wal_checkpoint", "TRUNCATE", update=False)

    def _pragma(self, name: str) -> int:
        # Of diskcache's own connection: a second one would be a writer behind its back.
        return int(self._cache._con.execute(f"PRAGMA {name}").fetchone()[0])

    def purge_aside(self) -> None:
        """Remove the oldest databases that were set aside, where they take more than a quarter of the bound."""
        for path in sorted(self.directory.glob("damaged-*.db")):
            others = list(self.directory.glob("damaged-*"))
            if sum(_blocks(other) for other in others) <= self.max_disk // 4:
                return
            log.warning("%s takes the room of what waits: removed, what was readable in it was taken over", path)
            for part in self.directory.glob(f"{path.name}*"):
                part.unlink()

    def set_aside(self, aside: Path) -> None:
        """Give a damaged database another name; the next ``open`` makes a fresh one."""
        if self._cache is not None:
            cache, self._cache = self._cache, None
            try:
                cache.close()
            except (sqlite3.Error, diskcache.Timeout) as error:
                log.debug("closing a damaged database: %s", error)
        # The database last: should a kill come in between, its log is beside neither, and SQLite takes no other's.
        for name in reversed(_FILES):
            if (self.directory / name).exists():
                (self.directory / name).rename(aside.with_name(aside.name + name[len(_DATABASE) :]))
        sync_directory(self.directory)
        log.error("the database in %s is set aside as %s, what is readable in it moves", self.directory, aside.name)


def _blocks(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def disk_bytes(directory: Path) -> int:
    """Bytes that a queue directory takes on its file system."""
    total = 0
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += disk_bytes(Path(entry.path))
                else:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
    except FileNotFoundError:
        return total
    return total


def rows(database: Path, *, live: bool = False) -> Iterator[tuple[int, bytes]]:
    """Read the rows of a database without diskcache: changing nothing, and as far as it can be read.

    Used for a database that another process holds (``live``) and for a damaged one. Stops silently where nothing
    more can be read.
    """
    mode = "mode=ro" if live else "mode=rw"
    low, high, misses = -_FAR, _FAR, 0
    with closing(sqlite3.connect(f"file:{quote(str(database))}?{mode}", uri=True, timeout=5)) as connection:
        connection.text_factory = bytes
        for order in ("ASC", "DESC"):  # what damage hides from one end may be seen from the other
            while misses < _MISSES:
                try:
                    for rowid, key, value in connection.execute(_ROWS + order, (low, high)):
                        misses = 0
                        low, high = (rowid, high) if order == "ASC" else (low, rowid)
                        if type(key) is int and type(value) is bytes:
                            yield key, value
                    return
                except sqlite3.DatabaseError as error:
                    log.debug("rows of %s: %s", database, error)
                    if (low if order == "ASC" else -high) == -_FAR:
                        break
                    low, high = (low + 1, high) if order == "ASC" else (low, high - 1)
                    misses += 1
            misses = 0
        log.warning("%s cannot be read to its end", database)


def _check_settings(database: Path) -> None:
    """Look at the settings before diskcache makes attributes and pragmas of them.

    Raises:
        SpoolDamaged: these are not the settings of a spool.
    """
    with closing(sqlite3.connect(database, timeout=5)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return  # made, and killed before anything was in it
        if "Settings" not in tables:
            raise SpoolDamaged("a database of another program")
        for key, value in connection.execute("SELECT key, value FROM Settings"):
            usual = _SETTINGS.get(key)
            if usual is None or not isinstance(value, usual):
                raise SpoolDamaged(f"a setting that is none of ours: {key!r:.40}")


class _translated:  # noqa: N801 - reads as a statement
    """Turn what SQLite and diskcache raise into ``SpoolUnavailable`` (may pass) or ``SpoolDamaged``."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, (SpoolUnavailable, SpoolDamaged)):
            return
        if isinstance(error, diskcache.Timeout):
            raise SpoolUnavailable("the database is locked or its disk does not answer") from error
        if isinstance(error, sqlite3.DatabaseError):
            text = str(error)
            passing = isinstance(error, sqlite3.OperationalError) and not any(
                sign in text for sign in ("malformed", "no such", "has no column", "not a database", "decode")
            )
            if passing or isinstance(error, sqlite3.ProgrammingError):
                raise SpoolUnavailable(text) from error
            raise SpoolDamaged(text) from error
        if isinstance(error, OSError):
            raise SpoolUnavailable(str(error)) from error
