"""The command group: its commands are loaded when they are called."""

from __future__ import annotations

import importlib
from typing import Final

import click

from resilient_exporters import __version__
from resilient_exporters.errors import ResilientExporterException

__all__ = ["rexport"]

_COMMANDS: Final = {
    "demo": "resilient_exporters.cli.demo:demo",
    "queue": "resilient_exporters.cli.queue:queue",
    "send": "resilient_exporters.cli.send:send",
}


class _Lazy(click.Group):
    """Loads a command with its module: `rexport queue` on a small system should not wait for what `demo` needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        place = _COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)  # noqa: S101 - the table above
        return command

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

Exit codes: 0 all well, 1 something waits, was refused or is damaged, 2 wrong use.
"""


@click.group(cls=_Lazy, help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="rexport")
def rexport() -> None:
    """Send records over links that fail, and look after what waits."""
