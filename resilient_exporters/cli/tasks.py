"""``rexport tasks``: run the tasks of a module, or show what it would do."""

from __future__ import annotations

from typing import Final

import click
from rich.console import Console
from rich.status import Status

from resilient_exporters.cli.code import load
from resilient_exporters.cli.console import escape, screen
from resilient_exporters.tasks.errors import TasksFailed
from resilient_exporters.tasks.plan import Plan
from resilient_exporters.tasks.registry import TASK_REGISTER
from resilient_exporters.tasks.run import Watcher, bigrays_run, importing
from resilient_exporters.tasks.task import BaseTask, update_format_kws

__all__ = ["tasks"]


@click.group()
def tasks() -> None:
    """Run the tasks of a module, or show what it would do."""


_HELP: Final = """Run the tasks that MODULE defines, in the order of their definition.

\b
rexport tasks run etl.py --dry-run
rexport tasks run company.nightly --set day=2026-11-21
rexport tasks run etl.py --only Readings --only Upload

MODULE is a file or a dotted name. It is imported, so that what stands under `if __name__ == "__main__"` does not run;
--set gives the format keywords that it sets there. --dry-run prints tasks, resources, formatted statements and what
is missing, and executes nothing.

Exit code 0: all tasks ended well. 1: a task failed, or a dry run found something missing. 2: nothing was run.
"""


@tasks.command(help=_HELP)
@click.argument("module")
@click.option("--dry-run", is_flag=True, help="Print the plan and execute nothing.")
@click.option("--set", "keywords", multiple=True, metavar="NAME=VALUE", help="A format keyword; may be given again.")
@click.option("--only", multiple=True, metavar="TASK", help="This task, in this order; may be given again.")
@click.option("--quiet", is_flag=True, help="Errors only.")
def run(module: str, dry_run: bool, keywords: tuple[str, ...], only: tuple[str, ...], quiet: bool) -> None:
    """Import, and run."""
    given = dict(_pair(each) for each in keywords)
    with TASK_REGISTER.isolated() as registry, importing(module):
        load(module)
        defined = list(registry)
    chosen = [_named(name, defined) for name in only] or defined
    if not chosen:
        raise click.UsageError(f"{module} defines no task")
    update_format_kws(given)
    try:
        plan = bigrays_run(*chosen, dry_run=dry_run, watcher=Watcher() if quiet else Progress())
    except TasksFailed as error:
        screen(stderr=True).print(f"[red]{escape(str(error))}[/red]")
        raise SystemExit(1) from None
    if plan is not None and plan.problems:
        raise SystemExit(1)


class Progress(Watcher):
    """A line for each task; on a terminal, the one that runs is shown too.

    Args:
        console: default: on stderr.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._screen = console or screen(stderr=True)
        self._status: Status | None = None
        self._count = 0

    def begin(self, plan: Plan) -> None:
        """Count them."""
        self._count = len(plan.tasks)

    def started(self, task: type[BaseTask], number: int) -> None:
        """Show it, where somebody looks."""
        if self._screen.is_terminal:
            self._status = self._screen.status(f"{number}/{self._count} {escape(task.__name__)}")
            self._status.start()

    def ended(self, task: type[BaseTask], seconds: float, error: Exception | None) -> None:
        """A line."""
        self._stop()
        if error is None:
            self._screen.print(f"[green]done[/green]     {escape(task.__name__)} ({seconds:.1f} s)")
        else:
            self._screen.print(f"[red]failed[/red]   {escape(task.__name__)} ({seconds:.1f} s)")

    def skipped(self, task: type[BaseTask]) -> None:
        """A line."""
        self._screen.print(f"[yellow]skipped[/yellow]  {escape(task.__name__)}")

    def finish(self) -> None:
        """Leave the terminal as it was."""
        self._stop()

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def _named(name: str, defined: list[type[BaseTask]]) -> type[BaseTask]:
    for task in defined:
        if task.__name__ == name:
            return task
    known = ", ".join(task.__name__ for task in defined) or "none"
    raise click.UsageError(f"--only {name}: there is no such task; there are: {known}")


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise click.UsageError(f"--set {text!r} is not possible; give NAME=VALUE")
    return name, value
