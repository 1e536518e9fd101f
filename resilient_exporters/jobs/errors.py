"""Errors of jobs and backlogs.

::

    resilient_exporters.ExportError
    └── ExportError                       a step of a job failed; holds the sub-code
    InvalidConfigError
    └── JobIdError      (also KeyError)   a text that cannot be the id of a job
    ResilientExporterException
    └── CorruptEntryError (also ValueError)  an entry that cannot be read as what it should be
"""

from __future__ import annotations

from resilient_exporters import errors
from resilient_exporters.units import parse_count

__all__ = ["CorruptEntryError", "ExportError", "JobIdError"]

_SUBCODES = 100


class ExportError(errors.ExportError):
    """A step of a job failed.

    Args:
        msg: what went wrong.
        subcode: 1 to 99, added to the code of the step; 0 for none. Of larger ones the remainder by 100 is taken.
    """

    def __init__(self, msg: object = "", subcode: int = 0) -> None:
        super().__init__(None, msg)
        self.subcode = parse_count(subcode, "subcode", minimum=0) % _SUBCODES


class JobIdError(errors.InvalidConfigError, KeyError):
    """A text that cannot be the id of a job: it would not be a file name everywhere, or would leave the directory."""


class CorruptEntryError(errors.ResilientExporterException, ValueError):
    """An entry of a backlog that cannot be read as what it should be."""
