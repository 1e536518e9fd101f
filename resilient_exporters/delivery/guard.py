"""The resource guard: lowers our bounds before the system suffers."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import psutil

__all__ = ["LinkWatch", "ResourceGuard"]

log = logging.getLogger("resilient_exporters")

_LOW_MEMORY = 0.05  # of all memory available: below it we keep less in ours
_ENOUGH_MEMORY = 0.10


class ResourceGuard:
    """Watches free disk, available memory and our own size.

    Args:
        directory: of the spool, or None: there is no disk.
        min_free_disk: bytes that the file system must keep free.
        max_memory: the ring's bound; a process far above what it explains is only reported.

    Attributes:
        memory_low: whether memory is short. Says so once when it changes, both ways.
        disk_low: whether the disk is.
        rss: resident bytes of this process, at the last look.
    """

    def __init__(self, directory: Path | None, min_free_disk: int) -> None:
        self._directory = directory
        self._min_free_disk = min_free_disk
        self.memory_low = False
        self.disk_low = False
        self.rss = 0

    def look(self) -> None:
        """Read the figures again. Costs two system calls and two small files of /proc."""
        try:
            memory = psutil.virtual_memory()
            self.rss = psutil.Process().memory_info().rss
        except (OSError, psutil.Error) as error:
            log.debug("memory cannot be read: %s", error)
        else:
            share = memory.available / max(1, memory.total)
            low = share < (_ENOUGH_MEMORY if self.memory_low else _LOW_MEMORY)
            if low != self.memory_low:
                self.memory_low = low
                log.warning(
                    "memory is %s (%d MB available, %d MB ours): the queue keeps %s in memory",
                    "short" if low else "back", memory.available >> 20, self.rss >> 20, "a quarter" if low else "all",
                )  # fmt: skip
        self.growth()

    def growth(self) -> int:
        """By how many bytes the disk may fill for our sake."""
        if self._directory is None:
            return 0
        try:
            figures = os.statvfs(self._directory)
        except OSError as error:
            log.debug("free disk cannot be read: %s", error)
            return 1 << 62
        left = figures.f_bavail * figures.f_frsize - self._min_free_disk
        if (left <= 0) != self.disk_low:
            self.disk_low = left <= 0
            log.warning(
                "disk of %s is %s min_free_disk", self._directory, "down to" if self.disk_low else "again above"
            )
        return max(0, left)


class LinkWatch:
    """Tells when a network interface comes up. No site on the internet is asked."""

    def __init__(self) -> None:
        self._up = self._look()

    def came_up(self) -> bool:
        """Whether an interface is up that was not at the last look."""
        before, self._up = self._up, self._look()
        return bool(self._up - before)

    @staticmethod
    def _look() -> frozenset[str]:
        try:
            return frozenset(name for name, figures in psutil.net_if_stats().items() if figures.isup)
        except OSError as error:
            # Happens in some sandboxes and on some small systems: then the link's state is not known.
            log.debug("link state cannot be read: %s", error)
            return frozenset()
