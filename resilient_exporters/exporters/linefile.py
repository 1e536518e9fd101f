"""The file that lines are appended to: one descriptor, one write per batch, and what others may do to it meanwhile."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from resilient_exporters.delivery.directory import sync_directory
from resilient_exporters.errors import HoldError, TimeoutError

__all__ = ["LineFile", "draft_path"]

_LOG = logging.getLogger(__name__)
_CHUNK = 1 << 20
_LOCK_POLL = 0.01


class LineFile:
    """A file of lines, opened for appending. What it is told to write, other readers see at once.

    It may be renamed, deleted, truncated or replaced by others at any time: ``locked`` finds out and opens the file
    that has the name now. Exporters that write to one file keep apart by ``flock``.

    Args:
        path: the file. Its directory is made if it is missing.
        sync_names: whether new names are put on disk (fsync of the directory) when they are made.
    """

    def __init__(self, path: Path, *, sync_names: bool) -> None:
        self.path = path
        self._sync_names = sync_names
        self._handle: int | None = None
        self._counted = (-1, 0, 0)  # inode, bytes, newlines in them
        self._sound = (-1, -1)  # inode and size at which the file was seen to end with a newline
        self._no_flock = False

    @property
    def handle(self) -> int:
        """The open descriptor."""
        assert self._handle is not None, "only within locked()"  # noqa: S101 - a fault of ours, not of the user
        return self._handle

    def close(self) -> None:
        """Close the descriptor. A second time does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    @contextlib.contextmanager
    def locked(self, deadline: float = float("inf")) -> Iterator[None]:
        """Hold the file that has the name now, no other exporter writing to it.

        Raises:
            HoldError: it is no file that lines can be appended to, or we may not.
            TimeoutError: another holds it beyond ``deadline`` (``time.monotonic()``).
            OSError: anything else that the system has against it.
        """
        while True:
            if self._handle is None:
                self._open()
            self._flock(self.handle, deadline)
            if self._is_current():
                break
            self.close()
        try:
            yield
        finally:
            # After a replacement this is the new file's descriptor, which is locked likewise.
            if self._handle is not None and not self._no_flock:
                fcntl.flock(self._handle, fcntl.LOCK_UN)

    def status(self) -> os.stat_result:
        """Size, inode and times of the open file."""
        return os.fstat(self.handle)

    def append(self, data: bytes, status: os.stat_result) -> None:
        """Write lines at the end, all or none.

        Args:
            data: whole lines.
            status: the file before.

        Raises:
            OSError: the lines are not in the file, and what was there of them was cut off again if that was possible.
        """
        view = memoryview(data)
        done = 0
        try:
            while done < len(view):
                done += os.write(self.handle, view[done:])
        except OSError:
            self.take_back(status, done)
            raise
        inode, size = status.st_ino, status.st_size
        self._sound = (inode, size + done)
        if self._counted[:2] == (inode, size):
            self._counted = (inode, size + done, self._counted[2] + data.count(b"\n"))

    def take_back(self, status: os.stat_result, done: int) -> None:
        """Cut off the last ``done`` bytes, unless others have written behind them."""
        try:
            if done and os.fstat(self.handle).st_size == status.st_size + done:
                os.ftruncate(self.handle, status.st_size)
        except OSError as error:
            _LOG.warning("%s: a failed write could not be cut off (%s); that is done later", self.path, error)

    def ends_with_newline(self, status: os.stat_result) -> bool:
        """Whether the last line is a whole one. An empty file has no broken line."""
        here = (status.st_ino, status.st_size)
        if here == self._sound or not status.st_size:
            self._sound = here
            return True
        if os.pread(self.handle, 1, status.st_size - 1) != b"\n":
            return False
        self._sound = here
        return True

    def count_lines(self, status: os.stat_result) -> int:
        """Lines in the file, one without its newline at the end included. Reads only what came since the last time."""
        inode, position, newlines = self._counted
        if inode != status.st_ino or position > status.st_size:
            position = newlines = 0
        while position < status.st_size and (chunk := os.pread(self.handle, _CHUNK, position)):
            newlines += chunk.count(b"\n")
            position += len(chunk)
        self._counted = (status.st_ino, position, newlines)
        return newlines + (not self.ends_with_newline(status))

    def first_line(self) -> bytes:
        """The first line, at most 1 MB of it."""
        return os.pread(self.handle, _CHUNK, 0).split(b"\n", 1)[0]

    def lines(self) -> Iterator[bytes]:
        """All lines in order, newlines included; the last may lack its own."""
        rest = b""
        for chunk in self.chunks(0):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line + b"\n"
        if rest:
            yield rest

    def chunks(self, position: int) -> Iterator[bytes]:
        """What stands from ``position`` on, in large pieces."""
        while chunk := os.pread(self.handle, _CHUNK, position):
            position += len(chunk)
            yield chunk

    def empty(self) -> None:
        """Cut the file to nothing."""
        os.ftruncate(self.handle, 0)

    def sync(self) -> None:
        """Put what was written on disk."""
        os.fdatasync(self.handle)

    def replace(self, kept: Callable[[], Iterator[bytes]]) -> None:
        """Put a file with other lines in the place of this one, in one step.

        A reader that has the old one open reads that to its end; a kill at any instant leaves the one or the other.

        Args:
            kept: gives the new lines, reading from this file.
        """
        target = Path(os.path.realpath(self.path))  # a symbolic link goes on pointing
        draft = draft_path(target)
        status = self.status()
        draft.unlink(missing_ok=True)
        fresh = os.open(draft, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with contextlib.suppress(PermissionError):
                os.fchown(fresh, status.st_uid, status.st_gid)
            os.fchmod(fresh, stat.S_IMODE(status.st_mode))
            buffer = bytearray()
            for line in kept():
                buffer += line
                if len(buffer) >= _CHUNK:
                    _write_all(fresh, buffer)
                    buffer.clear()
            _write_all(fresh, buffer)
            # Without this a power cut may leave an empty file under the name, all the lines kept gone.
            os.fsync(fresh)
            if not self._no_flock:
                fcntl.flock(fresh, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.replace(target)
        except OSError:
            os.close(fresh)
            draft.unlink(missing_ok=True)
            raise
        self.close()
        self._handle = fresh
        if self._sync_names:
            sync_directory(target.parent)

    def _open(self) -> None:
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            is_new = not self.path.exists()
            handle = os.open(self.path, flags, 0o666)
        except (IsADirectoryError, NotADirectoryError, FileExistsError, PermissionError) as error:
            raise HoldError(f"cannot write to {self.path}: {error.strerror}; mend path or permissions") from error
        mode = os.fstat(handle).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode)):
            os.close(handle)
            raise HoldError(f"{self.path} is neither a file nor a terminal: lines cannot be appended to it")
        self._handle = handle
        if is_new and self._sync_names:
            sync_directory(folder)

    def _is_current(self) -> bool:
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return False
        mine = os.fstat(self.handle)
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def _flock(self, handle: int, deadline: float) -> None:
        while not self._no_flock:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"another program holds the lock of {self.path}") from None
                time.sleep(_LOCK_POLL)
            except OSError as error:
                if error.errno not in {errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS}:
                    raise
                self._no_flock = True  # some network file systems: then one writer per file is up to the user
            else:
                return


def draft_path(target: Path) -> Path:
    """Where the next version of a file is made; what a kill leaves there is made anew."""
    return target.with_name(f".{target.name}.draft")


def _write_all(handle: int, data: bytes | bytearray) -> None:
    view = memoryview(bytes(data))
    done = 0
    while done < len(view):
        done += os.write(handle, view[done:])
