"""Every error this package raises, in one tree.

::

    ResilientExporterException
    ├── MissingModuleError   (also ModuleNotFoundError)   an extra is not installed
    ├── MissingConfigError   (also ValueError)            an option that is needed was not given
    ├── InvalidConfigError   (also ValueError)            an option has a value it cannot have
    ├── EncodingError        (also TypeError, ValueError) a record holds a value that cannot be kept
    ├── TransformError                                    the transform raised, or gave nothing back
    ├── QueueFullError                                    no room, and ``on_full`` says so
    ├── QueueLockedError                                  another process holds the queue directory
    ├── ClosedError                                       the exporter was closed before
    └── ExportError                                       a delivery went wrong
        ├── ConnectionError  (also builtins.ConnectionError)   the target cannot be reached
        ├── TimeoutError     (also builtins.TimeoutError)      no answer in time
        ├── DataTypeError    (also TypeError)                  the target cannot hold this value
        ├── RetryableError                                     the target asks to try again later
        ├── RejectedError                                      the target refuses the record for good
        └── HoldError                                          someone has to mend something first

The names of the original system are all here, with the same constructor.
"""

from __future__ import annotations

import builtins

__all__ = [
    "ClosedError",
    "ConnectionError",
    "DataTypeError",
    "EncodingError",
    "ExportError",
    "HoldError",
    "InvalidConfigError",
    "MissingConfigError",
    "MissingModuleError",
    "QueueFullError",
    "QueueLockedError",
    "RejectedError",
    "ResilientExporterException",
    "RetryableError",
    "TimeoutError",
    "TransformError",
]


class ResilientExporterException(Exception):
    """Base of all errors of this package.

    Args:
        exporter: the exporter concerned, or None. Its class and name are put in front of the text.
        message: what happened and what to do next.
        *args: further arguments, kept in ``args``.

    An error made with one text only (``RejectedError("no such column")``) takes it as the message.

    Attributes:
        type: class name of the exporter, or None.
        name: name of the exporter, or None.
        content: the message without the exporter in front.
    """

    def __init__(self, exporter: object = None, message: object = None, *args: object) -> None:
        if message is None and isinstance(exporter, (str, BaseException)):
            exporter, message = None, str(exporter)
        self.type = None if exporter is None else exporter.__class__.__name__
        name = getattr(exporter, "name", None)
        self.name = None if name is None else str(name)
        self.content = "" if message is None else str(message)
        if exporter is None:
            text = self.content
        else:
            text = f"{self.type} {self.name or ''}".rstrip() + (f": {self.content}" if self.content else "")
        super().__init__(text, *args)

    def __str__(self) -> str:
        return str(self.args[0])


class MissingModuleError(ResilientExporterException, ModuleNotFoundError):
    """A module that this exporter needs is not installed; the text names the extra to install."""


class MissingConfigError(ResilientExporterException, ValueError):
    """An option without which there is nothing to do was given neither to the exporter nor to ``send``."""


class InvalidConfigError(ResilientExporterException, ValueError):
    """An option has a value that it cannot have; the text names option, value and what would be right."""


class EncodingError(ResilientExporterException, TypeError, ValueError):
    """A record, or a value in it, cannot be kept and restored exactly; the text names its path."""


class TransformError(ResilientExporterException):
    """The transform of an exporter or pool raised, or returned None. Nothing was queued."""


class QueueFullError(ResilientExporterException):
    """The queue has no room for the record and ``on_full`` is "raise", or "block" and time ran out."""


class QueueLockedError(ResilientExporterException):
    """Another process holds the queue directory; the text names it."""


class ClosedError(ResilientExporterException):
    """The exporter was closed; it takes no more records."""


class ExportError(ResilientExporterException):
    """A delivery went wrong. Raised by itself it is unclear: the batch is bisected and tried again."""


class ConnectionError(ExportError, builtins.ConnectionError):
    """The target cannot be reached. The records wait."""


class TimeoutError(ExportError, builtins.TimeoutError):
    """No answer in time. The records wait."""


class DataTypeError(ExportError, TypeError):
    """The target cannot hold a value of this type. The record becomes a dead letter."""


class RetryableError(ExportError):
    """The target asks to try again later.

    Args:
        after: seconds that the target asked to wait, or None.
    """

    def __init__(
        self, exporter: object = None, message: object = None, *args: object, after: float | None = None
    ) -> None:
        super().__init__(exporter, message, *args)
        self.after = after


class RejectedError(ExportError):
    """The target refuses this record for good. It becomes a dead letter."""


class HoldError(ExportError):
    """Someone has to mend something first: credentials, a missing database, a wrong version."""
