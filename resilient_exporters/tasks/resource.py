"""Resource: something that is opened once and shared by consecutive tasks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from resilient_exporters.tasks.config import environment_name, setting
from resilient_exporters.tasks.errors import ConfigurationError, ResourceError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BaseResource"]

_log = logging.getLogger("bigrays")
_lock = threading.Lock()


class BaseResource:
    """Something that is opened, shared and closed. The class itself is the resource; there are no instances.

    A subclass defines ``_open(cls, config)``, a class method that returns the open thing, and perhaps
    ``_close(cls, *exc)``; this one is told of the exception that ended the run, and swallows it by returning True.

    Attributes:
        required_configs: names of settings without which it cannot be opened.
    """

    required_configs: ClassVar[Iterable[str]] = ()
    _opened: ClassVar[list[tuple[int, Any]]] = []
    """Thread and open thing: runs in several threads, and a run within a task of another, each have their own."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._opened = []

    def __init__(self, *_: Any, **__: Any) -> None:
        raise TypeError(f"{type(self).__name__} cannot be instantiated: the class is the resource")

    @classmethod
    def resource(cls) -> Any:
        """The open thing: that of this thread, or of the only other one that has it open.

        Raises:
            RuntimeError: it is not open; a task says so with ``required_resource``.
        """
        mine = cls._mine()
        if mine is not None:
            return mine[1]
        others = dict(cls._opened)
        if len(others) == 1:
            return next(iter(others.values()))
        raise RuntimeError(f"{cls.__name__} is not open; set required_resource = {cls.__name__} in the task")

    @classmethod
    def _mine(cls) -> tuple[int, Any] | None:
        """The newest one of this thread."""
        me = threading.get_ident()
        return next((one for one in reversed(tuple(cls._opened)) if one[0] == me), None)

    @classmethod
    def open(cls, config: Any) -> type[Self]:
        """Open it.

        Raises:
            ResourceError: that failed.
        """
        _log.info("opening resource: %s", cls.__name__)
        try:
            thing = cls._open(config)
        except Exception as error:
            raise ResourceError(f"{cls.__name__} could not be opened: {cls.explain(error)}") from error
        with _lock:
            cls._opened.append((threading.get_ident(), thing))
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
        mine = cls._mine()
        if mine is None:
            raise ResourceError(f"{cls.__name__} cannot be closed: it is not open")
        try:
            return bool(cls._close(*(exc or (None, None, None))))
        except Exception as error:
            raise ResourceError(f"{cls.__name__} could not be closed: {cls.explain(error)}") from error
        finally:
            with _lock:
                cls._opened[:] = [one for one in cls._opened if one is not mine]

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
