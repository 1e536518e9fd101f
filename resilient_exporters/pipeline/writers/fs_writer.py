"""Files in a directory of this machine."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any, ClassVar, Final

from resilient_exporters.delivery.directory import sync_directory
from resilient_exporters.pipeline.errors import PipelineError
from resilient_exporters.pipeline.retries import SHORT
from resilient_exporters.pipeline.writers.buffered import PackedFile
from resilient_exporters.pipeline.writers.store import BaseStoreWriter
from resilient_exporters.policy import RetryPolicy

__all__ = ["FSWriter"]

_CHUNK: Final = 1 << 20
_NO_LINK: Final = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES)


class FSWriter(BaseStoreWriter):
    """Writes files into a directory of this machine; they appear whole, and a power cut does not take them."""

    policy: ClassVar[RetryPolicy] = SHORT

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unsynced: set[Path] = set()

    def reach(self) -> None:
        """See whether the directory can be written to.

        Raises:
            PipelineError: it cannot.
        """
        place = Path(self.filebase.base)
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            what = "is not to be written to by this user" if place.is_dir() else "is no directory"
            raise PipelineError(None, f"filebase={self.filebase.template!r}: {place} {what}")

    def put(self, path: Path, name: str, packed: PackedFile | None) -> None:
        """Link or copy, then rename."""
        target, temporary = Path(name), Path(self.temporary(name, packed))
        _make_directory(target.parent)
        temporary.unlink(missing_ok=True)
        _link(path, temporary)
        if target.exists() and target.samefile(temporary):
            temporary.unlink()  # it is there already, and a rename of a file to itself does nothing
        else:
            temporary.replace(target)
        self._unsynced.add(target.parent)

    def committed(self) -> None:
        """Deliver; the new names are on disk before the state forgets these files."""
        super().committed()
        self._sync()

    def deliver_md5(self, path: Path, name: str) -> None:
        """Put the file of MD5s into the directory."""
        super().deliver_md5(path, name)
        self._sync()

    def _sync(self) -> None:
        while self._unsynced:
            sync_directory(self._unsynced.pop())

    def size_of(self, name: str) -> int | None:
        """The size of a file."""
        path = Path(name)
        return path.stat().st_size if path.exists() else None


def _make_directory(directory: Path) -> None:
    """Make a directory with its parents, as the umask has it, and put each on disk."""
    missing: list[Path] = []
    while not directory.exists():
        missing.append(directory)
        directory = directory.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        sync_directory(one.parent)


def _link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy on another file system."""
    mode = 0o666 & ~_umask()
    try:
        source.chmod(mode)
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        with source.open("rb") as read, target.open("xb") as written:
            shutil.copyfileobj(read, written, _CHUNK)
            written.flush()
            os.fsync(written.fileno())
        target.chmod(mode)


def _umask() -> int:
    """The umask, without a moment in which it is another one."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022
