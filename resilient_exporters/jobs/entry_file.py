"""Files that are there whole or not at all, whenever the program is killed or the power cut."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from resilient_exporters.delivery.directory import sync_directory
from resilient_exporters.jobs.errors import CorruptEntryError

__all__ = ["read_whole", "remove_leftovers", "write_whole"]

_TEMPORARY: Final = ".tmp"
_LARGEST: Final = 64_000_000


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under another name, sync it, rename it, sync the directory.

    Raises:
        OSError: it could not be written; what was there before is there still.
    """
    handle, temporary = _temporary(path)
    try:
        with open(handle, "wb", closefd=False) as file:
            file.write(data)
        os.fsync(handle)
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    finally:
        os.close(handle)
    sync_directory(path.parent)


def read_whole(path: Path) -> bytes:
    """Read a file, and nothing that only looks like one: no link, no pipe.

    Raises:
        CorruptEntryError: it is something else, or larger than any entry.
        OSError: it is not there, or cannot be read just now.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise CorruptEntryError(None, "it is no file but a link or a socket") from error
        raise
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            raise CorruptEntryError(None, f"it is no file, or one of {found.st_size} bytes")
        return file.read()


def remove_leftovers(directory: Path) -> int:
    """Remove what writers that were killed left half written. Returns how many files.

    A writer that lives holds a lock on what it writes.
    """
    removed = 0
    for path in directory.glob(f".*{_TEMPORARY}"):
        with suppress(OSError):  # another process is at it, or was faster
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                removed += 1
            finally:
                os.close(handle)
    return removed


def _temporary(path: Path) -> tuple[int, Path]:
    while True:
        temporary = path.with_name(f".{os.urandom(8).hex()}{_TEMPORARY}")
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_nlink:
                return handle, temporary
        except BlockingIOError:  # ``remove_leftovers`` was faster than the lock: take another name
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
