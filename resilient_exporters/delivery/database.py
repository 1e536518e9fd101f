"""The file of a spool: made, checked and opened as a diskcache ``Cache``, and what its troubles are called.

Values are bytes and nothing else, so no data can run; nothing is evicted behind our back; every commit is synced.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import diskcache

from resilient_exporters.delivery.directory import sync_directory

__all__ = [
    "DAMAGE", "DATABASE", "FILES", "SpoolDamaged", "SpoolMoved", "SpoolUnavailable", "attach", "check", "copy",
    "footprint", "make", "page_of", "put_strangers_aside", "translated", "uri",
]  # fmt: skip

log = logging.getLogger("resilient_exporters")

DATABASE = "cache.db"
FILES = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm")
# Measured: a lone reading is 14 KB of writes so, and 22 with SQLite's usual 4096. With 1024 it is 10, but then 4 KB of
# damage (a flash page) hide more rows.
_PAGE = 2048
_CACHE_BYTES = 2 << 20
_FULL = 2  # SQLite syncs at every commit
_NEW = f"{DATABASE}-new"
_BESIDE = "new"
_QUICK = "/dev/shm"  # noqa: S108 - a private directory in it, for a moment
_PREFIX = "resilient-exporters.new."
# diskcache writes every setting anew at every opening, each in a transaction of its own. A value that is the same is
# no change: with these, an opening changes nothing.
_SAME_VALUE = """
CREATE TRIGGER IF NOT EXISTS Settings_same_insert BEFORE INSERT ON Settings
WHEN EXISTS (SELECT 1 FROM Settings WHERE key = NEW.key AND value IS NEW.value) BEGIN SELECT RAISE(IGNORE); END;
CREATE TRIGGER IF NOT EXISTS Settings_same_update BEFORE UPDATE ON Settings
WHEN NEW.value IS OLD.value BEGIN SELECT RAISE(IGNORE); END;
"""
_NUMBER = (int, float)
_SETTINGS: dict[str, Any] = {
    name: str if isinstance(value, str) else _NUMBER
    for name, value in {**diskcache.core.DEFAULT_SETTINGS, **diskcache.core.METADATA}.items()
} | dict.fromkeys(("sqlite_wal_autocheckpoint", "sqlite_journal_size_limit", "sqlite_secure_delete"), _NUMBER)


class SpoolUnavailable(OSError):
    """The disk does not take or give anything just now: full, read-only, failing. May pass."""


class SpoolDamaged(Exception):
    """The database is not one any more."""


class SpoolMoved(Exception):
    """Somebody removed, replaced or cut the files of the open database: what is written reaches no file any more."""


def make(directory: Path, log_bytes: int) -> None:
    """Put an empty database in place, by one write and one sync.

    diskcache makes tables and settings in some 40 transactions. On a busy machine that takes longer than a short
    ``loss_window``, and it is half a megabyte. So that is done on tmpfs, and the result is copied. A cut leaves
    none or all of it.
    """
    image = _image(directory, log_bytes)
    new = directory / _NEW
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(image)
            file.flush()
            os.fsync(file.fileno())
        new.rename(directory / DATABASE)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    sync_directory(directory)


def check(database: Path) -> None:
    """Look at the settings before diskcache makes attributes and pragmas of them.

    Raises:
        SpoolDamaged: these are not the settings of a spool.
    """
    # Where there is no log, nobody else has it open: looked at so, it gets no shared memory file for a moment.
    mode = "mode=rw" if database.with_name(FILES[1]).exists() else "immutable=1"
    with closing(sqlite3.connect(uri(database, mode), uri=True, timeout=5)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return  # made, and killed before anything was in it
        if "Settings" not in tables:
            raise SpoolDamaged("a database of another program")
        for key, value in connection.execute("SELECT key, value FROM Settings"):
            usual = _SETTINGS.get(key)
            if usual is None or not isinstance(value, usual):
                raise SpoolDamaged(f"a setting that is none of ours: {key!r:.40}")


def put_strangers_aside(directory: Path) -> None:
    """Links, pipes and folders in the place of our files: SQLite could never open them, or would follow them."""
    for name in FILES:
        path = directory / name
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            log.error("%s is no file: set aside", path)
            path.rename(directory / f"strange-{os.urandom(4).hex()}.{name}")


def footprint(directory: Path) -> list[tuple[int, int, int]]:
    """Device, inode and size of database and log; zeros where there is none."""
    found = []
    for name in FILES[:2]:
        try:
            info = (directory / name).stat()
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((info.st_dev, info.st_ino, info.st_size))
    return found


def copy(cache: Any, directory: Path) -> Path:
    """All that an open database holds, as a file beside the place where it should lie.

    Raises:
        OSError, sqlite3.Error: there is no room for it, or it cannot be read.
    """
    path = directory / _NEW
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with closing(sqlite3.connect(path)) as target:
            cache._con.backup(target)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def page_of(database: Path) -> int:
    """The size of its pages: that of a database that is there already may be another one."""
    with database.open("rb") as file:
        size = int.from_bytes(file.read(18)[16:], "big")
    return 65536 if size == 1 else size or _PAGE


def attach(directory: Path, page: int, log_bytes: int, **others: Any) -> Any:
    """The diskcache ``Cache`` of a directory.

    Args:
        directory: where its files lie.
        page: the size of its pages.
        log_bytes: how long its log gets before it is folded in.
        others: settings that differ from those of a spool.
    """
    settings = {
        "eviction_policy": "none",
        "cull_limit": 0,
        "size_limit": 1 << 62,
        "statistics": 0,
        "tag_index": 0,
        "disk_min_file_size": 1 << 40,
        "sqlite_auto_vacuum": 2,  # incremental: space is given back when we say so, not at every commit
        "sqlite_journal_mode": "wal",
        "sqlite_synchronous": _FULL,
        "sqlite_secure_delete": 0,  # Debian's default overwrites what is deleted: twice the wear
        "sqlite_mmap_size": 0,
        "sqlite_cache_size": _CACHE_BYTES // page,
        "sqlite_wal_autocheckpoint": log_bytes // page,
        "sqlite_journal_size_limit": log_bytes,
        **others,
    }
    cache: Any = diskcache.Cache.__new__(diskcache.Cache)
    try:
        cache.__init__(str(directory), timeout=5, disk=_BytesDisk, **settings)
    except BaseException:
        cache.close()  # else its connection stays open for as long as somebody looks at the error
        raise
    return cache


_images: dict[int, bytes] = {}
_IMAGES = 4


def _image(directory: Path, log_bytes: int) -> bytes:
    """The file of an empty database, as diskcache makes it. Made on tmpfs, or else beside where it will be."""
    image = _images.get(log_bytes)
    if image is None:
        # The same name each time, so that what a kill leaves of it goes with the next.
        digest = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:16]
        try:
            image = _made(Path(_QUICK) / f"{_PREFIX}{os.getuid()}.{digest}", log_bytes)
        except (OSError, sqlite3.Error, diskcache.Timeout) as error:
            log.debug("%s cannot be used for a moment: %s", _QUICK, str(error))
            image = _made(directory / _BESIDE, log_bytes)
        if len(_images) >= _IMAGES:
            _images.clear()
        _images[log_bytes] = image
    return image


def _made(place: Path, log_bytes: int) -> bytes:
    database = place / DATABASE
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)  # fails on what is not ours: /dev/shm is everybody's
    try:
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            # What must be settled before there are tables, and is no setting of diskcache.
            connection.execute("PRAGMA synchronous=0")
            connection.execute(f"PRAGMA page_size={_PAGE}")
            connection.execute("PRAGMA auto_vacuum=2")
            connection.execute("VACUUM")
        attach(place, _PAGE, log_bytes, sqlite_synchronous=0).close()
        with closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous=0")
            connection.execute("UPDATE Settings SET value = ? WHERE key = 'sqlite_synchronous'", (_FULL,))
            connection.executescript(_SAME_VALUE)
        return database.read_bytes()  # the last connection has folded the log in
    finally:
        shutil.rmtree(place, ignore_errors=True)


def uri(database: Path, mode: str) -> str:
    """What SQLite calls a database that is to be opened in some mode."""
    return f"file:{quote(str(database))}?{mode}"


DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What reading a damaged database raises: the second where a message of SQLite quotes a damaged name."""


class translated:  # noqa: N801 - reads as a statement
    """Turn what SQLite and diskcache raise into ``SpoolUnavailable`` (may pass) or ``SpoolDamaged``."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, (SpoolUnavailable, SpoolDamaged)):
            return
        if isinstance(error, diskcache.Timeout):
            raise SpoolUnavailable("the database is locked or its disk does not answer") from error
        if isinstance(error, sqlite3.DatabaseError):
            text = str(error)
            # No text at all: on Python 3.10, a message that quotes a damaged name.
            passing = (
                isinstance(error, sqlite3.OperationalError)
                and bool(text)
                and not any(
                    sign in text for sign in ("malformed", "no such", "has no column", "not a database", "decode")
                )
            )
            if passing or isinstance(error, sqlite3.ProgrammingError):
                raise SpoolUnavailable(text) from error
            raise SpoolDamaged(text or "what SQLite says of it is no text") from error
        if isinstance(error, UnicodeDecodeError):
            raise SpoolDamaged(f"what SQLite says of it is no text: {error}") from error
        if isinstance(error, OSError):
            raise SpoolUnavailable(str(error)) from error


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
