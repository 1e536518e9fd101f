"""Queue directories: where they lie by default, how they are made, and who holds one."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from resilient_exporters.errors import QueueLockedError

__all__ = ["DirectoryLock", "default_directory", "make_directory", "numbered", "state_root"]

_LOCK = "lock"
_MOST_NUMBERED = 1000


def state_root() -> Path:
    """Where queue directories lie unless one is given by hand.

    ``$RESILIENT_EXPORTERS_DIR``, else ``$STATE_DIRECTORY`` (set by systemd's ``StateDirectory=``), else the user's
    state folder.
    """
    for variable in ("RESILIENT_EXPORTERS_DIR", "STATE_DIRECTORY"):
        value = os.environ.get(variable, "").split(":")[0]
        if value:
            return Path(value).absolute()
    from platformdirs import user_state_path

    return user_state_path("resilient_exporters")


def default_directory(identity: str) -> Path:
    """The directory of a queue by what its exporter is; the same at every start."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", identity).strip("-")[:48] or "exporter"
    return state_root() / f"{readable}-{hashlib.sha256(identity.encode('utf-8', 'replace')).hexdigest()[:10]}"


def numbered(directory: Path) -> Iterator[Path]:
    """The directories beside ``directory`` that stand in for it while another process holds it."""
    for number in range(2, _MOST_NUMBERED):
        yield directory.with_name(f"{directory.name}.{number}")


def make_directory(directory: Path) -> None:
    """Make a directory 0700 with its parents, and put every new entry on disk: a power cut may take it otherwise.

    Raises:
        OSError: if it cannot be made, or is something else.
    """
    if directory.is_dir():
        return
    made: list[Path] = []
    here = directory
    while not here.exists():
        made.append(here)
        here = here.parent
    for folder in reversed(made):
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
    if not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
    for folder in {*made, *(made_one.parent for made_one in made)}:
        sync_directory(folder)


def sync_directory(directory: Path) -> None:
    """Fsync a directory: new, renamed and removed entries in it are then on disk."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EROFS):  # file systems that cannot sync a directory
            raise
    finally:
        os.close(handle)


class DirectoryLock:
    """An advisory lock on a queue directory: gone with its process, however that ends.

    Args:
        directory: made if need be.

    Raises:
        QueueLockedError: another process (or another exporter of this one) holds it.
        OSError: the directory or its lock file cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._folder = -1
        make_directory(directory)
        self._handle = _open_lock(directory / _LOCK)
        try:
            who = self._take()
        except OSError:
            self.abandon()
            raise
        if who is not None:
            self.abandon()
            raise QueueLockedError(
                None,
                f"the queue directory {directory} is held by {who}: give each exporter a directory of its own, "
                "or none, and a free one is chosen",
            )

    @property
    def stands(self) -> bool:
        """Whether what is locked is still what others would lock."""
        try:
            here, ours = (self.directory / _LOCK).lstat(), os.fstat(self._handle)
        except OSError:
            return False
        return (here.st_dev, here.st_ino) == (ours.st_dev, ours.st_ino)

    def _take(self) -> str | None:
        """Take the lock, or say who holds it."""
        for _ in range(3):
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return self._take_folder()
            except BlockingIOError:
                who = holder(self.directory)
            if who is not None:
                return who
            # Nobody any more: somebody only looked who holds it.
        return "another process"

    def _take_folder(self) -> str | None:
        """Lock the directory itself as well: somebody may have removed the file that another process has locked."""
        self._folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return _locker(os.fstat(self._folder).st_ino)
        except OSError:
            return None  # a file system that locks files only
        return None

    def release(self) -> None:
        """Let others have the directory."""
        for handle in (self._folder, self._handle):
            if handle >= 0:
                fcntl.flock(handle, fcntl.LOCK_UN)
        self.abandon()

    def abandon(self) -> None:
        """Close without unlocking: in a forked child the lock is still the parent's."""
        for handle in (self._folder, self._handle):
            if handle >= 0:
                os.close(handle)
        self._handle = self._folder = -1


def _open_lock(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        handle = os.open(path, flags, 0o600)
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return handle
        os.close(handle)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
    # Something stands in its place that nobody can have locked.
    path.rename(path.with_name(f"{_LOCK}.{os.urandom(4).hex()}.damaged"))
    return os.open(path, flags, 0o600)


def holder(directory: Path) -> str | None:
    """Who holds a queue directory, in words; None if nobody does."""
    path = directory / _LOCK
    try:
        probe = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _locker(os.fstat(probe).st_ino)
    finally:
        os.close(probe)


def _locker(inode: int) -> str:
    import psutil

    try:
        table = Path("/proc/locks").read_text()
    except OSError:
        return "another process"
    for line in table.splitlines():
        fields = line.split()
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
            pid = int(fields[4])
            if pid <= 0:
                break  # of another container
            if pid == os.getpid():
                return f"another exporter of this process (pid {pid})"
            try:
                return f"process {pid} ({psutil.Process(pid).name()})"
            except psutil.Error:
                return f"process {pid}"
    return "another process"
