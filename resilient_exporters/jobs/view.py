"""What a backlog holds, for people and programs that look at it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import msgspec

from resilient_exporters.errors import ResilientExporterException
from resilient_exporters.jobs.backlog import DEAD, Backlog, backlog_root
from resilient_exporters.jobs.claim import ClaimState, read_state
from resilient_exporters.jobs.codes import error_text
from resilient_exporters.jobs.entry_file import read_whole
from resilient_exporters.jobs.entry_text import parse_entry
from resilient_exporters.jobs.old_entries import old_entries

__all__ = ["EntryView", "entries", "find_backlogs", "parms_of"]


class EntryView(msgspec.Struct, frozen=True):
    """One entry.

    Attributes:
        backlog: name of the backlog.
        id: of the job; of a corrupt or an old entry the name of the file.
        state: "waiting", "running", "dead", "corrupt", "old" (a pickle of pycstbox), "done" (to be removed).
        attempts: runs that were begun.
        code: result of the last run.
        error: what that run said.
        ran: when it began, UTC; "" if it never did.
        path: of the file.
    """

    backlog: str
    id: str
    state: str
    attempts: int
    code: int
    error: str
    ran: str
    path: str

    @property
    def result(self) -> str:
        """The code in words."""
        return error_text(self.code) if self.code else ""


def find_backlogs(root: Path | None = None) -> list[Backlog]:
    """The backlogs under a root, or under the default one."""
    place = backlog_root() if root is None else root
    if not place.is_dir():
        return []
    return [Backlog(one.name, place) for one in sorted(place.iterdir()) if one.is_dir() and _is_backlog(one)]


def entries(backlog: Backlog) -> list[EntryView]:
    """Everything in a backlog: what waits or runs, what is dead, what could not be read, and old pickles."""

    def view(job_id: str, state: str, path: Path, known: ClaimState) -> EntryView:
        return EntryView(
            backlog.name, job_id, state, known.attempts, known.code, known.error, known.ran, str(path)
        )  # fmt: skip

    found = []
    for job_id in backlog:
        state = read_state(backlog.claim_path(job_id))
        what = "running" if _runs(backlog, job_id) else "done" if state.done else "waiting"
        found.append(view(job_id, what, backlog.entry_path(job_id), state))
    for job_id in backlog.dead():
        path = backlog.directory / DEAD / backlog.entry_path(job_id).name
        found.append(view(job_id, "dead", path, read_state(backlog.claim_path(job_id, DEAD))))
    found += [view(path.name, "corrupt", path, ClaimState()) for path in backlog.corrupt()]
    found += [view(path.name, "old", path, ClaimState()) for path in old_entries(backlog)]
    return found


def parms_of(entry: EntryView) -> Any:
    """The parameters in the file of an entry; None if they cannot be read."""
    try:
        return parse_entry(read_whole(Path(entry.path)))
    except (OSError, ResilientExporterException):
        return None


def _is_backlog(directory: Path) -> bool:
    return (directory / ".lock").exists() or any(directory.glob("*.blog"))


def _runs(backlog: Backlog, job_id: str) -> bool:
    with backlog.changing():  # so that looking takes no claim from anybody
        try:
            handle = os.open(backlog.claim_path(job_id), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
    return False
