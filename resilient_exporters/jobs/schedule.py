"""Slots inside of a program that runs anyway, through APScheduler. Where nothing runs: cron, or a systemd timer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.jobs.job import policy_of
from resilient_exporters.jobs.process import ExportProcess
from resilient_exporters.units import parse_callable

__all__ = ["add_slot"]


def add_slot(
    scheduler: Any,
    process: ExportProcess,
    trigger: Any,
    *,
    max_try: int = 3,
    retry_delay: float | timedelta = 10,
    then: Callable[[int], None] | None = None,
    **options: Any,
) -> Any:
    """Run a process at each slot of a schedule.

    A slot that was missed, because the program stood still or the one before took long, is run once, however late: the
    backlog holds the rest. Two slots of a process never overlap.

    Args:
        scheduler: of APScheduler 3: ``BackgroundScheduler()``, ``BlockingScheduler()``, ``AsyncIOScheduler()``.
        process: what is run.
        trigger: a text in the manner of cron (``"15 2 * * *"``), or a trigger of APScheduler.
        max_try, retry_delay: of ``ExportProcess.run``.
        then: called with the code of each run.
        **options: of ``scheduler.add_job``.

    Returns:
        The scheduler's job.

    Raises:
        MissingModuleError: APScheduler is not installed.
        ValueError: no such schedule can be.
    """
    try:
        from apscheduler.triggers.cron import CronTrigger
    except ModuleNotFoundError as error:
        text = "schedules inside of a program need APScheduler: pip install 'resilient-exporters[schedule]'"
        raise MissingModuleError(None, text) from error
    policy_of(max_try, retry_delay)
    parse_callable(then, "then", none_ok=True)
    alone = threading.Lock()

    def slot() -> None:
        with alone:
            code = process.run(max_try, retry_delay)
        if then is not None:
            then(code)

    chosen = CronTrigger.from_crontab(trigger) if isinstance(trigger, str) else trigger
    options = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None, "name": process.jobname, **options}
    return scheduler.add_job(slot, chosen, **options)
