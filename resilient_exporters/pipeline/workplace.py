"""Where a job keeps its buffers: a directory of its own, held by one process at a time."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

from resilient_exporters.delivery.directory import DirectoryLock, holder, make_directory, state_root
from resilient_exporters.errors import QueueLockedError
from resilient_exporters.pipeline.errors import StateError

__all__ = ["Workplace", "workplace_of"]

_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")


class Workplace:
    """A private directory, made when it is first asked for.

    Args:
        path: where it is to be, so that a resume finds it; None: a temporary one.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock: DirectoryLock | None = None
        self._temporary: Path | None = None

    @property
    def path(self) -> Path:
        """The directory, 0700.

        Raises:
            StateError: another process works in it.
        """
        if self._path is None:
            self._temporary = self._path = Path(tempfile.mkdtemp(prefix="export-pipeline-"))
        elif self._lock is None and self._temporary is None:
            self.take()
        return self._path

    def take(self) -> None:
        """Hold the directory, so that no second process resumes the same job.

        Raises:
            StateError: another one does.
        """
        if self._path is None or self._lock is not None:
            return
        try:
            make_directory(self._path)
            self._lock = DirectoryLock(self._path)
        except QueueLockedError as error:
            who = holder(self._path) or "it has ended just now"
            raise StateError(None, f"another process runs this job in {self._path}: {who}") from error

    def release(self) -> None:
        """Let others have it; what is in it stays, unless it is a temporary one."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = self._path = None

    def remove(self) -> None:
        """The job is done: nothing of it is needed any more."""
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)
        self.release()


def workplace_of(job: str, work_dir: str | Path | None = None) -> Path:
    """Where a job works: in ``work_dir``, or in the state folder.

    A directory of its own whatever its id is: an old persistence may give a path for one, and what is here is removed.
    """
    name = job if _NAME.fullmatch(job) else hashlib.sha256(job.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return (state_root() / "pipelines" / "work" if work_dir is None else Path(work_dir)) / name
