"""Resource: something opened once and shared by consecutive tasks; the manager keeps one open at a time."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.tasks.config import BigraysConfig, environment_name, flag, odbc_string, setting
from resilient_exporters.tasks.errors import ConfigurationError, ResourceError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BaseResource", "ResourceManager", "S3Client", "SNSClient", "SQLSession"]

_log = logging.getLogger("bigrays")


class BaseResource:
    """Something that is opened, shared and closed. The class itself is the resource; there are no instances.

    A subclass defines ``_open(cls, config)``, a class method that returns the open thing, and perhaps
    ``_close(cls, *exc)``; this one is told of the exception that ended the run, and swallows it by returning True.

    Attributes:
        required_configs: names of settings without which it cannot be opened.
    """

    required_configs: ClassVar[Iterable[str]] = ()
    _resource: ClassVar[Any] = None

    def __init__(self, *_: Any, **__: Any) -> None:
        raise TypeError(f"{type(self).__name__} cannot be instantiated: the class is the resource")

    @classmethod
    def resource(cls) -> Any:
        """The open thing.

        Raises:
            RuntimeError: it is not open; a task says so with ``required_resource``.
        """
        if cls._resource is None:
            raise RuntimeError(f"{cls.__name__} is not open; set required_resource = {cls.__name__} in the task")
        return cls._resource

    @classmethod
    def open(cls, config: Any) -> type[Self]:
        """Open it.

        Raises:
            ResourceError: that failed.
        """
        _log.info("opening resource: %s", cls.__name__)
        try:
            cls._resource = cls._open(config)
        except Exception as error:
            raise ResourceError(f"{cls.__name__} could not be opened: {cls.explain(error)}") from error
        return cls

    @classmethod
    def close(cls, *exc: Any) -> bool:
        """Close it.

        Args:
            *exc: type, exception and traceback of what ended the run, or nothing.

        Returns:
            Whether that exception is to be swallowed.

        Raises:
            ResourceError: it is not open, or closing failed; then it counts as closed.
        """
        _log.info("closing resource: %s", cls.__name__)
        if cls._resource is None:
            raise ResourceError(f"{cls.__name__} cannot be closed: it is not open")
        try:
            return bool(cls._close(*(exc or (None, None, None))))
        except Exception as error:
            raise ResourceError(f"{cls.__name__} could not be closed: {cls.explain(error)}") from error
        finally:
            cls._resource = None

    @classmethod
    def settle(cls, error: BaseException | None) -> None:
        """A task that used it has ended, well or with an error. Does nothing by default."""

    @classmethod
    def missing_configs(cls, config: Any) -> list[str]:
        """The settings that are missing, each as a person would be told."""
        return [name for name in cls.required_configs if setting(config, name) is None]

    @classmethod
    def check(cls, config: Any) -> None:
        """What can be checked without opening it.

        Raises:
            ConfigurationError: a setting is missing, or cannot be.
            MissingModuleError: an extra is not installed.
        """
        if missing := cls.missing_configs(config):
            variables = ", ".join(environment_name(name) for name in missing)
            raise ConfigurationError(
                f"{cls.__name__} requires the setting(s) {', '.join(missing)}: assign them to BigraysConfig, "
                f"or set {variables} in the environment"
            )

    @classmethod
    def describe(cls, config: Any) -> str:  # noqa: ARG003 - for subclasses
        """Name and address for a plan, without secrets."""
        return cls.__name__

    @classmethod
    def explain(cls, error: BaseException) -> str:
        """An error in a line."""
        return f"{type(error).__name__}: {error}"

    @classmethod
    def _open(cls, config: Any) -> Any:
        raise NotImplementedError(f"{cls.__name__} defines no _open(config)")

    @classmethod
    def _close(cls, *exc: Any) -> bool | None:  # noqa: ARG003 - for subclasses
        return False


class SQLSession(BaseResource):
    """A SQLAlchemy connection. Temporary tables last as long as it is open.

    What a task did is committed when it ends well, and rolled back when it fails.
    """

    @classmethod
    def missing_configs(cls, config: Any) -> list[str]:
        """``DB_URL``, unless something else says which database."""
        if any(setting(config, name) is not None for name in ("DB_URL", "DB_DSN", "ODBC_SERVER")):
            return []
        return ["DB_URL"]

    @classmethod
    def check(cls, config: Any) -> None:
        """Besides: that the URL is one, and that its driver is installed."""
        super().check(config)
        cls.url(config)

    @classmethod
    def url(cls, config: Any) -> Any:
        """The SQLAlchemy URL.

        Raises:
            ConfigurationError: there is none in the settings, or it is none.
            MissingModuleError: SQLAlchemy or the driver is not installed.
        """
        try:
            from resilient_exporters.exporters.sql_engine import database_url
        except ModuleNotFoundError as error:
            raise MissingModuleError(
                None, f"{cls.__name__} needs SQLAlchemy: pip install 'resilient-exporters[sql]'"
            ) from error
        import sqlalchemy as sa

        dsn = setting(config, "DB_DSN")
        given = setting(config, "DB_URL") or (dsn if "://" in str(dsn or "") else None)
        if given is None:
            flavor = setting(config, "ODBC_FLAVOR")
            given = sa.URL.create(f"{flavor}+pyodbc", query={"odbc_connect": odbc_string(config)})
        try:
            url = database_url(given)
        except ValueError as error:  # its text holds no password
            raise ConfigurationError(f"DB_URL (or DB_DSN) is no database: {error}") from None
        if url.get_backend_name() != "sqlite" and "odbc_connect" not in url.query:
            user, password = setting(config, "DB_USER"), setting(config, "DB_PWD")
            url = url.set(username=url.username or user, password=url.password or password)
        return url

    @classmethod
    def describe(cls, config: Any) -> str:
        """With the database's address."""
        url = cls.url(config)
        shown = (
            f"{url.get_backend_name()}, ODBC" if "odbc_connect" in url.query else url.set(query={}).render_as_string()
        )
        return f"{cls.__name__} ({shown})"

    @classmethod
    @contextlib.contextmanager
    def transaction(cls) -> Iterator[Any]:
        """The connection, in a transaction of its own; or in that which the task began, to be settled at its end."""
        connection = cls.resource()
        if connection.in_transaction():
            yield connection
            return
        with connection.begin():
            yield connection

    @classmethod
    def settle(cls, error: BaseException | None) -> None:
        """Commit, or roll back."""
        connection = cls._resource
        if connection is not None and connection.in_transaction():
            if error is None:
                connection.commit()
            else:
                connection.rollback()

    @classmethod
    def explain(cls, error: BaseException) -> str:
        """The driver's own words: SQLAlchemy's add a link and the statement."""
        return f"{type(error).__name__}: {getattr(error, 'orig', None) or error}"

    @classmethod
    def _open(cls, config: Any) -> Any:
        import sqlalchemy as sa

        return sa.create_engine(cls.url(config), poolclass=sa.pool.NullPool, hide_parameters=True).connect()

    @classmethod
    def _close(cls, *exc: Any) -> bool:  # noqa: ARG003 - the exception is raised as it is
        connection = cls.resource()
        connection.close()
        connection.engine.dispose()
        return False


