"""The tasks that were defined, in their order: what a run without a list runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resilient_exporters.tasks.task import BaseTask

__all__ = ["TASK_REGISTER", "Registry"]


class Registry:
    """The tasks that were defined, in their order."""

    def __init__(self) -> None:
        self._tasks: list[type[BaseTask]] = []

    def add(self, task: type[BaseTask]) -> None:
        """One more, at the end."""
        self._tasks.append(task)

    def clear(self) -> None:
        """Forget all: the next definition is the first."""
        self._tasks.clear()

    @contextlib.contextmanager
    def isolated(self) -> Iterator[Registry]:
        """Within it the list is empty at first; afterwards it is what it was. For tests, and for modules by name."""
        before, self._tasks = self._tasks, []
        try:
            yield self
        finally:
            self._tasks = before

    def __iter__(self) -> Iterator[type[BaseTask]]:
        return iter(tuple(self._tasks))

    def __len__(self) -> int:
        return len(self._tasks)

    def __getitem__(self, index: int) -> type[BaseTask]:
        return self._tasks[index]


TASK_REGISTER = Registry()
