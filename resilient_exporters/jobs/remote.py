"""Jobs that another system still works on: a list of ids in a file, one a line."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from resilient_exporters.delivery.directory import make_directory
from resilient_exporters.jobs.entry_file import read_whole, write_whole
from resilient_exporters.jobs.errors import JobIdError

__all__ = ["PendingRemoteJobs"]


class PendingRemoteJobs:
    """Ids of remote jobs whose end is to be asked for later, in the order in which they were appended.

    Each change is on disk when the call returns, and several processes may share the file.

    Args:
        path: of the file; made at the first ``append``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()

    def append(self, job_id: str) -> None:
        """Add an id; one that is there already stays where it is.

        Raises:
            JobIdError: it is empty, or more than a line.
        """
        given: object = job_id
        if not isinstance(given, str) or given != given.strip() or len(given.splitlines()) != 1:
            raise JobIdError(f"job id {job_id!r:.80} is not possible; give one line of text")
        with self._changing():
            ids = self.items()
            if job_id not in ids:
                self._write([*ids, job_id])

    def remove(self, job_id: str) -> None:
        """Take an id out.

        Raises:
            ValueError: it is not there.
        """
        with self._changing():
            ids = self.items()
            ids.remove(job_id)
            self._write(ids)

    def items(self) -> list[str]:
        """All ids."""
        try:
            return read_whole(self.path).decode().split("\n")[:-1]
        except FileNotFoundError:
            return []

    def _write(self, ids: list[str]) -> None:
        write_whole(self.path, "".join(f"{one}\n" for one in ids).encode())

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        make_directory(self.path.parent)
        handle = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self.items()

    def __len__(self) -> int:
        return len(self.items())

    def __iter__(self) -> Iterator[str]:
        return iter(self.items())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"
