"""``rexport run``, ``resume`` and ``check``: pipelines from configurations."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from resilient_exporters.cli.console import number, print_json, remark
from resilient_exporters.errors import InvalidConfigError, MissingModuleError, ResilientExporterException
from resilient_exporters.exporters.lines import json_line
from resilient_exporters.pipeline import (
    BasicExporter,
    ConfigCheckError,
    ConfigurationError,
    Pipeline,
    PipelineReport,
    check_for_errors,
)
from resilient_exporters.pipeline.configuration import read
from resilient_exporters.pipeline.secrets import Curtain

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["check", "resume", "run"]

_F = TypeVar("_F", bound=Callable[..., Any])
_path = click.Path(path_type=Path, dir_okay=False)


def _common(function: _F) -> _F:
    for option in (
        click.option("--report", metavar="FILE", type=_path, help="Write the report of the run there, as JSON."),
        click.option("--quiet", "-q", is_flag=True, help="Print warnings and errors only."),
    ):
        function = option(function)
    return function


@click.command()
@click.argument("config", required=False, type=_path)
@click.option("--config", "old_config", metavar="CONFIG", type=_path, help="The same as CONFIG.")
@click.option("--resume", "uri", metavar="URI", help="The same as `rexport resume URI`.")
@_common
def run(config: Path | None, old_config: Path | None, uri: str | None, report: Path | None, quiet: bool) -> None:
    """Run the pipeline of the configuration CONFIG, a JSON or YAML file.

    Ctrl-C and SIGTERM stop it at the next commit. What was interrupted in any way goes on with `rexport resume`.

    Exit codes: 0 all is written; 1 it failed, or was stopped; 2 the configuration cannot be used.
    """
    given = [one for one in (config, old_config, uri) if one is not None]
    if len(given) != 1:
        raise click.UsageError("give one configuration, CONFIG or --config CONFIG, or --resume URI")
    if uri is not None:
        _run(lambda: BasicExporter.from_persistence_configuration(uri), report, quiet)
    else:
        path = config or old_config
        assert path is not None  # noqa: S101 - one of three is given
        _run(lambda: BasicExporter.from_file_configuration(path), report, quiet)


@click.command()
@click.argument("uri")
@click.option(
    "--config",
    metavar="CONFIG",
    type=_path,
    help="The configuration again, where it holds secrets: they are not kept with the job.",
)
@_common
def resume(uri: str, config: Path | None, report: Path | None, quiet: bool) -> None:
    """Go on with an interrupted run where it was last committed.

    URI is what the run said at its end: sqlite://path.db:JOB, postgresql://user@host/database/JOB, ….
    """
    _run(
        lambda: BasicExporter.from_persistence_configuration(uri, None if config is None else read(config)),
        report, quiet,
    )  # fmt: skip


@click.command()
@click.argument("configs", nargs=-1, required=True, type=_path, metavar="CONFIG...")
@click.option("--json", "as_json", is_flag=True, help="Print what is wrong as JSON: file to section to option.")
def check(configs: tuple[Path, ...], as_json: bool) -> None:
    """Say all that is wrong with configurations, before anything runs. Nothing is opened.

    Exit codes: 0 all can be used, 2 one cannot.
    """
    wrong: dict[str, Any] = {}
    for path in configs:
        text = ""
        try:
            errors = check_for_errors(read(path), raise_exception=False)
            text = str(ConfigCheckError(errors))
        except (ConfigurationError, MissingModuleError) as error:
            errors, text = {"configuration": error.content}, error.content
        if errors:
            wrong[str(path)] = errors
        if not as_json:
            click.echo(f"{path}: {text.removeprefix('the configuration ') if errors else 'can be used'}")
    if as_json:
        print_json(wrong)
    if wrong:
        sys.exit(2)


def _run(make: Callable[[], Pipeline], report: Path | None, quiet: bool) -> None:
    if report is not None and not report.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no directory {report.absolute().parent}", param_hint="--report")
    with _Lines(logging.WARNING if quiet else logging.NOTSET):  # the level is that of log_level
        pipeline = make()
        if quiet:
            pipeline.progress = False
        try:
            done = pipeline.run()
        except (InvalidConfigError, click.ClickException):
            raise
        except KeyboardInterrupt:  # the second one; the log line of the first may not have been reached
            remark(f"interrupted{_how(pipeline)}")
            sys.exit(1)
        except Exception as error:
            curtain = Curtain(text for module in pipeline.all_modules for text in module.secrets())
            if pipeline.log_level == "DEBUG":
                remark(curtain.hide(traceback.format_exc().rstrip()))
            plain = isinstance(error, (ResilientExporterException, OSError)) and str(error)
            text = curtain.hide(str(error) if plain else f"{type(error).__name__}: {error}")  # 'boom' alone says little
            raise click.ClickException(f"the run failed: {text}{_how(pipeline)}") from error
    if report is not None:
        report.write_bytes(json_line(_plain(done)))
    if not quiet:
        _sum_up(done)
    if not done.complete:
        remark(f"stopped; go on with: rexport resume '{done.uri}'")
        sys.exit(1)


def _how(pipeline: Pipeline) -> str:
    uri = pipeline.uri
    return f"\ngo on with: rexport resume '{uri}'" if uri else ""


def _sum_up(done: PipelineReport) -> None:
    bad = sum(done.bad.values())
    remark(
        f"{number(done.read)} records read, {number(done.written)} written"
        + (f", {number(bad)} bad ones left out" if bad else "")
        + f" in {done.seconds:.1f} s; job {done.job}"
    )


def _plain(done: PipelineReport) -> dict[str, Any]:
    return {name: getattr(done, name) for name in done.__struct_fields__}


class _Lines(logging.Handler):
    """Log lines of the pipeline to stderr as it is now: a moving line may have taken its place."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        remark(self.format(record))

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)
