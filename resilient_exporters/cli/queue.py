"""``rexport queue``: what waits in queue directories."""

from __future__ import annotations

import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import click

from resilient_exporters.cli.console import (
    age,
    escape,
    moment,
    number,
    print_json,
    print_table,
    remark,
    rows,
    screen,
    short_json,
    size,
    table,
)  # fmt: skip
from resilient_exporters.delivery.directory import default_directory, state_root
from resilient_exporters.delivery.handover import hand_over
from resilient_exporters.delivery.inspection import Inspection, QueueView, TargetView, WaitingRecord, find_queues
from resilient_exporters.delivery.maintenance import Maintenance
from resilient_exporters.errors import QueueLockedError
from resilient_exporters.exporters.lines import json_line
from resilient_exporters.urls import from_url

__all__ = ["queue"]

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_target = click.option("--target", metavar="NAME", help="Only what concerns this target.")
_yes = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


class _Directory(click.ParamType[Path]):
    """A queue directory: its path, its name under the root as ``rexport queue ls`` shows it, or its exporter's name."""

    name = "directory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        for place in (Path(value), state_root() / value, default_directory(value)):
            if place.is_dir():
                return place.resolve()
        text = f"{value} is no directory, and none under {state_root()}: rexport queue ls shows which there are"
        raise click.BadParameter(text, ctx=ctx, param=param)


_directory = click.argument("directory", type=_Directory(), metavar="DIR")


@click.group()
def queue() -> None:
    """Look at queue directories, mend them, move what is in them.

    DIR is a path, or a name as `rexport queue ls` shows it. Reading never locks a directory, so a program that uses it
    is not disturbed and one that starts is not kept out. Commands that write refuse a directory that is in use.
    """


@queue.command("ls")
@click.argument("root", required=False, type=click.Path(path_type=Path, file_okay=False))
@_as_json
def list_queues(root: Path | None, as_json: bool) -> None:
    """List the queues under ROOT with what waits in them.

    ROOT is by default where queues lie unless a program says otherwise: $RESILIENT_EXPORTERS_DIR, $STATE_DIRECTORY, or
    the user's state folder. A queue that a program keeps elsewhere is shown by giving its directory.
    """
    place = state_root() if root is None else root
    if not place.is_dir() and root is not None:
        raise click.BadParameter(f"{root} is no directory", param_hint="ROOT")
    views: list[QueueView] = []
    troubles: list[str] = []
    for directory in find_queues(place):
        try:
            with Inspection(directory) as found:
                views.append(found.view())
        except OSError as error:
            troubles.append(str(error))
    if as_json:
        print_json(views)
    else:
        _print_list(place, views)
    for text in [*troubles, *(f"{view.directory}: {view.trouble}" for view in views if view.trouble)]:
        remark(text)
    if troubles:
        sys.exit(1)


def _print_list(root: Path, views: list[QueueView]) -> None:
    if not views:
        remark(f"no queues in {root} (other users' and given directories: rexport queue ls ROOT)")
        return
    made = table("queue", "target", ">waiting", ">dead", ">oldest", ">disk", "in use by")
    for view in views:
        name = Path(view.directory).name if Path(view.directory) != root else view.directory
        tail = (size(view.disk_bytes), view.holder or "nobody")
        first: tuple[str, ...] = (age(view.oldest_age), *tail)
        if not view.targets:
            rows(made, [(name, "-", "0", "0", *first)])
        for target in view.targets:
            rows(made, [(name, _named(target), number(target.pending), number(target.dead), *first)])
            name, first = "", ("", "", "")
    screen().print(f"queues in {escape(str(root))}", highlight=False)
    print_table(made)


def _named(target: TargetView) -> str:
    return target.name if target.present else f"{target.name} (gone)"


@queue.command()
@_directory
@_as_json
def show(directory: Path, as_json: bool) -> None:
    """Show the counters of each target, and where everything lies.

    For each target: accepted = delivered + dropped + dead + waiting.
    """
    with Inspection(directory) as found:
        view = found.view()
        _say_live(found)
    if as_json:
        print_json(view)
        return
    made = table("target", ">accepted", ">delivered", ">dropped", ">dead", ">waiting", ">retries")
    for one in view.targets:
        dropped = ", ".join(f"{number(count)} {reason}" for reason, count in sorted(one.dropped.items())) or "0"
        figures = (one.accepted, one.delivered, dropped, one.dead, one.pending, one.retries)
        rows(made, [(_named(one), *(each if isinstance(each, str) else number(each) for each in figures))])
    print_table(made)
    facts = {
        "directory": f"{view.directory} ({size(view.disk_bytes)} on disk)",
        "in use by": view.holder or "nobody",
        "waiting": f"{number(view.waiting)} records, {number(view.in_memory)} of them in memory only"
        + ("" if view.oldest_age is None else f"; the oldest on disk for {age(view.oldest_age)}"),
        "memory": "none" if view.ring is None else f"{view.ring} ({size(view.ring_bytes)} in use)",
        "quarantine": ", ".join(view.quarantine) or "empty",
    }
    if view.set_aside:
        facts["set aside"] = ", ".join(view.set_aside)
    for name, fact in facts.items():
        click.echo(f"{name:<11} {fact}")
    if view.trouble:
        remark(f"trouble: {view.trouble}\nnext: rexport queue verify {directory}")
    if any(not target.present and target.pending for target in view.targets):
        remark("A target that is gone keeps its backlog until the program has it again.")
        remark(f"To give it up: rexport queue discard {directory} --target NAME")
    if view.dead:
        remark(f"next: rexport queue dead {directory}")


