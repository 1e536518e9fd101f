"""The ``log_…`` methods that jobs have always had."""

from __future__ import annotations

import logging

__all__ = ["Loggable"]


class Loggable:
    """Logs through ``logger``: the one that was given, or one named after the job.

    Args:
        name: of the thing that logs.
        logger: used instead of one of that name.
    """

    def __init__(self, name: str, logger: logging.Logger | logging.LoggerAdapter[logging.Logger] | None = None) -> None:
        self.logger = logger if logger is not None else logging.getLogger(f"resilient_exporters.jobs.{name}")

    def log_debug(self, message: object, *args: object) -> None:
        """Log for somebody who looks for a mistake."""
        self.logger.debug(message, *args)

    def log_info(self, message: object, *args: object) -> None:
        """Log what is going on."""
        self.logger.info(message, *args)

    def log_warning(self, message: object, *args: object) -> None:
        """Log what may be wrong."""
        self.logger.warning(message, *args)

    log_warn = log_warning

    def log_error(self, message: object, *args: object) -> None:
        """Log what went wrong."""
        self.logger.error(message, *args)

    def log_critical(self, message: object, *args: object) -> None:
        """Log what somebody has to be woken for."""
        self.logger.critical(message, *args)

    def log_exception(self, message: object, *args: object) -> None:
        """Log what went wrong, with the stack of the exception that is being handled."""
        self.logger.exception(message, *args)  # noqa: LOG004 - for callers in a handler
