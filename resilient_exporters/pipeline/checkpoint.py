"""The state of jobs: position, states, journals and put-aside records, in one transaction a batch.

Values are MessagePack of our codec, so that positions keep their types and nothing in them can run.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from resilient_exporters.codec import decode, encode
from resilient_exporters.errors import EncodingError
from resilient_exporters.pipeline.bad_records import BadRecord
from resilient_exporters.pipeline.errors import StateError
from resilient_exporters.pipeline.job_database import JobDatabase, LostConnectionError, shown
from resilient_exporters.pipeline.retries import SHORT, retrying

__all__ = ["Checkpoint", "Job", "Store", "packed", "plain_figures", "unpacked"]

_VERSION: Final = 1
_KEPT: Final = 1000
_PARTS: Final = ("job_state", "job_journal", "job_dead")


class Checkpoint(msgspec.Struct, kw_only=True):
    """What one commit writes.

    Attributes:
        position: of the reader.
        states: by part; each replaces what was there.
        journals: by part; added to what is there.
        dead: records put aside since the last commit.
        figures: the metadata of the modules.
    """

    position: Any = None
    states: dict[str, Any] = {}
    journals: dict[str, list[Any]] = {}
    dead: list[BadRecord] = []
    figures: dict[str, Any] = {}


class Job(msgspec.Struct, kw_only=True):
    """A job as the database knows it.

    Attributes:
        id: of the job.
        created: seconds since the epoch.
        last_committed: the same; None: nothing yet.
        finished: it ran to its end.
        configuration: without secrets.
        position: of the reader.
        figures: of the modules.
        dead: how many records were put aside.
    """

    id: str
    created: float = 0.0
    last_committed: float | None = None
    finished: bool = False
    configuration: dict[str, Any] = {}
    position: Any = None
    figures: dict[str, Any] = {}
    dead: int = 0


class Store:
    """The jobs of one database. Used by one thread at a time; any thread may be that one.

    Each commit leaves a token that the next one must find: a process that another one has overtaken, because it
    resumed the same job, cannot commit any more.

    Args:
        url: a path of an SQLite file, made with its directory if need be; or a SQLAlchemy URL of a PostgreSQL or
            MySQL database.

    Raises:
        StateError: it cannot be opened.
        MissingModuleError: the extra of that database is not installed.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = url
        self._database = JobDatabase(url)
        self._transaction = self._database.transaction
        self._tokens: dict[str, str] = {}

    def create(self, configuration: Mapping[str, Any], job: str | None = None) -> str:
        """Make a job; the oldest of more than a thousand finished ones are forgotten. Returns its id."""
        job = job or uuid.uuid4().hex
        token = self._tokens[job] = uuid.uuid4().hex
        with self._transaction() as run:
            run(
                "INSERT INTO job (id, version, created, job_finished, configuration, token) VALUES (?, ?, ?, 0, ?, ?)",
                job, _VERSION, time.time(), json.dumps(configuration, default=str), token,
            )  # fmt: skip
            old = run(
                "SELECT id FROM job WHERE job_finished = 1 AND NOT EXISTS "
                "(SELECT 1 FROM job_dead WHERE job_dead.job = job.id) ORDER BY created DESC LIMIT 1000 OFFSET ?", _KEPT,
            ).fetchall()  # fmt: skip
            for (each,) in old:
                run("DELETE FROM job WHERE id = ?", each)
        return job

    def claim(self, job: str) -> None:
        """Go on with a job: who worked on it before cannot commit any more.

        Raises:
            StateError: there is no such job.
        """
        token = uuid.uuid4().hex
        with self._transaction() as run:
            if not run("UPDATE job SET token = ? WHERE id = ?", token, job).rowcount:
                raise StateError(None, f"there is no job {job} in {shown(self.url)}")
        self._tokens[job] = token

    def commit(self, job: str, checkpoint: Checkpoint) -> None:
        """Write a checkpoint: all of it, synced, or nothing. Waits for a server that went away.

        Raises:
            StateError: the job is gone, another process goes on with it, or the database does not take it.
        """
        if job not in self._tokens:
            self.claim(job)
        before, after = self._tokens[job], uuid.uuid4().hex
        if self._database.remote:
            what = f"the commit of job {job}"
            retrying(lambda: self._commit(job, checkpoint, before, after), what, SHORT, errors=LostConnectionError)
        else:
            self._commit(job, checkpoint, before, after)
        self._tokens[job] = after

    def _commit(self, job: str, checkpoint: Checkpoint, before: str, after: str) -> None:
        with self._transaction() as run:
            found = run(
                "UPDATE job SET last_position = ?, figures = ?, last_committed = ?, token = ? "
                "WHERE id = ? AND token = ?",
                packed(checkpoint.position), packed(plain_figures(checkpoint.figures)), time.time(), after, job, before,
            ).rowcount  # fmt: skip
            if not found:
                if self._token(run, job) == after:
                    return  # an answer that was lost: it was done
                raise StateError(None, f"job {job} was taken over by another process: this one must not go on")
            for part, value in checkpoint.states.items():
                run("DELETE FROM job_state WHERE job = ? AND part = ?", job, part)
                run("INSERT INTO job_state (job, part, value) VALUES (?, ?, ?)", job, part, packed(value))
            for part, entries in checkpoint.journals.items():
                if entries:
                    number = self._next(run, "job_journal", job, part)
                    run(
                        "INSERT INTO job_journal (job, part, number, value) VALUES (?, ?, ?, ?)",
                        job, part, number, packed(entries),
                    )  # fmt: skip
            for bad in checkpoint.dead:
                number = self._next(run, "job_dead", job)
                run(
                    "INSERT INTO job_dead (job, number, created, value) VALUES (?, ?, ?, ?)",
                    job, number, time.time(), packed(_plain_record(bad)),
                )  # fmt: skip

    def _token(self, run: Any, job: str) -> str:
        row = run("SELECT token FROM job WHERE id = ?", job).fetchone()
        if row is None:
            raise StateError(None, f"job {job} is gone from {shown(self.url)}")
        return str(row[0])

    @staticmethod
    def _next(run: Any, table: str, job: str, part: str | None = None) -> int:
        where, values = ("job = ?", (job,)) if part is None else ("job = ? AND part = ?", (job, part))
        return int(run(f"SELECT COALESCE(MAX(number), 0) + 1 FROM {table} WHERE {where}", *values).fetchone()[0])  # noqa: S608 - our own table names

    def load(self, job: str) -> Job:
        """One job.

        Raises:
            StateError: there is none of this id, or it cannot be read.
        """
        found = self.jobs(job)
        if not found:
            raise StateError(None, f"there is no job {job} in {shown(self.url)}")
        return found[0]

    def jobs(self, job: str | None = None) -> list[Job]:
        """All jobs, oldest first, or those of an id."""
        with self._transaction() as run:
            rows = run(
                "SELECT id, version, created, last_committed, job_finished, configuration, last_position, figures, "
                "(SELECT COUNT(*) FROM job_dead WHERE job_dead.job = job.id) FROM job WHERE ? = '' OR id = ? "
                "ORDER BY created", job or "", job or "",
            ).fetchall()  # fmt: skip
        newer = [row[0] for row in rows if row[1] > _VERSION]
        if newer:
            raise StateError(None, f"job {newer[0]} was written by a newer version: update this package")
        return [_job(row) for row in rows]

    def states(self, job: str) -> dict[str, Any]:
        """What was kept of the modules, by part."""
        with self._transaction() as run:
            rows = run("SELECT part, value FROM job_state WHERE job = ?", job).fetchall()
        return {part: unpacked(value) for part, value in rows}

    def journal(self, job: str, part: str) -> Iterator[list[Any]]:
        """The journal of a module, in the order of its commits."""
        number = 0
        while True:
            with self._transaction() as run:
                row = run(
                    "SELECT number, value FROM job_journal WHERE job = ? AND part = ? AND number > ? "
                    "ORDER BY number LIMIT 1", job, part, number,
                ).fetchone()  # fmt: skip
            if row is None:
                return
            number = row[0]
            yield unpacked(row[1])

    def dead(self, job: str) -> list[BadRecord]:
        """The records that were put aside."""
        with self._transaction() as run:
            rows = run("SELECT value FROM job_dead WHERE job = ? ORDER BY number", job).fetchall()
        return [BadRecord(**unpacked(row[0])) for row in rows]

    def finish(self, job: str) -> None:
        """Mark a job as done; what only a resume needs goes."""
        with self._transaction() as run:
            run("UPDATE job SET job_finished = 1 WHERE id = ?", job)
            run("DELETE FROM job_state WHERE job = ?", job)
            run("DELETE FROM job_journal WHERE job = ?", job)

    def delete(self, job: str) -> None:
        """Forget a job."""
        with self._transaction() as run:
            for table in _PARTS:
                run(f"DELETE FROM {table} WHERE job = ?", job)  # noqa: S608 - our own table names
            run("DELETE FROM job WHERE id = ?", job)

    def close(self) -> None:
        """Close the connection."""
        self._database.close()


