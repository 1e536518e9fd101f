"""``rexport jobs``: runs of pipelines, and scheduled jobs with their backlogs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, Final

import click

from resilient_exporters.cli.backlogs import (
    all_entries,
    is_entry,
    print_entries,
    remove_entry,
    root_option,
    show_entry,
)  # fmt: skip
from resilient_exporters.cli.console import moment, number, print_json, print_table, remark, rows, short_json, table
from resilient_exporters.cli.lazy import LazyGroup
from resilient_exporters.delivery.directory import holder
from resilient_exporters.pipeline.checkpoint import Job, Store
from resilient_exporters.pipeline.persistence import SqlitePersistence, persistence_of
from resilient_exporters.pipeline.workplace import workplace_of

__all__ = ["jobs"]

_COMMANDS: Final[dict[str, str]] = {
    "import": "resilient_exporters.cli.backlogs:import_old",
    "retry": "resilient_exporters.cli.backlogs:retry",
    "run": "resilient_exporters.cli.backlogs:run",
}
"""Commands of other modules: name to ``"package.module:attribute"``."""
_ANY: Final = "any"  # stands for a job in the URI of a database
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_at = click.option(
    "--at", metavar="DATABASE",
    help="Where the jobs are kept: an SQLite file, or postgresql://user:password@host/database (mysql://…); "
    "default: jobs.db in the state folder.",
)  # fmt: skip
_job = click.argument("job")


@click.group(cls=LazyGroup, places=_COMMANDS)
def jobs() -> None:
    """Look at the runs of pipelines, and run and look after scheduled jobs.

    Of a pipeline: which runs are interrupted, how far they came, which records were put aside. JOB is an id as
    `rexport jobs ls` shows it, its beginning if that is the only one, or a URI as a run says it.

    Of scheduled jobs: what waits in their backlogs. JOB is then BACKLOG/ID.
    """


@jobs.command("ls")
@_at
@root_option
@_as_json
def list_jobs(at: str | None, root: Path | None, as_json: bool) -> None:
    """List the jobs of pipelines, oldest first, and the entries of backlogs."""
    place = _place(at)
    found = []
    if not isinstance(place, Path) or place.is_file():
        store = Store(place)
        try:
            found = store.jobs()
        finally:
            store.close()
    elif at is not None:
        raise click.BadParameter(f"there is no file {place}", param_hint="--at")
    waiting = all_entries(root)
    if as_json:
        entries = [{"kind": "entry", **{name: getattr(one, name) for name in one.__struct_fields__}} for one in waiting]
        print_json([*({"kind": "pipeline", **_plain(job)} for job in found), *entries])
        return
    if not found and not waiting:
        remark("no jobs yet")
    if found:
        _print_jobs(found)
    if waiting:
        print_entries(waiting)


def _print_jobs(found: list[Job]) -> None:
    made = table("job", "state", "begun", "last commit", ">read", ">written", ">put aside", "from", "to")
    for job in found:
        rows(
            made,
            [(
                job.id, _state(job), moment(job.created), moment(job.last_committed) if job.last_committed else "-",
                number(_figure(job, "reader", "read_items")), number(_figure(job, "writer", "items_count")),
                number(job.dead), _name(job, "reader"), _name(job, "writer"),
            )],
        )  # fmt: skip
    print_table(made)


@jobs.command()
@_job
@_at
@root_option
@click.option("--dead", is_flag=True, help="The records that were put aside, as JSON lines.")
@_as_json
def show(job: str, at: str | None, root: Path | None, dead: bool, as_json: bool) -> None:
    """Show one job: its configuration (without secrets), position and figures, and the records put aside."""
    if is_entry(job):
        show_entry(job, root, as_json=as_json)
        return
    store, found = _open(job, at)
    try:
        letters = store.dead(found.id)
    finally:
        store.close()
    if dead:
        for letter in letters:
            print_json({"data": letter.data, "reason": letter.reason, "where": letter.where, "part": letter.part})
        return
    if as_json:
        print_json(_plain(found))
        return
    facts = {
        "job": found.id,
        "state": _state(found),
        "begun": moment(found.created),
        "last commit": moment(found.last_committed) if found.last_committed else "-",
        "position": short_json(found.position),
        **{f"figures of {part}": short_json(figures) for part, figures in found.figures.items() if figures},
        **{part: short_json(section) for part, section in found.configuration.items()},
        "put aside": f"{number(len(letters))} records" + (": rexport jobs show --dead" if letters else ""),
    }
    width = max(map(len, facts))
    for name, text in facts.items():
        click.echo(f"{name:<{width}}  {text}")


@jobs.command()
@_job
@_at
@root_option
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def rm(job: str, at: str | None, root: Path | None, yes: bool) -> None:
    """Forget a job, with its buffers and the records put aside. It cannot be undone."""
    if is_entry(job):
        remove_entry(job, root, yes=yes)
        return
    store, found = _open(job, at)
    try:
        if _state(found) == "running":
            raise click.ClickException(f"job {found.id} is running")
        what = f"the {_state(found)} job {found.id}" + (f" with {found.dead} records put aside" if found.dead else "")
        if not yes and not click.confirm(f"forget {what}?"):
            click.echo("nothing was changed")
            sys.exit(1)
        store.delete(found.id)
    finally:
        store.close()
    shutil.rmtree(_workplace(found), ignore_errors=True)
    click.echo(f"forgot {what}")


def _place(at: str | None) -> Path | str:
    if at is None:
        return SqlitePersistence().url()
    if "://" not in at:
        return Path(at)
    uri = f"{at.rstrip('/')}{':' if at.startswith('sqlite:') else '/'}{_ANY}"
    return persistence_of(uri).from_uri(uri)[0].url()


def _open(job: str, at: str | None) -> tuple[Store, Job]:
    if "://" in job:
        persistence, name = persistence_of(job).from_uri(job)
        place = persistence.url()
    else:
        place, name = _place(at), job
    if isinstance(place, Path) and not place.is_file():
        raise click.ClickException(f"there is no job {name}: {place} is no file")
    store = Store(place)
    try:
        found = [one for one in store.jobs() if one.id.startswith(name)]
        exact = [one for one in found if one.id == name] or found
        if len(exact) != 1:
            text = f"{len(exact)} jobs begin with {name}: give more of it" if exact else f"there is no job {name}"
            raise click.ClickException(f"{text} (rexport jobs ls)")
    except BaseException:
        store.close()
        raise
    return store, exact[0]


def _state(job: Job) -> str:
    if job.finished:
        return "done"
    return "running" if _workplace(job).is_dir() and holder(_workplace(job)) else "interrupted"


def _workplace(job: Job) -> Path:
    return workplace_of(job.id, (job.configuration.get("exporter_options") or {}).get("work_dir"))


def _figure(job: Job, part: str, name: str) -> int:
    value = job.figures.get(part, {}).get(name, 0)
    return value if isinstance(value, int) else 0


def _name(job: Job, section: str) -> str:
    return str((job.configuration.get(section) or {}).get("name", "-")).rpartition(".")[2]


def _plain(job: Job) -> dict[str, Any]:
    return {**{name: getattr(job, name) for name in job.__struct_fields__}, "state": _state(job)}
