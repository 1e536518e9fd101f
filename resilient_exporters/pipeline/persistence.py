"""Where the state of jobs is kept, by the names and URIs of the old system.

All of these keep the same: a ``Store``. ``PicklePersistence`` is a name only: no pickle is written or read.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, unquote

from resilient_exporters.delivery.directory import state_root
from resilient_exporters.pipeline.checkpoint import Checkpoint, Job, Store
from resilient_exporters.pipeline.errors import ConfigurationError, StateError
from resilient_exporters.pipeline.job_database import shown
from resilient_exporters.pipeline.metadata import ExportMetadata
from resilient_exporters.pipeline.module import Module
from resilient_exporters.pipeline.option import Option

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "BasePersistence", "MysqlPersistence", "PicklePersistence", "PostgresqlPersistence", "SqlitePersistence",
    "persistence_of",
]  # fmt: skip

log = logging.getLogger("export-pipeline")

_DATABASE = "jobs.db"


class BasePersistence(Module):
    """Keeps the state of one job. A subclass says in ``url`` where.

    Attributes:
        job: id of the job: a new one's, or that of the option ``persistence_state_id`` of the run.
        uri_regex: what the URIs of this persistence look like; the last group is the job.
    """

    family = "persistence"
    uri_regex: ClassVar[str] = ""
    scheme: ClassVar[str] = ""

    def __init__(
        self, config: Mapping[str, Any] | None = None, metadata: ExportMetadata | None = None, **options: Any
    ) -> None:
        super().__init__(config, metadata, **options)
        self.job = ""
        self._store: Store | None = None

    def url(self) -> str | Path:
        """Where: a path of an SQLite file, or a SQLAlchemy URL.

        A class of the old style has none: it defines ``generate_new_job``, ``get_last_position`` and
        ``commit_position``, and the pipeline puts the state of all modules into the position.
        """
        raise NotImplementedError(f"{type(self).__name__} must define url()")

    @property
    def store(self) -> Store:
        """The database; opened when it is first asked for."""
        if self._store is None:
            self._store = Store(self.url())
        return self._store

    @property
    def uri(self) -> str:
        """What ``rexport resume`` takes to go on with this job."""
        return f"{self.scheme}://{Path(self.url()).absolute()}:{self.job}"

    def generate_new_job(self, configuration: Mapping[str, Any] | None = None) -> str:
        """Make a job. Returns its id."""
        self.job = self.store.create(configuration or {})
        return self.job

    def get_last_position(self) -> Any:
        """The reader's position as it was last committed; None before."""
        return self.load(self.job).position

    def commit_position(self, last_position: Any) -> None:
        """Commit a position alone. The pipeline commits it with the states of its modules: see ``commit``."""
        self.commit(Checkpoint(position=last_position))

    def commit(self, checkpoint: Checkpoint) -> None:
        """Commit the position and the states of all modules, in one transaction."""
        figures = self.get_all_metadata()
        figures["commited_positions"] = figures.get("commited_positions", 0) + 1  # the old system's spelling
        checkpoint.figures[self.part] = dict(figures)
        self.store.commit(self.job, checkpoint)

    def load(self, job: str) -> Job:
        """What is kept of a job.

        Raises:
            StateError: there is none of this id.
        """
        return self.store.load(job)

    def claim(self, job: str) -> None:
        """Go on with a job: who worked on it before cannot commit any more."""
        self.store.claim(job)

    def states(self, job: str) -> dict[str, Any]:
        """What was kept of the modules, by part."""
        return self.store.states(job)

    def journal(self, job: str, part: str) -> Iterator[list[Any]]:
        """The journal of a module, in the order of its commits."""
        return self.store.journal(job, part)

    def finish(self) -> None:
        """The job is done."""
        self.store.finish(self.job)

    def delete(self) -> None:
        """Forget the job."""
        self.store.delete(self.job)

    def close(self) -> None:
        """Close the database."""
        if self._store is not None:
            self._store.close()
            self._store = None

    @classmethod
    def from_uri(cls, uri: str, regex: str | None = None) -> tuple[Self, str]:
        """The persistence of a stored job, and the job's id.

        Raises:
            ConfigurationError: the URI is none of this class's.
        """
        match = re.fullmatch(regex or cls.uri_regex, uri)
        if match is None:
            raise ConfigurationError(None, f"uri={shown(uri)!r} is none of {cls.__name__}: {cls.uri_regex}")
        options, job = cls._parsed(match)
        return cls(**options), job

    @classmethod
    def configuration_from_uri(
        cls, uri: str, regex: str | None = None, configuration: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The configuration of a stored job, made to resume it.

        Args:
            uri: of the job.
            regex: another ``uri_regex``.
            configuration: given again, because it holds secrets that are not kept; else the one kept with the job.

        Raises:
            ConfigurationError: the URI is none of this class's.
            StateError: there is no such job.
        """
        one, job = cls.from_uri(uri, regex)
        place = one.url()
        if isinstance(place, Path) and not place.is_file():
            raise StateError(None, f"there is no job {job}: {place} is no file")
        try:
            kept = one.load(job).configuration
        finally:
            one.close()
        if configuration is None and "formatter" in kept:  # no section of a configuration: see `described`
            raise StateError(
                None, f"job {job} was made in code: resume it there, by Pipeline(…, resume={job!r}) with the same parts"
            )
        found = dict(kept if configuration is None else configuration)
        found["persistence"] = {"name": cls.__name__, "options": one.options}
        found["exporter_options"] = {
            **(found.get("exporter_options") or {}), "resume": True, "persistence_state_id": job,
        }  # fmt: skip
        return found

    @classmethod
    def _parsed(cls, match: re.Match[str]) -> tuple[dict[str, Any], str]:
        raise NotImplementedError


class SqlitePersistence(BasePersistence):
    """The default: an SQLite file. URI: ``sqlite://path.db:JOB``."""

    scheme = "sqlite"
    uri_regex = r"sqlite://(.+):([^:/]+)"
    supported_options = {
        "database": Option(
            type=str, default=None, help="Path of the file; default: jobs.db in the state folder of this package."
        ),
        **{
            name: Option(type=(str, int), default=None, help="Read for the sake of old configurations, and not used.")
            for name in ("user", "password", "host", "port")
        },
    }

    def url(self) -> Path:
        """The path."""
        given = self.read_option("database")
        return Path(given) if given else state_root() / "pipelines" / _DATABASE

    @classmethod
    def _parsed(cls, match: re.Match[str]) -> tuple[dict[str, Any], str]:
        return {"database": match[1]}, match[2]


class PicklePersistence(SqlitePersistence):
    """The old default by its name: an SQLite file in a directory. URI: ``pickle://directory/JOB``."""

    scheme = "pickle"
    uri_regex = r"pickle:(?://)?(.*)"
    supported_options = {
        "file_path": Option(type=str, default=None, help="A directory; default: the state folder of this package."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        log.warning("%s keeps the job in an SQLite file, not in a pickle: use SqlitePersistence", type(self).__name__)

    def url(self) -> Path:
        """The path of the file in the directory."""
        given = self.read_option("file_path")
        return (Path(given) if given else state_root() / "pipelines") / _DATABASE

    @property
    def uri(self) -> str:
        """``pickle://directory/JOB``."""
        return f"pickle://{self.url().absolute().parent}/{self.job}"

    @classmethod
    def _parsed(cls, match: re.Match[str]) -> tuple[dict[str, Any], str]:
        path = Path(match[1])
        return {"file_path": str(path.parent)}, path.name.removesuffix(".pickle")


class _ServerPersistence(BasePersistence):
    driver: ClassVar[str] = ""
    usual_port: ClassVar[int] = 0
    supported_options = {
        "user": Option(type=str, default=None, help="User."),
        "password": Option(
            type=str,
            default=None,
            env_fallback="EXPORTERS_PERSISTENCE_PASSWORD",
            secret=True,
            help="Password.",
        ),
        "host": Option(type=str, default="localhost", help="Host."),
        "port": Option(type=(int, str), default=None, help="Port; default: that of the database."),
        "database": Option(type=str, help="Name of the database; the tables job, job_state, … are made in it."),
    }

    def url(self) -> str:
        """The SQLAlchemy URL."""
        return f"{self.driver}://{self._address(self.read_option('password'))}"

    @property
    def uri(self) -> str:
        """``scheme://user@host:port/database/JOB``, without the password."""
        return f"{self.scheme}://{self._address(None)}/{self.job}"

    def _address(self, password: str | None) -> str:
        user = self.read_option("user")
        secret = "" if password is None else f":{quote(password, safe='')}"
        who = "" if user is None else quote(user, safe="") + secret
        port = self.read_option("port", self.usual_port)
        return f"{who}{'@' if who else ''}{self.read_option('host')}:{port}/{self.read_option('database')}"

    @classmethod
    def _parsed(cls, match: re.Match[str]) -> tuple[dict[str, Any], str]:
        found = match.groupdict()
        job = found.pop("job")
        return {name: unquote(value) for name, value in found.items() if value is not None}, job


_SERVER_URI = (
    r"(?:(?P<user>[^:@/]+)(?::(?P<password>[^/]*))?@)?(?P<host>[^:/]+)(?::(?P<port>\d+))?"
    r"/(?P<database>[^/]+)/(?P<job>[^/]+)"
)


class PostgresqlPersistence(_ServerPersistence):
    """A PostgreSQL database. URI: ``postgresql://user:password@host:port/database/JOB``."""

    scheme, driver, usual_port = "postgresql", "postgresql+psycopg", 5432
    uri_regex = f"postgresql://{_SERVER_URI}"


class MysqlPersistence(_ServerPersistence):
    """A MySQL or MariaDB database. URI: ``mysql://user:password@host:port/database/JOB``."""

    scheme, driver, usual_port = "mysql", "mysql+pymysql", 3306
    uri_regex = f"mysql://{_SERVER_URI}"


def persistence_of(uri: str) -> type[BasePersistence]:
    """The class for a URI.

    Raises:
        ConfigurationError: there is none.
    """
    for cls in (SqlitePersistence, PicklePersistence, PostgresqlPersistence, MysqlPersistence):
        if re.fullmatch(cls.uri_regex, uri):
            return cls
    raise ConfigurationError(
        None, f"uri={shown(uri)!r} is no stored job: give sqlite://path.db:JOB, pickle://directory/JOB, "
        "postgresql://user:password@host:port/database/JOB or mysql://… of the same form"
    )  # fmt: skip
