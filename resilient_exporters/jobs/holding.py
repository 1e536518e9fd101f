"""A holding: one entry of a backlog while this process runs it."""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from resilient_exporters.delivery.clock import Clock, QueueClock
from resilient_exporters.delivery.directory import make_directory, sync_directory
from resilient_exporters.exporter import Exporter
from resilient_exporters.jobs.backlog import DEAD, Backlog
from resilient_exporters.jobs.claim import Claim, read_state
from resilient_exporters.jobs.entry_file import read_whole

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Holding", "put_new"]

log = logging.getLogger("resilient_exporters.jobs")


class Holding:
    """Nobody else runs the entry while it is held. Ends with ``release``, or with the process.

    Args:
        backlog: where the entry lies.
        job_id: its id.
        claim: on it.
        clock: of the backlog.

    Attributes:
        state: what is known of it.
        finished: it has succeeded before, in a run that was killed before it could remove the entry.
    """

    def __init__(self, backlog: Backlog, job_id: str, claim: Claim, clock: QueueClock) -> None:
        self.state = claim.state
        self.finished = False
        self._backlog = backlog
        self._job_id = job_id
        self._claim = claim
        self._clock = clock
        self._boot = clock.clock.boot()  # asked for now: between a success and the note of it nothing is done
        self._path = backlog.entry_path(job_id)

    @classmethod
    def take(cls, backlog: Backlog, job_id: str, clock: QueueClock) -> Holding | None:
        """Claim an entry.

        Returns:
            None if another process runs it.

        Raises:
            KeyError: the entry is gone: another process was faster.
            OSError: the directory cannot be used.
        """
        with backlog.changing():
            claim = Claim.take(backlog.claim_path(job_id))
            if claim is None:
                return None
            holding = cls(backlog, job_id, claim, clock)
            try:
                holding._look()
            except BaseException:
                claim.release()
                raise
            return holding

    def _look(self) -> None:
        entry = self._identity()
        if entry is None:
            if not self.state.done:
                self._claim.remove()
            raise KeyError(self._job_id)
        if self.state.done:
            self.finished = self.state.entry in (None, entry)
            if not self.finished:  # stored anew under the id of one that had succeeded
                self.state = self._claim.state = type(self.state)()
        self.state.entry = entry

    def begin(self) -> Any:
        """Count the attempt, and return the parameters.

        Raises:
            CorruptEntryError: they cannot be read.
            OSError: they cannot be read just now.
        """
        parms = self._backlog[self._job_id]
        self.state.attempts += 1
        self.state.ran = datetime.fromtimestamp(self._clock.clock.time(), timezone.utc).isoformat(timespec="seconds")
        if self.state.born is None:
            self.state.born = self._clock.now()
        with suppress(OSError):  # a full disk: an attempt that is not counted is better than none
            self._claim.keep()
        return parms

    def succeeded(self) -> None:
        """Note, before anything else is done, that it must never run again."""
        self._claim.finish((self._boot, self._clock.clock.now()))

    def remove(self) -> None:
        """Remove the entry after its success, unless it was stored anew meanwhile."""
        with self._backlog.changing():
            now = self._identity()
            if now == self.state.entry:
                with suppress(FileNotFoundError):
                    self._path.unlink()
                sync_directory(self._path.parent)
            elif now is not None:
                self._claim.remove()

    def begin_sending(self, exporter: Exporter) -> int:
        """Note where a queue stands, and return how many rows of this entry it took in runs before.

        What other entries left unfinished there is reckoned first: what is queued from now on would count as theirs.

        Raises:
            OSError: it cannot be noted.
        """
        for path in sorted(self._claim.path.parent.glob("*.claim")):
            if path == self._claim.path or read_state(path).sending.get(exporter.name, (None, 0))[0] is None:
                continue
            claim = Claim.take(path)
            if claim is not None:  # else another process runs it, which has another queue
                _reckon(claim, exporter)
                claim.release()
        queued = _reckon(self._claim, exporter)
        self.state.sending[exporter.name] = exporter.mark(), queued
        self._claim.keep()
        return queued

    def end_sending(self, exporter: Exporter, queued: int) -> None:
        """Note how many rows of this entry the queue has."""
        self.state.sending[exporter.name] = None, queued
        self._claim.keep()

    def failed(self, code: int, error: str) -> None:
        """Note how the run ended."""
        self.state.code, self.state.error = code, error
        self._claim.keep()

    @property
    def age(self) -> float:
        """Seconds since it was first run, by the backlog's clock."""
        return max(0.0, self._clock.now() - self.state.born) if self.state.born is not None else 0.0

    def bury(self) -> None:
        """Give the entry up: it is kept with the dead, together with what is known of it."""
        with self._backlog.changing():
            if self._identity() != self.state.entry:
                return  # removed or stored anew meanwhile
            grave = self._backlog.directory / DEAD
            make_directory(grave)
            self._claim.path.replace(self._backlog.claim_path(self._job_id, DEAD))
            self._path.replace(grave / self._path.name)
            sync_directory(grave)
            sync_directory(self._path.parent)

    def release(self) -> None:
        """Let others have it."""
        self._claim.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _identity(self) -> str | None:
        """Of what is stored now; of the content, so that it is the same after a restored backup."""
        try:
            return hashlib.blake2b(read_whole(self._path), digest_size=16).hexdigest()
        except FileNotFoundError:
            return None


def _reckon(claim: Claim, exporter: Exporter) -> int:
    """How many rows of an entry a queue has, also of a run that was killed while it queued."""
    mark, queued = claim.state.sending.get(exporter.name, (None, 0))
    if mark is not None:
        more = exporter.accepted_since(mark)
        if more is None:
            log.warning("the queue of %s was begun anew: rows that it took before may come again", exporter.name)
        queued += more or 0
        claim.state.sending[exporter.name] = None, queued
        claim.keep()
    return queued


def put_new(backlog: Backlog, job_id: str, parms: Any, clock: Clock, since: float) -> bool:
    """Put the job of a slot into its backlog.

    Args:
        backlog: of the slot.
        job_id: of the job.
        parms: of the job.
        clock: the machine's.
        since: when this slot began, in monotonic seconds.

    Returns:
        False if it is there already, or was run since: another process runs the same slot.

    Raises:
        OSError: it cannot be written.
        EncodingError: the parameters cannot be kept.
    """
    path = backlog.entry_path(job_id)
    with backlog.changing():
        if path.exists():
            return False
        claim = Claim.take(backlog.claim_path(job_id))
        if claim is None:
            return False
        try:
            finished = claim.state.finished
            if claim.state.done and finished is not None and finished[0] == clock.boot() and finished[1] >= since:
                return False
            claim.remove()
            backlog._store(job_id, parms)
        finally:
            claim.release()
    return True
