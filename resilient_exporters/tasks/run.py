"""A run: tasks one after the other, each with its resource open, and one error at the end."""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from resilient_exporters.policy import RetryPolicy
from resilient_exporters.retrying import retrying
from resilient_exporters.tasks.config import BigraysConfig, flag
from resilient_exporters.tasks.errors import (
    BigRaysError,
    ConfigurationError,
    TaskError,
    TaskFailure,
    TaskInterfaceError,
    TasksFailed,
)
from resilient_exporters.tasks.plan import Plan
from resilient_exporters.tasks.registry import TASK_REGISTER
from resilient_exporters.tasks.resources import ResourceManager
from resilient_exporters.tasks.task import BaseTask, Register

__all__ = ["Watcher", "bigrays_run", "importing", "run_tasks"]

_log = logging.getLogger("bigrays")


_importing: contextvars.ContextVar[str | None] = contextvars.ContextVar("importing", default=None)


@contextlib.contextmanager
def importing(module: str) -> Iterator[None]:
    """Within it nothing can be run: a module is imported for the tasks that it defines."""
    token = _importing.set(module)
    try:
        yield
    finally:
        _importing.reset(token)


class Watcher:
    """Is told how a run goes. The methods do nothing; override what you want to know."""

    def begin(self, plan: Plan) -> None:
        """The run begins."""

    def started(self, task: type[BaseTask], number: int) -> None:
        """A task begins; the first has number 1."""

    def ended(self, task: type[BaseTask], seconds: float, error: Exception | None) -> None:
        """A task has ended, well or with an error."""

    def skipped(self, task: type[BaseTask]) -> None:
        """A task is left out, since one before it failed."""

    def finish(self) -> None:
        """The run is over."""


def bigrays_run(
    *tasks: type[BaseTask], config: Any = BigraysConfig, dry_run: bool | None = None, watcher: Watcher | None = None
) -> Plan | None:
    """Run tasks in their order.

    All is checked before anything runs: that each task is one, that no output is used before it is there, and that
    every resource has its settings. When a task fails, those after it are skipped, but for those with
    ``run_with_exceptions``.

    Args:
        *tasks: classes; none: all that were defined, in the order of their definition.
        config: where resources find their settings.
        dry_run: True: print the plan and do nothing. None: as ``config.DRY_RUN`` says.
        watcher: is told how it goes.

    Returns:
        The plan of a dry run, otherwise None. What a task gave is its ``output``.

    Raises:
        TaskInterfaceError: the tasks cannot be run in this order.
        ConfigurationError: a setting is missing.
        MissingModuleError: an extra is not installed.
        TasksFailed: at the end, if tasks failed; it holds all that went wrong.
    """
    if (importing := _importing.get()) is not None:
        raise TaskInterfaceError(
            f"{importing} runs tasks while it is imported; put bigrays_run(), and calls such as sql_query(), below "
            "if __name__ == '__main__':"
        )
    _log.info("using %s task list", "custom" if tasks else "default")
    plan = Plan(tasks or tuple(TASK_REGISTER), config)
    if flag(config, "DRY_RUN") if dry_run is None else dry_run:
        print(plan.render())  # noqa: T201 - a dry run prints
        return plan
    plan.check()
    if not plan.tasks:
        _log.warning("there is no task to run: none was given, and none is defined")
    for task in plan.tasks:
        Register.forget_output(task)
    _log.info("running tasks")
    _Run(plan, watcher or Watcher()).go()
    _log.info("all tasks complete")
    return None


run_tasks = bigrays_run


class _Run:
    """One run of a plan."""

    def __init__(self, plan: Plan, watcher: Watcher) -> None:
        self._plan = plan
        self._watcher = watcher
        self._manager = ResourceManager(plan.config)
        self._failures: list[TaskFailure] = []
        self._skipped: list[str] = []

    def go(self) -> None:
        """Run all, close what is open, and raise what went wrong."""
        self._watcher.begin(self._plan)
        try:
            swallowed = self._go()
        finally:
            self._watcher.finish()
        if self._failures and not swallowed:
            last = self._failures[-1].error
            _chain([one.error for one in self._failures])
            raise TasksFailed(self._failures, self._skipped) from last

    def _go(self) -> bool:
        try:
            for number, task in enumerate(self._plan.tasks, 1):
                self._step(task, number)
        except BaseException as error:
            self._manager.close(type(error), error, error.__traceback__)
            raise
        current = self._manager.current
        last = self._failures[-1].error if self._failures else None
        try:
            return self._manager.close(*((type(last), last, last.__traceback__) if last else ()))
        except BigRaysError as error:
            self._failures.append(TaskFailure(f"closing {current.__name__ if current else ''}".strip(), error))
            return False

    def _step(self, task: type[BaseTask], number: int) -> None:
        if self._failures and not task.run_with_exceptions:
            _log.warning("skipping %s, since a task before it failed", task.__name__)
            self._skipped.append(task.__name__)
            self._watcher.skipped(task)
            return
        self._watcher.started(task, number)
        begun = time.monotonic()
        error: Exception | None = None
        try:
            self._patiently(task)
        except Exception as problem:  # noqa: BLE001 - a task may raise anything; all are raised together at the end
            error = problem
            _log.warning("%s failed: %s: %s", task.__name__, type(error).__name__, error)
            self._failures.append(TaskFailure(task.__name__, error))
        self._watcher.ended(task, time.monotonic() - begun, error)

    def _patiently(self, task: type[BaseTask]) -> None:
        """Run a task, again and again as its policy says. An error of its own making is not tried again."""
        if task.retry_policy is None:
            self._attempt(task)
            return

        def attempt() -> Exception | None:
            try:
                self._attempt(task)
            except (TaskError, ConfigurationError) as error:
                return error
            return None

        final = retrying(
            attempt, f"task {task.__name__}", RetryPolicy.parse(task.retry_policy, "retry_policy"), log=_log
        )
        if final is not None:
            raise final

    def _attempt(self, task: type[BaseTask]) -> None:
        resource = task.required_resource
        self._manager.open_resource(resource, task.resource_config)
        try:
            task()()
        except BaseException as error:
            self._manager.settle(resource, error)
            raise
        self._manager.settle(resource, None)


def _chain(errors: Sequence[BaseException]) -> None:
    """Let each error be the context of the next, so that a traceback of the last one shows all."""
    for earlier, later in itertools.pairwise(errors):
        end, seen = later, {id(later)}
        while (deeper := end.__cause__ or end.__context__) is not None and id(deeper) not in seen:
            end = deeper
            seen.add(id(end))
        if id(earlier) not in seen:
            end.__context__ = earlier
