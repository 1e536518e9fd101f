"""The state of jobs in a database: position, states, journals and put-aside records, in one transaction a batch.

Values are MessagePack of our codec, so that positions keep their types and nothing in them can run.
"""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from resilient_exporters.codec import decode, encode
from resilient_exporters.delivery.directory import make_directory
from resilient_exporters.pipeline.bad_records import BadRecord
from resilient_exporters.pipeline.errors import StateError

__all__ = ["Checkpoint", "Job", "Store"]

log = logging.getLogger("export-pipeline")

_VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS job (
    id VARCHAR(64) PRIMARY KEY, version INTEGER NOT NULL, created DOUBLE PRECISION NOT NULL,
    last_committed DOUBLE PRECISION, job_finished INTEGER NOT NULL, configuration {text} NOT NULL,
    last_position {blob}, figures {blob});
CREATE TABLE IF NOT EXISTS job_state (
    job VARCHAR(64) NOT NULL, part VARCHAR(64) NOT NULL, value {blob} NOT NULL, PRIMARY KEY (job, part));
CREATE TABLE IF NOT EXISTS job_journal (
    job VARCHAR(64) NOT NULL, part VARCHAR(64) NOT NULL, number BIGINT NOT NULL, value {blob} NOT NULL,
    PRIMARY KEY (job, part, number));
CREATE TABLE IF NOT EXISTS job_dead (
    job VARCHAR(64) NOT NULL, number BIGINT NOT NULL, created DOUBLE PRECISION NOT NULL, value {blob} NOT NULL,
    PRIMARY KEY (job, number));
