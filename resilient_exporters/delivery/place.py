"""Where a queue lives: its directory, locked, and its ring."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import ClassVar

from resilient_exporters.delivery.directory import DirectoryLock, default_directory, numbered
from resilient_exporters.delivery.ring import ring_path
from resilient_exporters.delivery.spool import Spool, SpoolUnavailable
from resilient_exporters.errors import QueueLockedError

__all__ = ["Place"]

log = logging.getLogger("resilient_exporters")


class Place:
    """The directory given by hand, or the first free one of the default ones.

    Args:
        key: what the default directory is derived from.
        given: by hand, or None.

    Attributes:
        first: the directory that is asked for first.
        path: the one that it is, or would be.
        directory: the same, or None while it cannot be had.
        trouble: why it cannot.
        forked: this process is a forked child: a directory given by hand is the parent's, one beside it ours.

    Raises:
        QueueLockedError: the directory was given by hand, and another process holds it.
    """

    forked: ClassVar[bool] = False

    def __init__(self, key: str, given: Path | None) -> None:
        self.first = given if given is not None else default_directory(key)
        self.path = self.first
        self.directory: Path | None = None
        self.trouble = ""
        self._given = given is not None
        self._lock: DirectoryLock | None = None
        try:
            self._take()
        except OSError as error:
            self.trouble = f"no queue directory at {self.path}: {error}"

    @property
    def ring(self) -> Path | None:
        """The ring's file; None without a directory: then nobody else may find it."""
        return None if self.directory is None else ring_path(self.directory)

    def spool(self, max_disk: int) -> Spool:
        """The disk. While there is no directory, it is tried for again whenever it is opened."""
        return Spool(self.path, max_disk, self.retake) if self.directory is not None else _Waiting(self, max_disk)

    def _take(self) -> None:
        try:
            self._lock = DirectoryLock(self.first)
        except QueueLockedError:
            if self._given and not self.forked:
                raise
        else:
            self.path = self.directory = self.first
            return
        for place in numbered(self.first):
            self.path = place
            try:
                self._lock = DirectoryLock(place)
            except QueueLockedError:
                continue
            self.directory = place
            return

    def take_again(self) -> None:
        """Try once more to have the directory.

        Raises:
            SpoolUnavailable: it cannot be had.
        """
        if self.directory is None:
            try:
                self._take()
            except (OSError, QueueLockedError) as error:
                self.trouble = f"no queue directory at {self.path}: {error}"
                raise SpoolUnavailable(self.trouble) from error

    def retake(self) -> None:
        """Make and lock the directory once more, if somebody removed it or the lock.

        Raises:
            SpoolUnavailable: another process has it now, or it cannot be made.
        """
        if self._lock is None or self._lock.stands:
            return
        self._lock.release()
        try:
            self._lock = DirectoryLock(self.path)
        except (OSError, QueueLockedError) as error:
            raise SpoolUnavailable(f"the queue directory {self.path} was removed: {error}") from error

    def release(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            self._lock.release()

    def abandon(self) -> None:
        """In a forked child: it is the parent's."""
        if self._lock is not None:
            self._lock.abandon()


class _Waiting(Spool):
    """A spool whose directory cannot be had yet."""

    def __init__(self, place: Place, max_disk: int) -> None:
        super().__init__(place.path, max_disk, place.retake)
        self._place = place

    @property
    def exists(self) -> bool:
        """As far as anyone can tell, while nobody can look: the offsets in it must not be used again."""
        return self._place.directory is None or super().exists

    def open(self) -> None:
        """Open it, once there is a directory.

        Raises:
            SpoolUnavailable, SpoolDamaged
        """
        self._place.take_again()
        self.directory = self._place.path
        super().open()
