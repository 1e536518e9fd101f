"""``rexport send``: lines from stdin to one or more targets."""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.live import Live

from resilient_exporters import Exporter, ExporterPool, Listener, Stats
from resilient_exporters.cli.console import escape, number, remark, rows, screen, size, table
from resilient_exporters.cli.feed import FORMATS, Feed, Parser
from resilient_exporters.delivery.clock import Bell
from resilient_exporters.errors import EncodingError, QueueFullError
from resilient_exporters.urls import from_url

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["send"]

_SHOWN = 10  # refused lines that are reported one by one
_LOOK = 1.0  # seconds for which a full queue is waited for before signals are looked at


_HELP = """Send lines, or JSON lines, from stdin to every URL.

\b
tail -F app.log | rexport send --to file:///mnt/share/app.log
sensor | rexport send --to 'sqlite:////data/x.db?table=readings' --to file:///data/readings.jsonl

Lines are accepted as fast as they come, whether targets are there or not, and what cannot be delivered is kept. At
the end of the input what waits is delivered, for --timeout seconds at most. The rest stays in the queue directory
and is delivered by the next run with the same targets (`rexport send --to URL </dev/null`). A full queue makes the
input wait (--option on_full=drop_oldest drops instead). Ctrl-C and SIGTERM save and end.

--format auto: JSON if the first line is a JSON object or list, else text. A line that is no JSON is reported with
its number, and the others go on.

Exit code 0: all was delivered. 1: something waits, was refused or dropped.
"""


@click.command(help=_HELP)
@click.option("--to", "urls", multiple=True, required=True, metavar="URL", help="A target; give it again for more.")
@click.option("--name", help="Of the queue; the same name finds what an earlier run left. Default: by the targets.")
@click.option("--directory", type=click.Path(path_type=Path), help="Queue directory. Default: one by the name.")
@click.option(
    "--timeout", default=30.0, show_default=True, type=click.FloatRange(min=0), help="Seconds to deliver after the end."
)
@click.option("--format", "kind", default="auto", show_default=True, type=click.Choice(FORMATS), help="Of the input.")
@click.option("--encoding", default="utf-8", show_default=True, help="Of the input.")
@click.option("--option", "pairs", multiple=True, metavar="KEY=VALUE", help="An option of the queue: max_disk='2 GB'.")
@click.option("--quiet", "-q", is_flag=True, help="Only errors.")
def send(
    urls: tuple[str, ...],
    name: str | None,
    directory: Path | None,
    timeout: float,
    kind: str,
    encoding: str,
    pairs: tuple[str, ...],
    quiet: bool,
) -> None:
    """Send lines from stdin to every URL."""
    watch = _Watch()
    exporter = _exporter(urls, name, directory, {**_options(pairs)}, watch)
    parser = _parser(kind, encoding)
    refused = _Refused()
    if sys.stdin.isatty() and not quiet:
        remark("reading from the terminal: one record a line, end with Ctrl-D")
    with _Screen(exporter, quiet=quiet) as shown, Feed(sys.stdin.buffer, watch.bell.ring) as feed:
        exporter.has_unsent_data()  # opens the queue: whatever is wrong with it is said before anything is read
        full: QueueFullError | None = None
        for line, raw in feed:
            try:
                record = parser.parse(raw)
                if full is not None:
                    raise full  # asked to end with a full queue, we do not wait for each line that was read
                if record is not None:
                    shown.lines += _accept(exporter, record, feed)
            except QueueFullError as error:
                full = error if feed.signal else None
                refused.add(line, error)
            except (ValueError, EncodingError) as error:
                refused.add(line, error)
        refused.cut(feed)
        if not feed.signal and timeout:
            _deliver(exporter, watch, feed, timeout)
        # Asked to end, we save at once, and deliver only what takes no time.
        report = exporter.close(0.5 if feed.signal else 0.0)
    sys.exit(_report(exporter, watch, refused, feed, lost=report.lost, urls=urls, quiet=quiet))


def _accept(exporter: Exporter, record: Any, feed: Feed) -> int:
    """Hand over a record; where the queue is full the input waits."""
    while True:
        try:
            exporter.send(record)
            return 1
        except QueueFullError:
            if feed.signal:
                raise


def _deliver(exporter: Exporter, watch: _Watch, feed: Feed, timeout: float) -> None:
    """Wait until nothing waits any more; targets that failed are asked at once, then as their retry policy says."""
    deadline = time.monotonic() + timeout
    report = exporter.flush(timeout)
    while not feed.signal and not report.complete:
        stats = exporter.stats()
        left = deadline - time.monotonic()
        waiting = [target for target in stats.targets.values() if target.pending]
        if not waiting or left <= 0 or all(target.state == "held" for target in waiting):
            return
        watch.bell.wait(left)


def _exporter(
    urls: tuple[str, ...], name: str | None, directory: Path | None, options: dict[str, Any], watch: _Watch
) -> Exporter:
    options.setdefault("on_full", "block")
    if options["on_full"] == "block":
        options["full_timeout"] = _LOOK
    options |= {"listeners": [watch], "directory": directory}
    if len(urls) == 1:
        return from_url(urls[0], **options, **({} if name is None else {"name": name}))
    members = [from_url(url) for url in urls]
    return ExporterPool(members, name=name or " + ".join(member.name for member in members), **options)