"""
_TYPES = {
    "sqlite": {"text": "TEXT", "blob": "BLOB"},
    "postgresql": {"text": "TEXT", "blob": "BYTEA"},
    "mysql": {"text": "LONGTEXT", "blob": "LONGBLOB"},
}
_PARTS = ("job_state", "job_journal", "job_dead")
_EXTRAS = {"postgresql": "postgres", "mysql": "mysql"}


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
    created: float
    last_committed: float | None
    finished: bool
    configuration: dict[str, Any]
    position: Any
    figures: dict[str, Any]
    dead: int


class Store:
    """The jobs of one database. Used by one thread at a time; any thread may be that one.

    Args:
        url: a path of an SQLite file, made with its directory if need be; or a SQLAlchemy URL of a PostgreSQL or
            MySQL database.

    Raises:
        StateError: it cannot be opened.
        MissingModuleError: the extra of that database is not installed.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = url
        self.dialect = "sqlite"
        self._lock = threading.RLock()
        try:
            self._connection = self._connect(url)
            with self._transaction() as run:
                for statement in _TABLES.format(**_TYPES[self.dialect]).split(";"):
                    if statement.strip():
                        run(statement)
        except StateError:
            raise
        except Exception as error:
            if _of_database(error) or isinstance(error, OSError):
                raise StateError(None, f"the state of jobs in {_shown(url)} cannot be used: {error}") from error
            raise

    def _connect(self, url: str | Path) -> Any:
        if isinstance(url, str) and "://" in url:
            from resilient_exporters.errors import MissingModuleError

            self.dialect = re.split(r"[+:]", url, maxsplit=1)[0].replace("mariadb", "mysql")
            if self.dialect not in _TYPES:
                raise StateError(None, f"state of jobs: {self.dialect!r} is none of {', '.join(_TYPES)}")
            try:
                import sqlalchemy

                return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool).raw_connection()
            except ModuleNotFoundError as error:
                extra = _EXTRAS.get(self.dialect, "sql")
                raise MissingModuleError(
                    None, f"state of jobs in {self.dialect} needs {error.name}: "
                    f"pip install 'resilient-exporters[{extra}]'"
                ) from error  # fmt: skip
        path = Path(url)
        make_directory(path.absolute().parent)
        path.touch(mode=0o600)
        connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """Run statements with ``?`` for values, all of them or none."""
        with self._lock:
            cursor = self._connection.cursor()
            mark = "?" if self.dialect == "sqlite" else "%s"

            def run(statement: str, *values: Any) -> Any:
                cursor.execute(statement.replace("?", mark), values)
                return cursor

            try:
                if self.dialect == "sqlite":
                    cursor.execute("BEGIN IMMEDIATE")
                yield run
                self._connection.commit()
            except BaseException:
                self._connection.rollback()
                raise
            finally:
                cursor.close()

    def create(self, configuration: Mapping[str, Any], job: str | None = None) -> str:
        """Make a job. Returns its id."""
        job = job or uuid.uuid4().hex
        with self._transaction() as run:
            run(
                "INSERT INTO job (id, version, created, job_finished, configuration) VALUES (?, ?, ?, 0, ?)",
                job, _VERSION, time.time(), json.dumps(configuration, default=str),
            )  # fmt: skip
        return job

    def commit(self, job: str, checkpoint: Checkpoint) -> None:
        """Write a checkpoint: all of it, synced, or nothing.

        Raises:
            StateError: the job is gone, or the database does not take it.
        """
        try:
            with self._transaction() as run:
                found = run(
                    "UPDATE job SET last_position = ?, figures = ?, last_committed = ? WHERE id = ?",
                    _packed(checkpoint.position), _packed(checkpoint.figures), time.time(), job,
                ).rowcount  # fmt: skip
                if not found:
                    raise StateError(None, f"job {job} is gone from {_shown(self.url)}")
                for part, value in checkpoint.states.items():
                    run("DELETE FROM job_state WHERE job = ? AND part = ?", job, part)
                    run("INSERT INTO job_state (job, part, value) VALUES (?, ?, ?)", job, part, _packed(value))
                for part, entries in checkpoint.journals.items():
                    if entries:
                        number = self._next(run, "job_journal", job, part)
                        run(
                            "INSERT INTO job_journal (job, part, number, value) VALUES (?, ?, ?, ?)",
                            job, part, number, _packed(entries),
                        )  # fmt: skip
                for bad in checkpoint.dead:
                    number = self._next(run, "job_dead", job)
                    run(
                        "INSERT INTO job_dead (job, number, created, value) VALUES (?, ?, ?, ?)",
                        job, number, time.time(), _packed(msgspec.to_builtins(bad, builtin_types=(bytes,))),
                    )  # fmt: skip
        except StateError:
            raise
        except Exception as error:
            if _of_database(error):
                raise StateError(None, f"job {job}: its state cannot be written: {error}") from error
            raise

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
            raise StateError(None, f"there is no job {job} in {_shown(self.url)}")
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
        return [
            Job(
                id=row[0], created=row[2], last_committed=row[3], finished=bool(row[4]),
                configuration=json.loads(row[5]), position=_unpacked(row[6]), figures=_unpacked(row[7]) or {},
                dead=row[8],
            )
            for row in rows
        ]  # fmt: skip

    def states(self, job: str) -> dict[str, Any]:
        """What was kept of the modules, by part."""
        with self._transaction() as run:
            rows = run("SELECT part, value FROM job_state WHERE job = ?", job).fetchall()
        return {part: _unpacked(value) for part, value in rows}

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
            yield _unpacked(row[1])

    def dead(self, job: str) -> list[BadRecord]:
        """The records that were put aside."""
        with self._transaction() as run:
            rows = run("SELECT value FROM job_dead WHERE job = ? ORDER BY number", job).fetchall()
        return [BadRecord(**_unpacked(row[0])) for row in rows]

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
        self._connection.close()


def _packed(value: Any) -> bytes | None:
    return None if value is None else encode({"value": value}, "state")


def _unpacked(value: Any) -> Any:
    return None if value is None else decode(bytes(value))["value"]


def _of_database(error: BaseException) -> bool:
    """Whether it comes from a driver: each has a tree of its own, with names that are the same everywhere."""
    return any(kind.__name__ in ("DatabaseError", "InterfaceError", "SQLAlchemyError") for kind in type(error).__mro__)


def _shown(url: str | Path) -> str:
    return re.sub(r"//[^@/]*@", "//…@", str(url))
