"""``rexport jobs`` for scheduled jobs: run a slot, and look after what waits in backlogs."""

from __future__ import annotations

import json
import logging
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from resilient_exporters.cli.code import load_attribute
from resilient_exporters.cli.console import print_json, print_table, remark, rows, short_json, table
from resilient_exporters.errors import InvalidConfigError
from resilient_exporters.jobs.backlog import Backlog, backlog_root
from resilient_exporters.jobs.job import EventsExportJob, veiled
from resilient_exporters.jobs.old_entries import import_old_entries
from resilient_exporters.jobs.process import ExportProcess
from resilient_exporters.jobs.view import EntryView, entries, find_backlogs, parms_of

__all__ = [
    "all_entries",
    "import_old",
    "is_entry",
    "print_entries",
    "remove_entry",
    "retry",
    "root_option",
    "run",
    "show_entry",
]

root_option = click.option(
    "--root", type=click.Path(path_type=Path, file_okay=False),
    help="Where the backlogs lie; default: where they lie unless a program says otherwise.",
)  # fmt: skip

_RUN_HELP = """Run a slot: today's job into the backlog, then all that waits there, oldest first.

\b
rexport jobs run company.nightly:Export
rexport jobs run nightly.py:Export --backlog nightly --parm site=7 --max-attempts 30

TARGET is module:Class or file.py:Class, the class of the job; or the name of an ExportProcess that is made there, which
has its own backlog and parameters. To be called by cron or a systemd timer: docs/jobs.md.

Exit code 0: everything was exported. 1: something failed and waits for the next slot, is dead, or could not be read;
the code of the jobs is printed. 2: nothing was run.
"""


