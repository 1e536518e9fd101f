"""Every error of a pipeline, in one tree.

::

    InvalidConfigError
    └── ConfigurationError              a configuration, or an option in it, that cannot be
        ├── ConfigCheckError            all that is wrong with a configuration, in ``errors``
        ├── InvalidExpression           an expression that is none, or that is not allowed
        ├── InvalidDateRangeError       a range of dates that ends before it begins
        ├── InvalidOperator             a filter's operator that there is not
        ├── InvalidMailProvided         a mail address that is none
        └── UnsupportedCompressionFormat
    PipelineError                       (ResilientExporterException)
    ├── ExpressionError                 an expression that cannot be computed for a record
    │   └── LimitExceeded               it would take too much time or memory
    ├── BadRecordError                  a record that cannot be read, and ``on_bad_record`` is "fail"
    ├── ItemsLimitReached               the end of a run that has a limit: no failure
    ├── InconsistentWriteState          what lies at the target is not what was written
    ├── MaxMailsSent                    more mails than allowed
    ├── RequisitesNotMet                a bypass that cannot be taken
    ├── StateError                      the state of a job cannot be read, or belongs to another configuration
    └── UnreadableStreamError           a file or stream that is gone, or that cannot be read from some place on
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resilient_exporters.errors import InvalidConfigError, ResilientExporterException

__all__ = [
    "BadRecordError",
    "ConfigCheckError",
    "ConfigurationError",
    "ExpressionError",
    "InconsistentWriteState",
    "InvalidDateRangeError",
    "InvalidExpression",
    "InvalidMailProvided",
    "InvalidOperator",
    "ItemsLimitReached",
    "LimitExceeded",
    "MaxMailsSent",
    "PipelineError",
    "RequisitesNotMet",
    "StateError",
    "UnreadableStreamError",
    "UnsupportedCompressionFormat",
]


class ConfigurationError(InvalidConfigError):
    """A configuration, or an option in it, that cannot be; the text names option, value and what would be right."""


class ConfigCheckError(ConfigurationError):
    """All that is wrong with a configuration.

    Args:
        errors: section to message, or section to option to message.
    """

    def __init__(self, errors: Mapping[str, Any]) -> None:
        self.errors = dict(errors)
        super().__init__(None, "\n".join(("the configuration cannot be used:", *_lines(self.errors))))


def _lines(errors: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for section, what in errors.items():
        if isinstance(what, Mapping):
            found.append(f"  {section}:")
            for name, text in what.items():
                found.append(f"    {name}: {', '.join(text) if isinstance(text, list) else text}")
        else:
            found.append(f"  {section}: {what}")
    return found


class InvalidExpression(ConfigurationError):
    """An expression that is none, or that is not allowed."""


class InvalidDateRangeError(ConfigurationError):
    """A range of dates that ends before it begins."""


class InvalidOperator(ConfigurationError):
    """An operator that no filter has."""


class InvalidMailProvided(ConfigurationError):
    """A mail address that is none."""


class UnsupportedCompressionFormat(ConfigurationError):
    """A compression that there is not."""


class PipelineError(ResilientExporterException):
    """A run of a pipeline went wrong."""


class ExpressionError(PipelineError):
    """An expression of the configuration cannot be computed for a record."""


class LimitExceeded(ExpressionError):
    """An expression of the configuration would take too much time or memory for one record."""


class BadRecordError(PipelineError):
    """A record that cannot be read or transformed, and ``on_bad_record`` is "fail"."""


class ItemsLimitReached(PipelineError):
    """As many records as asked for are written: the run ends."""


class InconsistentWriteState(PipelineError):
    """What lies at the target is not what was written."""


class MaxMailsSent(PipelineError):
    """More mails than ``max_mails_sent`` allows."""


class RequisitesNotMet(PipelineError):
    """A bypass that cannot be taken with this configuration."""


class StateError(PipelineError):
    """The state of a job cannot be read, is in use, or belongs to another configuration."""


class UnreadableStreamError(PipelineError):
    """A file or stream that is gone, or that cannot be read from some place on; another attempt would not help."""
