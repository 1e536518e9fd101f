"""The part of the queue on disk: blocks, cursors and dead letters in a diskcache ``Cache``.

One thread owns a ``Spool``. A row is a block, never a record; values are bytes and nothing else, so no data can run;
nothing is evicted behind our back; every commit is synced.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import diskcache

from resilient_exporters.delivery.block import BlockDamaged, CodecMissing, Payload, salvage, unpack
from resilient_exporters.delivery.database import (
    DAMAGE,
    DATABASE,
    FILES,
    SpoolDamaged,
    SpoolMoved,
    SpoolUnavailable,
    attach,
    check,
    copy,
    footprint,
    make,
    page_of,
    put_strangers_aside,
    translated,
    uri,
)
from resilient_exporters.delivery.directory import make_directory, sync_directory

__all__ = ["STATE", "Spool", "SpoolDamaged", "SpoolMoved", "SpoolUnavailable", "key_of", "rows", "span_of"]

log = logging.getLogger("resilient_exporters")

STATE = -1
"""Key of the row that holds the cursors."""
LETTERS = -1000
"""Keys from here down hold dead letters."""
_COUNT_BITS = 20
_LOG_BYTES = 4 << 20
_ROW_SPARE = 4096  # for what a row takes beyond its bytes
_CHANGED = 16  # pages that a transaction changes beside the rows' own, about
_SPARE = 96 << 10  # for the pages that change beside the rows' own
_FAR = 1 << 62
_MISSES = 1000  # rows that may be unreadable in a row
_ROWS = "SELECT rowid, key, value FROM Cache WHERE rowid > ? AND rowid < ? ORDER BY rowid "


def key_of(first: int, count: int) -> int:
    """The key of a block's row: where it stands and how many records it has, known without reading it."""
    return first << _COUNT_BITS | count


def span_of(key: int) -> tuple[int, int]:
    """First offset and the offset after the last of a block's row."""
    first = key >> _COUNT_BITS
    return first, first + (key & ((1 << _COUNT_BITS) - 1))


