"""Placeholder: the output of a task that has not run yet, and the mark of attributes that must be given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

from resilient_exporters.tasks.errors import OutputNotReady

if TYPE_CHECKING:
    from resilient_exporters.tasks.task import BaseTask

__all__ = ["REQUIRED_ATTRIBUTE", "Placeholder", "placeholders", "resolve"]


class _Required:
    """Stands where a subclass must say something."""

    def __repr__(self) -> str:
        return "REQUIRED_ATTRIBUTE"


REQUIRED_ATTRIBUTE: Final[Any] = _Required()


class Placeholder:
    """Stands for the output of a task until it has run. As an attribute of a task it reads as that output.

    Args:
        task: whose output.
    """

    def __init__(self, task: type[BaseTask]) -> None:
        self.task = task

    @property
    def ready(self) -> bool:
        """Whether the task has run."""
        return "_output" in vars(self.task)

    @property
    def value(self) -> Any:
        """The output.

        Raises:
            OutputNotReady: the task has not run, or failed.
        """
        if not self.ready:
            self._too_early()
        return vars(self.task)["_output"]

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """As an attribute of a task: the output. Of a class, this, as long as there is none."""
        return self if instance is None and not self.ready else self.value

    def __getattr__(self, name: str) -> Any:
        """Nothing else is here: who asks takes it for the output."""
        if name.startswith("__"):
            raise AttributeError(name)
        self._too_early()

    def __getitem__(self, key: object) -> Any:
        self._too_early()

    def __iter__(self) -> Iterator[Any]:
        self._too_early()

    def __len__(self) -> int:  # noqa: PLE0303 - it never returns
        self._too_early()

    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)

    def __repr__(self) -> str:
        return f"<{self.task.__name__}.output>"

    def _too_early(self) -> NoReturn:
        raise OutputNotReady(
            f"{self.task.__name__}.output is there when {self.task.__name__} has run, which it has not; "
            "use it in run(), or whole as an attribute: input = "
            f"{self.task.__name__}.output"
        )


def placeholders(value: Any) -> Iterator[Placeholder]:
    """All in a value: itself, or in mappings, lists and tuples."""
    if isinstance(value, Placeholder):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from placeholders(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from placeholders(each)


def resolve(value: Any) -> Any:
    """A value with the outputs in the place of placeholders.

    Raises:
        OutputNotReady: a task has not run.
    """
    if isinstance(value, Placeholder):
        return value.value
    if next(placeholders(value), None) is None:
        return value
    if isinstance(value, Mapping):
        return {key: resolve(each) for key, each in value.items()}
    return type(value)(resolve(each) for each in value)