def _options(pairs: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{pair!r} is no option: give key=value", param_hint="--option")
        found[key.strip().replace("-", "_")] = _value(text.strip())
    return found


def _value(text: str) -> Any:
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for make in (int, float):
        try:
            return make(text)
        except ValueError:
            continue
    return text


def _parser(kind: str, encoding: str) -> Parser:
    try:
        "".encode(encoding)
    except LookupError:
        text = f"{encoding!r} is no encoding: try utf-8 or latin-1"
        raise click.BadParameter(text, param_hint="--encoding") from None
    return Parser(kind, encoding)


class _Watch(Listener):
    """Counts what became of records in this run, and rings whenever something did."""

    def __init__(self) -> None:
        self.bell = Bell()
        self.lost = 0
        self.count: dict[str, int] = {}
        self.reasons: dict[str, str] = {}

    def state_changed(self, target: str, state: str, reason: str) -> None:  # noqa: ARG002 - the log says it
        self.bell.ring()

    def delivered(self, target: str, records: int, seconds: float) -> None:  # noqa: ARG002 - as above
        self.count[target] = self.count.get(target, 0) + records
        self.bell.ring()

    def dropped(self, target: str | None, records: int, reason: str) -> None:  # noqa: ARG002 - the figures say it
        self.lost += records
        self.bell.ring()

    def dead_lettered(self, target: str, record_id: str, reason: str) -> None:
        self.reasons[f"{record_id} by {target}"] = reason
        self.bell.ring()


class _Refused:
    """Lines that did not become records."""

    def __init__(self) -> None:
        self.count = 0
        self.truncated = ""

    def add(self, line: int, error: Exception) -> None:
        self.count += 1
        if self.count <= _SHOWN:
            logging.getLogger(__name__).warning("line %d refused: %s", line, error)
        elif self.count == _SHOWN + 1:
            logging.getLogger(__name__).warning("more lines are refused; they are only counted")

    def cut(self, feed: Feed) -> None:
        if feed.unfinished:
            self.truncated = f"; an unfinished last line of {feed.unfinished} bytes was not sent"


class _Screen:
    """What is seen meanwhile, on stderr: a live table where that is a terminal, and the log as lines."""

    def __init__(self, exporter: Exporter, *, quiet: bool) -> None:
        self.lines = 0
        self._exporter = exporter
        self._console = screen(stderr=True)
        self._live = not quiet and self._console.is_terminal
        self._stack = contextlib.ExitStack()
        self._handler = _Lines(self._console, logging.ERROR if quiet else logging.WARNING)

    def __enter__(self) -> Self:
        log = logging.getLogger("resilient_exporters")
        log.addHandler(self._handler)
        self._stack.callback(log.removeHandler, self._handler)
        if self._live:
            self._stack.enter_context(
                Live(self, console=self._console, refresh_per_second=5, transient=True, redirect_stdout=False)
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __rich_console__(self, console: Console, options: object) -> Iterator[Any]:
        stats = self._exporter.stats()
        made = table("target", ">delivered", ">waiting", ">dead", ">dropped", "state", "last error")
        yield f"{number(self.lines)} accepted, {size(stats.memory_bytes)} in memory, {size(stats.disk_bytes)} on disk"
        lines = [
            (name, number(one.delivered), number(one.pending), number(one.dead), number(sum(one.dropped.values())),
             one.state, "" if one.state == "closed" else one.last_error[:60])
            for name, one in stats.targets.items()
        ]  # fmt: skip
        yield rows(made, lines)


class _Lines(logging.Handler):
    def __init__(self, console: Console, level: int) -> None:
        super().__init__(level)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(escape(f"rexport: {record.getMessage()}"), soft_wrap=True)


def _report(
    exporter: Exporter,
    watch: _Watch,
    refused: _Refused,
    feed: Feed,
    *,
    lost: int,
    urls: tuple[str, ...],
    quiet: bool,
) -> int:
    stats: Stats = exporter.stats()
    waiting = {name: one.pending for name, one in stats.targets.items() if one.pending}
    good = not (waiting or refused.count or watch.lost or watch.reasons or lost)
    if quiet and good:
        return 0
    if feed.signal:
        remark(f"ended by {feed.signal}{refused.truncated}")
    for name in stats.targets:
        remark(f"{name}: {number(watch.count.get(name, 0))} delivered")
    if refused.count:
        remark(f"{number(refused.count)} lines refused")
    for what, reason in list(watch.reasons.items())[:_SHOWN]:
        remark(f"refused: {what}: {reason}")
    if watch.reasons:
        remark(f"{number(len(watch.reasons))} records refused by a target; see: rexport queue dead {_where(exporter)}")
    if watch.lost:
        remark(f"{number(watch.lost)} records dropped; see: rexport queue show {_where(exporter)}")
    if lost:
        remark(f"{number(lost)} records are lost: neither memory nor disk could keep them for the next run")
    for name, count in waiting.items():
        state = stats.targets[name]
        why = f" ({state.last_error})" if state.last_error else ""
        remark(f"{number(count)} records wait for {name}{why}")
    if waiting:
        again = " ".join(f"--to {shlex.quote(_without_secret(url))}" for url in urls)
        remark(f"they are kept in {exporter.directory}\nlook:    rexport queue show {_where(exporter)}")
        remark(f"deliver: rexport send {again} </dev/null")
    return 0 if good else 1


def _where(exporter: Exporter) -> str:
    return shlex.quote(str(exporter.directory))


def _without_secret(url: str) -> str:
    from resilient_exporters.urls import ParsedURL

    parsed = ParsedURL.parse(url)
    secret = any(word in key.lower() for key, _ in parsed.query for word in ("pass", "secret", "token", "key"))
    return f"{parsed}…" if secret or parsed.password is not None else url