class Spool:
    """The database of one queue directory. Opened only when there is something to save, or one is there already.

    Args:
        directory: the queue directory, which must exist by the first write.
        max_disk: bound in bytes, as ``du`` shows them.
        take: makes and locks the directory once more, where somebody removed it.
    """

    def __init__(self, directory: Path, max_disk: int, take: Callable[[], None] | None = None) -> None:
        self.directory = directory
        self._take = take or self._make
        self._footprint: list[tuple[int, int, int]] = []
        self.max_disk = max_disk
        # The log of a transaction and the room it is kept in are part of the bound.
        self._log_bytes = max(64 << 10, min(_LOG_BYTES, max_disk // 16))
        self._page = 0
        self._cache: Any = None

    @property
    def exists(self) -> bool:
        """Whether there is a database."""
        return (self.directory / DATABASE).exists()

    @property
    def transaction_bytes(self) -> int:
        """How much one ``write`` should hold at most, so that the log stays within its share of the bound."""
        return self._log_bytes

    @property
    def letter_bytes(self) -> int:
        """How much a row of dead letters should hold: two of them take the room of one transaction."""
        return self._log_bytes * 3 // 8

    def open(self) -> None:
        """Open or make the database.

        Raises:
            SpoolUnavailable, SpoolDamaged
        """
        if self._cache is not None:
            return
        with translated():
            put_strangers_aside(self.directory)
            if self.exists:
                check(self.directory / DATABASE)
            else:
                make(self.directory, self._log_bytes)
            self._page = page_of(self.directory / DATABASE)
            self._cache = attach(self.directory, self._page, self._log_bytes)
            self._footprint = footprint(self.directory)

    def check(self) -> None:
        """See whether the open database is still the one in the directory. SQLite would go on without a word.

        Raises:
            SpoolMoved
        """
        if self._cache is not None:
            pairs = zip(footprint(self.directory), self._footprint, strict=True)
            if any(then[1] and (now[:2] != then[:2] or now[2] < then[2]) for now, then in pairs):
                raise SpoolMoved(f"somebody removed or changed the files of the database in {self.directory}")

    def put_back(self, aside: Path) -> None:
        """Put what the open database holds back into the directory, which is made again if need be.

        Args:
            aside: the new name of what lies in its place.

        Raises:
            SpoolUnavailable: not now. What is open can still be read.
            SpoolDamaged: it cannot be read any more.
        """
        with translated():
            self._take()
            whole = copy(self._cache, self.directory)
            self.set_aside(aside)
            whole.rename(self.directory / DATABASE)
            sync_directory(self.directory)
        self.open()

    def _make(self) -> None:
        make_directory(self.directory)

    def close(self) -> None:
        """Close the database; its log is folded in by SQLite."""
        if self._cache is not None:
            cache, self._cache = self._cache, None
            with translated():
                cache.close()

    def keys(self) -> tuple[array[int], list[int]]:
        """The keys of all blocks, sorted, and those of all dead letters."""
        blocks, letters = array("q"), []
        with translated():
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
        with translated():
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
        try:
            with translated(), self._cache.transact():
                for key in deletes:
                    self._cache.delete(key)
                for key, value in puts.items():
                    self._cache.set(key, value)
        finally:
            self._see()  # a failed one cuts its log, too

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

    def fits(self, sizes: Iterable[int], growth: int, spare: int = 0) -> bool:
        """Whether rows of these sizes can be written within ``max_disk``, worst case assumed.

        SQLite uses the free pages of its file before it grows, so a file that is at its bound takes new rows as soon
        as as many bytes were deleted. Where the log needs the room, free pages are given back.

        Args:
            sizes: of the rows, in bytes.
            growth: by how many bytes the directory may grow for the sake of others on the same file system.
            spare: bytes within ``max_disk`` that are left to what comes later.
        """
        page = self._page
        new = sum(size + size // 128 + _ROW_SPARE for size in sizes)
        others = self.disk_bytes() - self._grown()
        share = self._log_bytes
        # A transaction larger than the log's share passes through it as well, and the log keeps that size for a while.
        log_bytes = max(share + max(share, new + new // 32), _blocks(self.directory / FILES[1])) + _SPARE
        room = self.max_disk - others - log_bytes - spare
        with translated():
            file = self._pragma("page_count") * page
            used = file - self._pragma("freelist_count") * page
            if used + new > room or not self._grows_within(growth, new):
                return False
            if file > room:
                self._give_back((file - room) // page + 1)
        return True

    def _grows_within(self, growth: int, new: int) -> bool:
        """Whether so many bytes more let the files grow by ``growth`` at most: the log now, the database later.

        Folds the log in, and gives free pages back, where that is what it takes.
        """
        page, before = self._page, self._grown()
        for step in (None, self._fold, self.shrink):
            if step is not None:
                step()
            file = self._pragma("page_count") * page
            free = self._pragma("freelist_count") * page
            unfolded = max(0, file - _blocks(self.directory / DATABASE))
            need = max(0, new - free) + unfolded + new + new // 32 + _CHANGED * page
            if need <= growth + before - self._grown():
                return True
        return False

    def _grown(self) -> int:
        return sum(_blocks(self.directory / name) for name in FILES)

    def shrink(self) -> None:
        """Give free space back to the file system."""
        with translated():
            free = self._pragma("freelist_count")
            used = (self._pragma("page_count") - free) * self._page
            if free and used <= self._log_bytes // 4:
                # To write the little anew that is left is next to nothing; page by page, half of the file is written.
                self._cache._con.execute("VACUUM")
                self._fold()
            else:
                self._give_back(1 << 30)

    def _give_back(self, pages: int) -> None:
        least = max(0, self._pragma("freelist_count") - pages)
        while (free := self._pragma("freelist_count")) > least:
            # A script, because the pragma gives a page back at each step, and ``execute`` takes the first only.
            self._cache._con.executescript(
                f"PRAGMA incremental_vacuum({min(free - least, self._log_bytes // self._page)})"
            )
            if self._pragma("freelist_count") >= free:
                break
        self._fold()

    def _fold(self) -> None:
        """Fold the log into the database, and cut it."""
        self._cache.reset("sqlite_wal_checkpoint", "TRUNCATE", update=False)
        self._see()

    def _see(self) -> None:
        """Remember how the files look after our own change. Somebody else's, in that instant, is for ``check``."""
        now, then = footprint(self.directory), self._footprint
        with translated():
            shrunk = now[0][2] < then[0][2] and now[0][2] < self._pragma("page_count") * self._page
        if not shrunk and all(new[:2] == old[:2] or not old[1] for new, old in zip(now, then, strict=True)):
            self._footprint = now

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
            except (sqlite3.Error, diskcache.Timeout, UnicodeDecodeError) as error:
                log.debug("closing a damaged database: %s", error)
        # The database last: should a kill come in between, its log is beside neither, and SQLite takes no other's.
        for name in reversed(FILES):
            if (self.directory / name).exists():
                (self.directory / name).rename(aside.with_name(aside.name + name[len(DATABASE) :]))
        sync_directory(self.directory)
        if aside.exists():
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
    except OSError as error:  # gone meanwhile, or not ours to look into
        log.debug("size of %s: %s", directory, error)
    return total


def rows(database: Path, *, live: bool = False) -> Iterator[tuple[int, bytes]]:
    """Read the rows of a database without diskcache: changing nothing, and as far as it can be read.

    Used for a database that another process holds (``live``) and for a damaged one. Stops silently where nothing
    more can be read.
    """
    mode = "mode=ro" if live else "mode=rw"
    low, high, misses = -_FAR, _FAR, 0
    with closing(sqlite3.connect(uri(database, mode), uri=True, timeout=5)) as connection:
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
                except DAMAGE as error:
                    log.debug("rows of %s: %s", database, error)
                    if (low if order == "ASC" else -high) == -_FAR:
                        break
                    low, high = (low + 1, high) if order == "ASC" else (low, high - 1)
                    misses += 1
            misses = 0
        log.warning("%s cannot be read to its end", database)