@queue.command()
@_directory
@click.option("--limit", "-n", default=10, show_default=True, type=click.IntRange(min=1), help="Records at most.")
@_target
@_as_json
def peek(directory: Path, limit: int, target: str | None, as_json: bool) -> None:
    """Show the oldest waiting records, decoded. Nothing is taken out."""
    with Inspection(directory) as found:
        _check_target(found, target)
        _say_live(found)
        records = list(islice(found.records(target), limit))
        waiting = found.view().waiting
    if as_json:
        print_json([_public(record) for record in records])
        return
    made = table("id", "waits for", "record")
    for record in records:
        shown = short_json(record.data) + (f"  {short_json(record.options)}" if record.options else "")
        rows(made, [(record.id, ", ".join(record.targets), shown)])
    print_table(made)
    remark(f"{len(records)} of {number(waiting)} that wait" if target is None else f"{len(records)} shown")


def _public(record: WaitingRecord) -> dict[str, Any]:
    return {"id": record.id, "targets": record.targets, "data": record.data, "options": record.options}


@queue.command()
@_directory
@_as_json
def verify(directory: Path, as_json: bool) -> None:
    """Check every checksum, and what must fit together. Exit code 1: something is damaged."""
    with Inspection(directory) as found:
        findings = list(found.verify())
        view = found.view()
        _say_live(found)
    damaged = [one for one in findings if one.damage]
    if as_json:
        print_json({"sound": not damaged, "findings": findings, "queue": view})
    else:
        if findings:
            made = table("", "where", "what")
            print_table(rows(made, [("DAMAGE" if one.damage else "note", one.where, one.what) for one in findings]))
        state = f"{len(damaged)} damaged places" if damaged else "sound"
        click.echo(f"{directory}: {state}; {number(view.waiting)} records wait, {number(view.dead)} dead letters")
    if damaged:
        remark(f"next: rexport queue repair {directory}   (the program's next start does the same as it gets there)")
        sys.exit(1)


@queue.command()
@_directory
@_as_json
def repair(directory: Path, as_json: bool) -> None:
    """Save what is whole, count what is lost, and put everything in memory on disk.

    Damaged blocks are written anew with the records in them that prove intact; their bytes are kept in quarantine. A
    database that SQLite cannot read is set aside and replaced by what can be read of it. Run it also before a queue
    directory is moved to another machine: the newest records may be in memory (/dev/shm) only.
    """
    with _maintained(directory) as opened:
        report = opened.repair()
    if as_json:
        print_json({**_fields(report), "sound": report.sound})
        return
    if report.set_aside:
        click.echo(f"the database was damaged: now {report.set_aside}; {number(report.salvaged)} records were saved")
    if report.blocks:
        click.echo(f"{number(report.blocks)} damaged blocks written anew; what they were is in quarantine/")
    for name, lost in report.lost.items():
        click.echo(f"{name}: {number(lost)} records could not be saved (counted as dropped: corrupt)")
    for name, lost in report.letters.items():
        click.echo(f"{name}: {number(lost)} dead letters could not be saved")
    if report.saved:
        click.echo(f"{number(report.saved)} records that were in memory only are on disk now")
    if report.ownerless:
        text = f"the cursors are gone: nobody knows whom {report.ownerless} blocks wait for; they are left as they are"
        click.echo(text)
        sys.exit(1)
    if report.sound:
        click.echo("nothing was damaged")


@queue.command()
@_directory
@_target
@_as_json
def dead(directory: Path, target: str | None, as_json: bool) -> None:
    """List the dead letters: records that a target refused for good, and why."""
    with Inspection(directory) as found:
        _check_target(found, target)
        _say_live(found)
        letters = [one for one in found.letters() if target in (None, one.target)]
    if as_json:
        print_json(letters)
        return
    made = table("id", "target", "refused", ">tries", "reason", "record")
    for one in letters:
        rows(made, [(one.id, one.target, moment(one.time), one.attempts, one.reason, short_json(one.data, 80))])
    print_table(made)
    if letters:
        remark(f"{number(len(letters))} dead letters. When the reason is gone: rexport queue replay {directory}")


@queue.command()
@_directory
@click.argument("ids", nargs=-1, metavar="[ID]...")
@_target
def replay(directory: Path, ids: tuple[str, ...], target: str | None) -> None:
    """Queue dead letters again: those with these IDs, or all.

    They wait like new records, for the target that refused them and under the ids they had, until the program runs.
    """
    with _maintained(directory) as opened:
        queued, stayed = opened.replay(ids=set(ids) or None, target=target)
    click.echo(f"{number(queued)} dead letters are queued again")
    if stayed:
        remark(f"{number(stayed)} stay: the program has their target no more")
    if ids and queued + stayed < len(set(ids)):
        remark(f"{len(set(ids)) - queued - stayed} of the ids are no dead letters here: rexport queue dead {directory}")
    if stayed or queued < len(set(ids)):
        sys.exit(1)


