"""A disk that can be full: a small file system in memory, with a file that takes all the room there is."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.servers.provision.cache import run


class SmallDisk:
    """A file system of its own on a folder.

    Args:
        folder: where it is mounted; made if need be.
        megabytes: its size.
        owner: user who may write to it.

    Raises:
        UnavailableError: only root may mount, and not in every container.
    """

    def __init__(self, folder: Path, megabytes: int, owner: str | None = None) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder)
        if owner is not None:
            shutil.chown(folder, owner, owner)
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave not a single byte."""
        block = bytes(4096)
        with self._filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(block)
            except OSError:  # that was the last one
                return

    def free(self) -> None:
        """Give back what `fill` took."""
        self._filler.unlink(missing_ok=True)

    def remove(self) -> None:
        """Unmount it; nobody may use it any more."""
        run("umount", self.folder)