class AWSClient(BaseResource):
    """A boto3 client."""

    client_name: ClassVar[str]
    needs_region: ClassVar[bool] = False

    @classmethod
    def missing_configs(cls, config: Any) -> list[str]:
        """Keys, unless ``AWS_REQUIRE_SECRETS`` is false; and the region where there is no default."""
        names = ["AWS_REGION"] if cls.needs_region else []
        if flag(config, "AWS_REQUIRE_SECRETS"):
            names = ["S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY", *names]
        return [name for name in names if setting(config, name) is None]

    @classmethod
    def check(cls, config: Any) -> None:
        """Besides: that boto3 is installed."""
        super().check(config)
        try:
            import boto3  # noqa: F401 - only asked for
        except ModuleNotFoundError as error:
            raise MissingModuleError(
                None, f"{cls.__name__} needs boto3: pip install 'resilient-exporters[aws]'"
            ) from error

    @classmethod
    def _open(cls, config: Any) -> Any:
        import boto3

        given = {
            "aws_access_key_id": setting(config, "AWS_ACCESS_KEY_ID"),
            "aws_secret_access_key": setting(config, "AWS_SECRET_ACCESS_KEY"),
            "aws_session_token": setting(config, "AWS_SESSION_TOKEN"),
            "region_name": setting(config, "AWS_REGION"),
            "endpoint_url": setting(config, "AWS_ENDPOINT_URL"),
        }
        return boto3.client(cls.client_name, **{name: value for name, value in given.items() if value is not None})

    @classmethod
    def _close(cls, *exc: Any) -> bool:  # noqa: ARG003 - the exception is raised as it is
        cls.resource().close()
        return False


class S3Client(AWSClient):
    """A boto3 client of S3."""

    client_name = "s3"


class SNSClient(AWSClient):
    """A boto3 client of SNS."""

    client_name = "sns"
    needs_region = True


class ResourceManager:
    """Keeps one resource open at a time, as long as possible: until another one is needed, or the block ends.

    Args:
        config: for resources that are opened without one of their own.
    """

    def __init__(self, config: Any = BigraysConfig) -> None:
        self._default = config
        self._open: tuple[type[BaseResource], Any] | None = None

    @property
    def current(self) -> type[BaseResource] | None:
        """The resource that is open."""
        return None if self._open is None else self._open[0]

    def open_resource(self, resource: type[BaseResource] | None, config: Any = None) -> None:
        """See to it that a resource is open; None: nothing is needed, and what is open stays open.

        Args:
            resource: its class.
            config: another configuration than the default. The same resource with another one is another.

        Raises:
            ResourceError: it could not be opened, or the one before not closed.
        """
        if resource is None:
            return
        wanted = (resource, self._default if config is None else config)
        if self._open is not None and self._open[0] is wanted[0] and self._open[1] is wanted[1]:
            return
        self.close()
        resource.open(wanted[1])
        self._open = wanted

    def settle(self, resource: type[BaseResource] | None, error: BaseException | None) -> None:
        """A task that used this resource has ended."""
        if resource is not None and resource is self.current:
            resource.settle(error)

    def close(self, *exc: Any) -> bool:
        """Close what is open. Returns whether the exception is to be swallowed."""
        if self._open is None:
            return False
        (resource, _), self._open = self._open, None
        return resource.close(*exc)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self.close(kind, error, trace)