@queue.command()
@_directory
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--target", metavar="NAME", help="All that is kept for this target, if nothing else is said.")
@click.option("--pending", is_flag=True, help="Waiting records (of all targets, or of --target).")
@click.option("--dead", "letters", is_flag=True, help="Dead letters (of all targets, or of --target).")
@_yes
def discard(directory: Path, ids: tuple[str, ...], target: str | None, pending: bool, letters: bool, yes: bool) -> None:
    """Throw away dead letters (by ID, or --dead) or waiting records (--pending). It cannot be undone.

    What is thrown away counts as dropped, with the reason "discarded".
    """
    if not (ids or target or pending or letters):
        raise click.UsageError("say what: IDs of dead letters, --dead, --pending, or --target NAME")
    if ids and (pending or letters):
        raise click.UsageError("IDs are those of dead letters: give them without --pending and --dead")
    both = target is not None and not (ids or pending or letters)
    with _maintained(directory) as opened:
        with Inspection(directory) as found:
            _check_target(found, target)
            waiting, dead_ones = _of(found, target, set(ids))
        waiting, dead_ones = waiting * (pending or both), dead_ones * bool(ids or letters or both)
        if not waiting and not dead_ones:
            click.echo("there is nothing of the kind")
            return
        what = f"{number(waiting)} waiting records and {number(dead_ones)} dead letters"
        if not yes and not click.confirm(f"throw away {what}{f' of {target}' if target else ''} for good?"):
            click.echo("nothing was changed")
            sys.exit(1)
        dropped = opened.discard_pending(target) if waiting else 0
        removed = opened.discard_letters(ids=set(ids) or None, target=target) if dead_ones else 0
    click.echo(f"threw away {number(dropped)} waiting records and {number(removed)} dead letters")


def _of(found: Inspection, target: str | None, ids: set[str]) -> tuple[int, int]:
    view = found.view()
    waiting = sum(one.pending for one in view.targets if target in (None, one.name))
    letters = sum((not ids or one.id in ids) and target in (None, one.target) for one in found.letters())
    return waiting, letters


@queue.command()
@_directory
@click.option("--to", "url", default="-", metavar="URL", show_default=True, help="Where to; - is stdout, JSON lines.")
@_target
@click.option("--with-ids", is_flag=True, help="Lines with id, targets, data and options, not data alone.")
@click.option(
    "--timeout", default=60.0, show_default=True, type=click.FloatRange(min=0.1), help="Seconds without progress."
)
def export(directory: Path, url: str, target: str | None, with_ids: bool, timeout: float) -> None:
    """Copy what waits to another place. The queue does not change.

    Records keep their ids on the way to a URL, so that a database has one copy of each however often this is run.
    """
    with Inspection(directory) as found:
        _check_target(found, target)
        _say_live(found)
        if url == "-":
            for record in found.records(target):
                click.echo(json_line(_public(record) if with_ids else record.data), nl=False)
            trouble, refused = "", dict[str, str]()
        else:
            if with_ids:
                raise click.UsageError("--with-ids is for lines to stdout; a URL gets the ids as it keeps them")
            exporter = from_url(url)
            with tempfile.TemporaryDirectory(prefix="rexport-") as place:
                member = exporter.as_member(exporter.name, {}, None)
                done = hand_over(found.records(target), member, Path(place), timeout)
            trouble, refused = done.trouble, done.refused
            remark(f"{number(done.delivered)} of {number(done.given)} records are in {exporter.name}")
        if found.unreadable:
            remark(f"{number(found.unreadable)} records are damaged and left out: rexport queue verify {directory}")
    for record_id, reason in islice(refused.items(), 10):
        remark(f"refused: {record_id}: {reason}")
    if len(refused) > 10:
        remark(f"... and {number(len(refused) - 10)} more")
    if trouble:
        remark(f"stopped: {trouble}. The queue has everything still; run it again")
    if trouble or refused or found.unreadable:
        sys.exit(1)


def _maintained(directory: Path) -> Maintenance:
    try:
        return Maintenance(directory)
    except QueueLockedError as error:
        holder = str(error).partition(" is held by ")[2].partition(":")[0]
        raise click.ClickException(
            f"{directory} is in use by {holder}: stop that program first "
            "(a running one replays and discards by exporter.replay() and exporter.discard())"
        ) from error


def _check_target(found: Inspection, target: str | None) -> None:
    if target is not None and target not in found.targets:
        known = ", ".join(found.targets) or "none"
        raise click.BadParameter(f"{target!r} is no target of this queue; it has: {known}", param_hint="--target")


def _say_live(found: Inspection) -> None:
    if found.live:
        remark(f"in use by {found.holder}: read without locking, so this is one moment of it")


def _fields(struct: Any) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}