def _job(row: Any) -> Job:
    try:
        return Job(
            id=row[0], created=row[2], last_committed=row[3], finished=bool(row[4]), configuration=json.loads(row[5]),
            position=unpacked(row[6]), figures=unpacked(row[7]) or {}, dead=row[8],
        )  # fmt: skip
    except (ValueError, EncodingError) as error:
        raise StateError(None, f"the state of job {row[0]} is damaged: {error}") from error


def packed(value: Any) -> bytes | None:
    """A value as it is kept.

    Raises:
        EncodingError: it cannot be; where in it, and why.
    """
    return None if value is None else encode({"value": value}, "state")


def unpacked(value: Any) -> Any:
    """What was packed.

    Raises:
        EncodingError: it is damaged.
    """
    return None if value is None else decode(bytes(value))["value"]


def plain_figures(figures: Any) -> Any:
    """Figures that can be kept: a module may note anything, and what it notes must not be able to end the run."""
    try:
        encode({"value": figures}, "figures")
    except EncodingError:
        return json.loads(json.dumps(figures, default=str, skipkeys=True))
    return figures


def _plain_record(bad: BadRecord) -> dict[str, Any]:
    kept = {"data": bad.data, "reason": bad.reason, "where": bad.where, "part": bad.part}
    try:
        encode(kept, "record")
    except EncodingError:
        kept["data"] = repr(bad.data)
    return kept
