"""Backlog: a mapping on disk from job ids to the parameters of jobs that are still to be run."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec

from resilient_exporters.delivery.clock import Clock, QueueClock
from resilient_exporters.delivery.directory import make_directory, state_root, sync_directory
from resilient_exporters.errors import InvalidConfigError
from resilient_exporters.jobs.claim import Claim, read_state
from resilient_exporters.jobs.entry_file import read_whole, remove_leftovers, write_whole
from resilient_exporters.jobs.entry_text import entry_text, parse_entry
from resilient_exporters.jobs.errors import CorruptEntryError, JobIdError

__all__ = ["DEFAULT_LOCATION_ROOT", "Backlog", "backlog_root"]

log = logging.getLogger("resilient_exporters.jobs")

DEFAULT_LOCATION_ROOT: Final = "/var/spool/cstbox/export"
"""Where pycstbox kept its backlogs; still used on a machine that has it."""

_JOB_ID: Final = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_LONGEST_NAME: Final = 255
_LOCK: Final = ".lock"
_CLOCK: Final = ".clock"
CLAIMS: Final = "claims"
DEAD: Final = "dead"
CORRUPT: Final = "corrupt"


def backlog_root() -> Path:
    """Where backlogs lie unless a root is given.

    ``backlogs`` under ``$RESILIENT_EXPORTERS_DIR`` or ``$STATE_DIRECTORY``; else the place of old,
    ``/var/spool/cstbox/export``, if there is one; else ``backlogs`` under the user's state folder.
    """
    named = any(os.environ.get(name) for name in ("RESILIENT_EXPORTERS_DIR", "STATE_DIRECTORY"))
    if not named and Path(DEFAULT_LOCATION_ROOT).is_dir():
        return Path(DEFAULT_LOCATION_ROOT)
    return state_root() / "backlogs"


class Backlog(MutableMapping[str, Any]):
    """Jobs that are still to be run: job id to parameters, one file each, sorted by id.

    An entry is written whole or not at all, and is on disk when the assignment returns. The files are JSON that can be
    read and edited; override ``_store`` and ``_load`` for another format.

    Args:
        name: of the backlog, and of its directory.
        root: where that directory lies; made with its parents if need be. Default: ``backlog_root()``.

    Raises:
        ValueError: the name is no file name, or the directory cannot be used.

    Attributes:
        name: as given.
        directory: its path.
    """

    suffix: ClassVar[str] = ".json"

    def __init__(self, name: str, root: str | os.PathLike[str] | None = None) -> None:
        given: object = name
        if not isinstance(given, str) or given in ("", ".", "..") or {"/", "\0"} & set(given):
            raise InvalidConfigError(f"name={name!r} is not possible; give a text that can be the name of a directory")
        self.name = name
        self.directory = Path(backlog_root() if root is None else root).absolute() / name
        self._deleted = False
        try:
            make_directory(self.directory)
        except OSError as error:
            raise InvalidConfigError(f"the backlog {self.directory} cannot be made: {error}") from error
        if not os.access(self.directory, os.R_OK | os.W_OK | os.X_OK):
            raise InvalidConfigError(f"the backlog {self.directory} cannot be written to: give its user the rights to")

    # -- for another format --------------------------------------------------------------------------------------

    def _store(self, job_id: str, parms: Any) -> None:
        """Write an entry to ``entry_path(job_id)``."""
        write_whole(self.entry_path(job_id), entry_text(job_id, parms))

    def _load(self, job_id: str) -> Any:
        """Read an entry from ``entry_path(job_id)``. What it raises, but for OSError, makes the entry a corrupt one."""
        return parse_entry(read_whole(self.entry_path(job_id)))

    def entry_path(self, job_id: str) -> Path:
        """The file of an entry, whether it is there or not.

        Raises:
            JobIdError: no such id can be.
        """
        return self.directory / self._file_name(job_id)

    # -- a mapping -----------------------------------------------------------------------------------------------

    def __setitem__(self, job_id: str, parms: Any) -> None:
        path = self.entry_path(job_id)
        with self.changing():
            if not path.exists() or read_state(self.claim_path(job_id)).done:
                self._forget_claim(job_id)
            self._store(job_id, parms)

    def __getitem__(self, job_id: str) -> Any:
        self._check_open()
        try:
            return self._load(job_id)
        except FileNotFoundError:
            raise KeyError(job_id) from None
        except (OSError, CorruptEntryError, JobIdError):
            raise
        except Exception as error:
            raise CorruptEntryError(None, f"{self.entry_path(job_id)} cannot be read: {error!r}") from error

    def __delitem__(self, job_id: str) -> None:
        path = self.entry_path(job_id)
        with self.changing():
            try:
                path.unlink()
            except FileNotFoundError:
                raise KeyError(job_id) from None
            sync_directory(self.directory)
            self._forget_claim(job_id)

    def __iter__(self) -> Iterator[str]:
        self._check_open()
        names = (path.name.removesuffix(self.suffix) for path in self.directory.glob(f"*{self.suffix}"))
        return iter(sorted(name for name in names if _JOB_ID.fullmatch(name)))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, job_id: object) -> bool:
        self._check_open()
        try:
            return isinstance(job_id, str) and self.entry_path(job_id).exists()
        except JobIdError:
            return False

    def iteritems(self) -> Iterator[tuple[str, Any]]:
        """Pairs of id and parameters, oldest first. A corrupt entry is set aside, and the others follow."""
        for job_id in self:
            try:
                yield job_id, self[job_id]
            except KeyError:
                continue  # another process was faster
            except CorruptEntryError as error:
                self.set_aside(job_id, str(error))

    def is_empty(self) -> bool:
        """Whether no entry waits."""
        return not len(self)

    def clear(self) -> None:
        """Remove all entries. Dead and corrupt ones stay."""
        for job_id in self:
            with suppress(KeyError):
                del self[job_id]

    def delete(self) -> None:
        """Remove the directory. The backlog cannot be used afterwards.

        Raises:
            OSError: an entry is in it, also a dead or a corrupt one, or a file that is none of ours.
        """
        self._check_open()
        with self.changing():
            remove_leftovers(self.directory)
            ours = {_LOCK, _CLOCK, CLAIMS, DEAD, CORRUPT}
            full = [path for path in self.directory.iterdir() if path.name not in ours]
            full += [path for place in (DEAD, CORRUPT) for path in (self.directory / place).glob("*")]
            if full:
                text = f"{os.strerror(errno.ENOTEMPTY)}, {full[0].name} is in it"
                raise OSError(errno.ENOTEMPTY, text, str(self.directory))
            for path in (self.directory / CLAIMS).glob("*"):
                path.unlink()
            for name in (CLAIMS, DEAD, CORRUPT):
                with suppress(FileNotFoundError):
                    (self.directory / name).rmdir()
            for name in (_CLOCK, _LOCK):
                (self.directory / name).unlink(missing_ok=True)
            self.directory.rmdir()
            self._deleted = True
        sync_directory(self.directory.parent)

    # -- what is no entry any more -------------------------------------------------------------------------------

    def dead(self) -> list[str]:
        """Ids of the entries that were given up, sorted."""
        return self._ids_in(DEAD)

    def corrupt(self) -> list[Path]:
        """The files that were set aside because they cannot be read, sorted."""
        return sorted((self.directory / CORRUPT).glob("*"))

    def retry(self, job_id: str) -> None:
        """Let a dead entry wait again, its attempts and age forgotten.

        Raises:
            KeyError: there is no such dead entry.
            ValueError: an entry of this id waits already.
        """
        path = self.entry_path(job_id)
        dead = self.directory / DEAD / path.name
        with self.changing():
            if not dead.exists():
                raise KeyError(job_id)
            if path.exists():
                raise InvalidConfigError(f"{job_id}: an entry of this id waits already; remove one of the two")
            self._forget_claim(job_id)
            dead.replace(path)
            sync_directory(self.directory)
            sync_directory(dead.parent)
            self.claim_path(job_id, DEAD).unlink(missing_ok=True)

    def discard(self, job_id: str) -> None:
        """Remove a dead entry for good.

        Raises:
            KeyError: there is no such dead entry.
        """
        dead = self.directory / DEAD / self._file_name(job_id)
        with self.changing():
            try:
                dead.unlink()
            except FileNotFoundError:
                raise KeyError(job_id) from None
            self.claim_path(job_id, DEAD).unlink(missing_ok=True)
            sync_directory(dead.parent)

    def set_aside(self, job_id: str, reason: str) -> Path | None:
        """Move an entry that cannot be read out of the way of the others. Returns where it is; None: it is gone."""
        path = self.entry_path(job_id)
        with self.changing():
            place = self.directory / CORRUPT
            make_directory(place)
            aside, number = place / path.name, 1
            while os.path.lexists(aside):
                number += 1
                aside = place / f"{path.name}.{number}"
            try:
                path.replace(aside)
            except FileNotFoundError:
                return None
            sync_directory(place)
            sync_directory(self.directory)
            self._forget_claim(job_id)
        log.error("backlog %s: entry %s is set aside as %s: %s", self.name, job_id, aside, reason)
        return aside

    # -- for those who run entries -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Change what is in the directory as the only one. Held for the blink of an eye, never while a job runs."""
        self._check_open()
        handle = os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def claim_path(self, job_id: str, place: str = CLAIMS) -> Path:
        """The file of the claim on an entry."""
        return self.directory / place / f"{self._file_name(job_id).removesuffix(self.suffix)}.claim"

    def clock(self, clock: Clock) -> QueueClock:
        """Seconds in the life of this backlog, by which its entries age: a step of the wall clock changes nothing."""
        path = self.directory / _CLOCK
        with self.changing():
            kept = None
            with suppress(FileNotFoundError, CorruptEntryError, msgspec.DecodeError, UnicodeDecodeError):
                kept = msgspec.json.decode(read_whole(path), type=tuple[str, float, float])
            own = QueueClock(clock, kept)
            write_whole(path, msgspec.json.encode(own.state))
        return own

    def tidy(self, clock: Clock) -> None:
        """Remove what killed programs left: half-written files, claims on entries that are gone for a day."""
        remove_leftovers(self.directory)
        for path in (self.directory / CLAIMS).glob("*.claim"):
            job_id, finished = path.name.removesuffix(".claim"), read_state(path).finished
            if not _JOB_ID.fullmatch(job_id):
                continue
            if finished is not None and finished[0] == clock.boot() and clock.now() - finished[1] < _REMEMBERED:
                continue
            with self.changing():
                if not self.entry_path(job_id).exists():
                    _remove_if_free(path)

    def _forget_claim(self, job_id: str) -> None:
        _remove_if_free(self.claim_path(job_id))

    def _ids_in(self, place: str) -> list[str]:
        self._check_open()
        names = (path.name.removesuffix(self.suffix) for path in (self.directory / place).glob(f"*{self.suffix}"))
        return sorted(names)

    def _file_name(self, job_id: str) -> str:
        given: object = job_id
        if not isinstance(given, str) or not _JOB_ID.fullmatch(given):
            raise JobIdError(f"job id {job_id!r:.300} is not possible; it may have letters, digits and -_. only")
        name = f"{job_id}{self.suffix}"
        if len(name) + len(".claim") > _LONGEST_NAME:
            raise JobIdError(f"job id {job_id[:40]}… has {len(job_id)} characters; {_LONGEST_NAME - 11} are the most")
        return name

    def _check_open(self) -> None:
        if self._deleted:
            raise FileNotFoundError(errno.ENOENT, "this backlog was deleted", str(self.directory))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.directory}>"


_REMEMBERED = 86_400.0


def _remove_if_free(path: Path) -> None:
    if not path.exists():
        return
    claim = Claim.take(path)
    if claim is not None:
        claim.remove()
        claim.release()
