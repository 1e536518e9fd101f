"""Rescue: what is still readable in a damaged database moves to a fresh one."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from resilient_exporters.delivery.database import DAMAGE
from resilient_exporters.delivery.directory import sync_directory
from resilient_exporters.delivery.spool import Spool, SpoolDamaged, SpoolUnavailable, rows

__all__ = ["Rescue", "waiting_for_rescue"]

log = logging.getLogger("resilient_exporters")

_ASIDE, _DONE = "salvage", "damaged"


class Rescue:
    """Takes a damaged database out of the way and brings over what can be read. Used by the spool's thread only.

    A kill or a failing disk may come between any two steps: until all that is readable has moved, the old database is
    called ``salvage-1.db``, and whoever opens the directory next goes on with it. Then it is ``damaged-1.db``, kept
    for whoever wants to look.

    Args:
        spool: where the rows go.

    Attributes:
        waits: an old database is still to be read. What is missing in the new one is not lost yet.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.waits = False

    def look(self) -> bool:
        """Whether an earlier rescue, of this process or of another, was not finished."""
        self.waits = bool(waiting_for_rescue(self._spool.directory))
        return self.waits

    def begin(self, error: SpoolDamaged) -> None:
        """Take the damaged database out of the way.

        Raises:
            OSError: that is not possible.
        """
        log.error("the queue's database is damaged: %s", error)
        self._spool.set_aside(_free_name(self._spool.directory))
        self.waits = True

    def put_back(self) -> None:
        """Put the open database back where somebody took its files away.

        Raises:
            SpoolUnavailable, SpoolDamaged: see ``Spool.put_back``.
        """
        self._spool.put_back(_free_name(self._spool.directory, _DONE))

    def salvage(self) -> set[int]:
        """Bring over what can be read, into the database that is open. Returns the keys of the rows.

        Raises:
            SpoolUnavailable: not now; nothing is lost by trying again.
        """
        found: set[int] = set()
        part: dict[int, bytes] = {}
        size = 0
        for aside in waiting_for_rescue(self._spool.directory):
            _check(aside)
            for key, value in rows(aside):
                part[key] = value
                found.add(key)
                size += len(value)
                if size > self._spool.transaction_bytes:
                    self._spool.write(part)
                    part, size = {}, 0
        if part:
            self._spool.write(part)
        return found

    def finish(self) -> None:
        """What was missing is accounted for: the old database is only kept for whoever wants to look."""
        folder = self._spool.directory
        for aside in waiting_for_rescue(folder):
            for part in sorted(folder.glob(f"{aside.name}*")):
                part.rename(folder / part.name.replace(_ASIDE, _DONE, 1))
        sync_directory(folder)
        self.waits = False
        self._spool.purge_aside()


def waiting_for_rescue(directory: Path) -> list[Path]:
    """The databases of a queue directory that were set aside and not yet read."""
    return sorted(directory.glob(f"{_ASIDE}-*.db"))


def _free_name(directory: Path, first: str = _ASIDE) -> Path:
    number = 1
    while any((directory / f"{word}-{number}.db").exists() for word in (_ASIDE, _DONE)):
        number += 1
    return directory / f"{first}-{number}.db"


def _check(aside: Path) -> None:
    """Damage is what we are here for. A file that cannot be opened just now is another matter."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(aside))}?mode=rw", uri=True, timeout=5)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except DAMAGE as error:
        if "unable to open" in str(error) or "locked" in str(error):
            raise SpoolUnavailable(f"{aside.name}: {error}") from error
        log.debug("%s: %s", aside, error)
