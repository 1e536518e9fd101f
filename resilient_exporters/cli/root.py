"""The command group: its commands are loaded when they are called."""

from __future__ import annotations

from typing import Final

import click

from resilient_exporters import __version__
from resilient_exporters.cli.lazy import LazyGroup
from resilient_exporters.errors import ResilientExporterException

__all__ = ["rexport"]

_COMMANDS: Final = {
    "check": "resilient_exporters.cli.run:check",
    "demo": "resilient_exporters.cli.demo:demo",
    "jobs": "resilient_exporters.cli.jobs:jobs",
    "modules": "resilient_exporters.cli.modules:modules",
    "queue": "resilient_exporters.cli.queue:queue",
    "resume": "resilient_exporters.cli.run:resume",
    "run": "resilient_exporters.cli.run:run",
    "schema": "resilient_exporters.cli.modules:schema",
    "send": "resilient_exporters.cli.send:send",
    "tasks": "resilient_exporters.cli.tasks:tasks",
}


class _Root(LazyGroup):
    """Says what is wrong in one line, with the exit code that it has."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ResilientExporterException as error:
            raise _Wrong(str(error)) from error
        except BrokenPipeError:
            raise  # click's: `rexport queue peek DIR | head` is no error
        except OSError as error:
            raise click.ClickException(str(error)) from error


class _Wrong(click.ClickException):
    """What was asked for cannot be: as a wrong option on the command line."""

    exit_code = 2


_HELP = """Send records over links that fail, and look after what waits.

\b
rexport demo              watch a sensor program survive a dead link and kill -9
rexport send --to URL     lines from stdin to files and databases
rexport queue ls          what waits on this machine, and for whom
rexport run CONFIG        a pipeline: from any source, through stages, to any target; resumable
rexport jobs run M:CLASS  a slot of a scheduled job, and what waits in its backlog
rexport tasks run MODULE  the tasks of an ETL job, in their order; with --dry-run only what they would do

Exit codes: 0 all well, 1 something waits, was refused or is damaged, 2 wrong use.
"""


@click.group(
    cls=_Root, places=_COMMANDS, help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)  # fmt: skip
@click.version_option(__version__, prog_name="rexport")
def rexport() -> None:
    """Send records over links that fail, and look after what waits."""
