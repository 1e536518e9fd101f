"""Every error of tasks, in one tree.

::

    ResilientExporterException
    └── BigRaysError (= BigraysError)
        ├── ConfigurationError       a setting that a resource needs is missing, or cannot be
        ├── ResourceError            a resource could not be opened or closed, or is not open
        ├── TasksFailed              the end of a run in which tasks failed; ``.exceptions`` has all of them
        └── TaskError                a task cannot do what it was asked to
            ├── TaskInterfaceError   a task class lacks something, or uses what is not there in time
            ├── OutputNotReady       (also AttributeError) an output was read before its task ran
            └── InputError           (also ValueError) an input that the task cannot take
    FormattedSQLWarning (a UserWarning)   text was formatted into SQL where a bound parameter is safe
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from resilient_exporters.errors import ResilientExporterException

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "BigRaysError",
    "BigraysError",
    "ConfigurationError",
    "FormattedSQLWarning",
    "InputError",
    "OutputNotReady",
    "ResourceError",
    "TaskError",
    "TaskFailure",
    "TaskInterfaceError",
    "TasksFailed",
]


class BigRaysError(ResilientExporterException):
    """Base of the errors of tasks."""


BigraysError = BigRaysError


class ConfigurationError(BigRaysError):
    """A setting is missing or cannot be; the text names the resource, the setting and its environment variable."""


class ResourceError(BigRaysError):
    """A resource could not be opened or closed, or is not open."""


class TaskError(BigRaysError):
    """A task cannot do what it was asked to. It is not tried again."""


class TaskInterfaceError(TaskError):
    """A task class lacks something, or uses what is not there in time."""


class OutputNotReady(TaskError, AttributeError):
    """The output of a task was read before the task ran."""


class InputError(TaskError, ValueError):
    """An input that the task cannot take."""


class FormattedSQLWarning(UserWarning):
    """A format keyword became part of a SQL text; ``params`` would bind it as a value."""


class TaskFailure(NamedTuple):
    """One task that failed.

    Attributes:
        task: its name, or that of the resource that could not be closed.
        error: what it raised.
    """

    task: str
    error: Exception


if sys.version_info >= (3, 11):
    _Group = ExceptionGroup  # noqa: F821 - Python 3.11's
else:

    class _Group(Exception):
        """What Python 3.10 lacks: ``message`` and ``exceptions``."""

        def __class_getitem__(cls, item: Any) -> type[Self]:
            return cls

        def __new__(cls, message: str, exceptions: Sequence[Exception]) -> Self:
            made = super().__new__(cls, message, exceptions)
            made.message, made.exceptions = message, tuple(exceptions)
            return made


class TasksFailed(BigRaysError, _Group[Exception]):
    """A run in which tasks failed. From Python 3.11 on it is an ``ExceptionGroup``, and ``except*`` takes it apart.

    Its ``__cause__`` is the last failure; the earlier ones are in that one's context.

    Attributes:
        failures: task and error, in the order of the run.
        exceptions: the errors alone.
        skipped: names of the tasks that did not run.
    """

    message: str
    exceptions: tuple[Exception, ...]

    def __new__(cls, failures: Sequence[TaskFailure], skipped: Sequence[str] = ()) -> Self:
        """Make the group; its text is that of ``__init__``."""
        return super().__new__(cls, _text(failures, skipped), [one.error for one in failures])

    def __init__(self, failures: Sequence[TaskFailure], skipped: Sequence[str] = ()) -> None:
        super().__init__(None, _text(failures, skipped), [one.error for one in failures])
        self.failures = tuple(failures)
        self.skipped = tuple(skipped)

    if sys.version_info >= (3, 11):

        def derive(self, excs: Sequence[Any], /) -> Any:
            """Some of the errors: a plain group, since which tasks they belong to is not known any more."""
            return ExceptionGroup(self.message, excs)  # noqa: F821 - as above


def _text(failures: Sequence[TaskFailure], skipped: Sequence[str]) -> str:
    lines = [f"{len(failures)} task{'s' * (len(failures) > 1)} failed:"]
    lines += [f"  {one.task}: {type(one.error).__name__}: {one.error}" for one in failures]
    if skipped:
        lines.append(f"skipped: {', '.join(skipped)}")
    return "\n".join(lines)