@click.command(help=_RUN_HELP)
@click.argument("target")
@click.option("--backlog", "name", help="Name of the backlog; default: that of the class.")
@root_option
@click.option("--parm", "parms", multiple=True, metavar="NAME=VALUE", help="Of today's job: JSON, or else a text.")
@click.option("--date-offset", default=1, show_default=True, help="`date` is today (UTC) less so many days.")
@click.option("--max-try", default=3, show_default=True, help="Tries of send_data in this slot.")
@click.option("--retry-delay", default=10.0, show_default=True, help="Seconds between them.")
@click.option("--max-attempts", type=int, help="Slots after which an entry is given up; default: never.")
@click.option("--max-age", type=float, metavar="DAYS", help="After which an entry that fails is given up.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--quiet", "-q", is_flag=True, help="Log errors only.")
def run(
    target: str,
    name: str | None,
    root: Path | None,
    parms: tuple[str, ...],
    date_offset: int,
    max_try: int,
    retry_delay: float,
    max_attempts: int | None,
    max_age: float | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run a slot."""
    logging.basicConfig(level=logging.ERROR if quiet else logging.INFO, format="%(levelname)s %(message)s")
    process = found = load_attribute(target)
    if isinstance(found, type) and issubclass(found, EventsExportJob):
        backlog = Backlog(name or found.__name__, root)
        process = ExportProcess(
            found, backlog, dict(_pair(one) for one in parms), date_offset=date_offset, max_attempts=max_attempts,
            max_age=None if max_age is None else timedelta(days=max_age),
        )  # fmt: skip
    elif not isinstance(found, ExportProcess):
        raise click.UsageError(
            f"{target} is neither an EventsExportJob nor an ExportProcess but a {type(found).__name__}"
        )
    elif name or root or parms or max_attempts or max_age:
        raise click.UsageError(f"{target} is an ExportProcess, which has its own backlog, parameters and limits")
    # `systemctl stop` and a shutdown: the job tidies up, and waits for the next slot.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        code = process.run(max_try, retry_delay)
    finally:
        signal.signal(signal.SIGTERM, before)
    if as_json:
        print_json(process.report)
    else:
        click.echo(f"{code}: {process.report}")
    sys.exit(1 if code else 0)


@click.command()
@click.argument("entry", metavar="BACKLOG[/ID]")
@root_option
def retry(entry: str, root: Path | None) -> None:
    """Let a dead entry wait again, or all of a backlog: the next slot runs it."""
    name, _, job_id = entry.partition("/")
    backlog = _backlog(name, root)
    dead = backlog.dead()
    if job_id and job_id not in dead:
        state = next((one.state for one in entries(backlog) if one.id == job_id), "not there")
        raise click.ClickException(f"{entry} is no dead entry, it is {state} (rexport jobs ls)")
    for one in [job_id] if job_id else dead:
        backlog.retry(one)
        click.echo(f"{name}/{one} waits for the next slot")
    if not job_id and not dead:
        remark(f"{name} has no dead entries")


@click.command("import")
@click.argument("name", metavar="BACKLOG")
@click.option(
    "--from", "directory", type=click.Path(path_type=Path, file_okay=False, exists=True), help="Where they are."
)
@root_option
def import_old(name: str, directory: Path | None, root: Path | None) -> None:
    """Turn the `.blog` files that pycstbox left into entries of BACKLOG.

    They are pickles; nothing but plain values, dates and the like is made from them. What names anything else is
    refused and stays where it is.
    """
    report = import_old_entries(Backlog(name, root), directory)
    click.echo(f"imported {len(report.imported)} entries")
    for path, reason in report.refused.items():
        remark(f"{path}: {reason}")
    sys.exit(1 if report.refused else 0)


def is_entry(job: str) -> bool:
    """Whether a job is one of a backlog: ``BACKLOG/ID``, as they are listed."""
    return "/" in job and ":" not in job


def all_entries(root: Path | None) -> list[EntryView]:
    """The entries of all backlogs."""
    return [one for backlog in find_backlogs(root) for one in entries(backlog)]


def print_entries(found: list[EntryView]) -> None:
    """A table of them."""
    made = table("entry", "state", ">attempts", "last run", "result", "error")
    rows(made, [(f"{e.backlog}/{e.id}", e.state, e.attempts, e.ran or "-", e.result, e.error[:60]) for e in found])
    print_table(made)


def show_entry(name: str, root: Path | None, *, as_json: bool) -> None:
    """All that is known of one."""
    entry = _entry(name, root)
    parms = veiled(parms_of(entry))
    if as_json:
        print_json({**{field: getattr(entry, field) for field in entry.__struct_fields__}, "parms": parms})
        return
    facts = {
        "entry": name, "state": entry.state, "attempts": entry.attempts, "last run": entry.ran or "never",
        "result": f"{entry.code}: {entry.result}" if entry.code else "-", "error": entry.error or "-",
        "file": entry.path, "parms": "unreadable" if parms is None else short_json(parms, 2000),
    }  # fmt: skip
    for label, text in facts.items():
        click.echo(f"{label:<9} {text}")


def remove_entry(name: str, root: Path | None, *, yes: bool) -> None:
    """Remove one for good."""
    entry = _entry(name, root)
    if entry.state == "running":
        raise click.ClickException(f"{name} is running")
    if not yes and not click.confirm(f"remove the {entry.state} entry {name}? its job will not be run"):
        click.echo("nothing was changed")
        sys.exit(1)
    backlog = _backlog(entry.backlog, root)
    if entry.state == "dead":
        backlog.discard(entry.id)
    elif entry.state in ("corrupt", "old"):
        Path(entry.path).unlink()
    else:
        del backlog[entry.id]
    click.echo(f"removed {name}")


def _entry(name: str, root: Path | None) -> EntryView:
    place, _, job_id = name.partition("/")
    for entry in entries(_backlog(place, root)):
        if entry.id == job_id:
            return entry
    raise click.ClickException(f"there is no entry {name} (rexport jobs ls)")


def _backlog(name: str, root: Path | None) -> Backlog:
    found = {one.name: one for one in find_backlogs(root)}
    if name not in found:
        known = ", ".join(found) or "none"
        raise click.ClickException(f"there is no backlog {name} in {root or backlog_root()}; there are: {known}")
    return found[name]


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidConfigError(f"--parm {text!r} is not possible; give NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
