"""ResourceManager: one resource open at a time, as long as possible."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from resilient_exporters.tasks.config import BigraysConfig
from resilient_exporters.tasks.resource import BaseResource

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ResourceManager"]


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
