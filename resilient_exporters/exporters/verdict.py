"""From what a target's error means to the error of this package that says it to the engine."""

from __future__ import annotations

from typing import Final

from resilient_exporters import errors

__all__ = ["error_for"]


def error_for(error: Exception, verdict: str, said: str, advice: str) -> Exception:
    """The error that says the same, with what to do next.

    Args:
        error: what was raised. One of this package is right as it is.
        verdict: what it means, by the exporter's table.
        said: where, and the target's own words.
        advice: for someone who has to mend something.
    """
    if isinstance(error, errors.ResilientExporterException):
        return error
    kind = _KINDS.get(verdict, errors.ExportError)
    return kind(f"{said}; {advice}" if kind is errors.HoldError else said)


_KINDS: Final[dict[str, type[errors.ResilientExporterException]]] = {
    "retry": errors.RetryableError,
    "hold": errors.HoldError,
    "schema": errors.HoldError,
    "reject": errors.RejectedError,
    "data": errors.RejectedError,
    "split": errors.RejectedError,
    "duplicate": errors.RejectedError,
}
"""What is not here is unclear: the engine finds out."""
