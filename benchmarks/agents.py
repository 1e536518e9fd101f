"""How do we stand beside rsyslog, syslog-ng and the OpenTelemetry Collector with their queues on disk?"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from benchmarks import agents_trials as trials
from benchmarks.accept import append
from benchmarks.agents_programs import AGENTS
from benchmarks.harness import Bench, Figures, number, spread
from tests.servers.provision import Cache, UnavailableError

_OURS = "ours"
_BYTES = "ours-bytes"
_LIMIT = "framed append"
_TITLES = {_OURS: "**ours**", _BYTES: "ours, given bytes", **{name: agent.title for name, agent in AGENTS.items()}}
Case = tuple[Callable[..., Figures], dict[str, Any]]
_DEAR = ("rsyslog-disk",)
"""Left out where it needs minutes for what the others do in seconds, and nothing new would be learned."""


@dataclass(frozen=True)
class Figure:
    """A line of the table.

    Args:
        text: what it is.
        trial, key: where it comes from.
        unit: of it.
        most: the goal for us.
        scale: from what was measured to the unit.
        beside: the agents that ours stands beside in the list of ratios; their best was the bar.
        worst: the largest of the rounds is what counts, not the median.
    """

    text: str
    trial: str
    key: str
    unit: str = ""
    most: float | None = None
    scale: float = 1.0
    beside: tuple[str, ...] = ()
    worst: bool = False


_FIGURES = (
    Figure("CPU to accept, target down", "outage", "accept", "s/M", 3.0, beside=("syslog-ng", "otel")),
    Figure("CPU to drain to an HTTP bulk receiver", "outage", "drain", "s/M", 3.0, beside=("syslog-ng", "otel")),
    Figure("accept rate, target down", "outage", "rate", "/s", beside=("syslog-ng", "otel", "otel-fsync")),
    Figure("drain rate", "outage", "drain_rate", "/s", beside=("syslog-ng", "otel")),
    Figure("written, in and out", "outage", "bytes", "B/record", 100, beside=("syslog-ng", "otel", "otel-fsync")),
    Figure("queue directory", "outage", "dir", "B/record", beside=("syslog-ng", "otel")),
    Figure("queue directory after the drain", "outage", "dir_after", "MB"),
    Figure("RSS with 200,000 waiting", "waiting", "rss", "MB", 40, beside=("syslog-ng", "otel")),
    Figure("lost in the outage", "outage", "lost", "", 0, worst=True),
    Figure("CPU while down, nothing sent", "rest", "cpu", "%", 0.05),
    Figure("kill -9: lost", "killed", "lost", "", 0, worst=True),
    Figure("kill -9: lost of those older than 1 s", "killed", "old", "", 0, worst=True),
    Figure("SIGTERM, target down: gone after", "exiting", "seconds", "ms", 50, 1000, beside=("syslog-ng", "otel")),
    Figure("  of that: `close()`", "exiting", "closing", "ms", 50),
    Figure("SIGTERM, target down: lost", "exiting", "lost", "", 0, worst=True),
    Figure("64 bytes flipped: lost", "flipped", "lost", "", 500, worst=True),
    Figure("64 bytes flipped: altered records delivered", "flipped", "altered", "", 0, worst=True),
    Figure("64 bytes flipped: does not start", "flipped", "dead", "", 0, worst=True),
    Figure("disk full: taken", "full", "taken"),
    Figure("disk full: lost of those", "full", "lost"),
    Figure("disk full: lost and not counted", "full", "uncounted", "", 0),
    Figure("disk full: lines logged", "full", "lines"),
    Figure("disk full: new ones delivered afterwards", "full", "new"),
)


def run(bench: Bench) -> None:
    sides = [_OURS, *_there(bench)]
    many = bench.size(200_000, 5_000)
    limit = {_LIMIT: (append, {"count": many, "encoded": True})}
    found = {
        "outage": _measure(bench, trials.outage, [_OURS, _BYTES, *sides[1:]], 3, beside=limit, count=many),
        "waiting": _measure(bench, trials.waiting, sides, 1, count=many),
        "rest": _measure(
            bench, trials.rest, sides, 1, together=True, count=bench.size(10_000, 500),
            after=bench.size(40, 1), seconds=bench.size(30, 1),
        ),
        "exiting": _measure(bench, trials.exiting, sides, 3, count=bench.size(20_000, 1_000)),
        "killed": _measure(bench, trials.killed, sides, 3, rate=20_000, seconds=bench.size(3, 1)),
        "flipped": _flips(bench, sides, bench.size(12, 1)),
        "full": _measure(
            bench, trials.full, [name for name in sides if name not in _DEAR], 1,
            count=bench.size(600_000, 2_000), megabytes=16, new=bench.size(5_000, 500),
        ),
    }  # fmt: skip
    floor = _column(found["outage"][_LIMIT], "rate")
    for figure in _FIGURES:
        _row(bench, figure, found[figure.trial])
    for name in (_OURS, _BYTES, *sides[1:]):
        samples = _column(found["outage"][name], "rate")
        if samples:
            bench.row(
                f"accept rate, {_plain(name)}", samples, "/s",
                beside=(_LIMIT, floor[: len(samples)]),
                least=0.5 if name in {_OURS, _BYTES} else None, of="ratio",
            )  # fmt: skip
    _table(bench, found, floor, [_OURS, _BYTES, *sides[1:]])
    bench.note("how each was driven: docs/performance/agents.md")


def _there(bench: Bench) -> list[str]:
    """The agents that this machine can have."""
    cache, found = Cache(), []
    for name, agent in AGENTS.items():
        try:
            if not agent.installed(cache):
                print(f"   {agent.title}: fetched and built once, minutes for the Collector", flush=True)
            agent.install(cache)
            found.append(name)
        except UnavailableError as error:
            bench.note(f"NOT MEASURED: {agent.title} CANNOT BE HAD: {str(error).splitlines()[0]}")
    return found


def _measure(
    bench: Bench,
    trial: Callable[..., Figures],
    sides: Sequence[str],
    rounds: int,
    *,
    together: bool = False,
    beside: Mapping[str, Case] = MappingProxyType({}),
    **given: Any,
) -> dict[str, list[Figures]]:
    cases = {f"{trial.__name__} {name}": (trial, {"name": name, **given}) for name in sides}
    found = bench.measure({**cases, **beside}, repeats=rounds, together=together)
    for name in sides:
        if failed := sum(1 for sample in found[f"{trial.__name__} {name}"] if "failed" in sample):
            bench.note(f"NOT MEASURED: {trial.__name__}, {_plain(name)}: {failed} of {rounds} rounds failed, see above")
    return {name: found[f"{trial.__name__} {name}" if name in sides else name] for name in (*sides, *beside)}


def _flips(bench: Bench, sides: Sequence[str], rounds: int) -> dict[str, list[Figures]]:
    """Another place each time; all sides at once, for nothing but records is counted."""
    found: dict[str, list[Figures]] = {name: [] for name in sides}
    for seed in range(rounds):
        given: dict[str, Any] = {"count": bench.size(30_000, 1_000), "seed": seed}
        for name, samples in _measure(bench, trials.flipped, sides, 1, together=True, **given).items():
            found[name] += samples
    return found


def _row(bench: Bench, figure: Figure, found: dict[str, list[Figures]]) -> None:
    ours = [figure.scale * one for one in _column(found[_OURS], figure.key)]
    if not ours:
        return
    if figure.worst:
        ours = [max(ours)]
    text = figure.text + (f", worst of {len(found[_OURS])}" if figure.worst and len(found[_OURS]) > 1 else "")
    peers = [name for name in figure.beside if len(_column(found.get(name, []), figure.key)) == len(ours)]
    if not peers:
        bench.row(text, ours, figure.unit, most=figure.most)
    for at, name in enumerate(peers):
        theirs = [figure.scale * one for one in _column(found[name], figure.key)]
        bench.row(
            text, ours, figure.unit, beside=(AGENTS[name].title, theirs), most=None if at else figure.most
        )  # fmt: skip


def _table(bench: Bench, found: dict[str, dict[str, list[Figures]]], floor: list[float], sides: list[str]) -> None:
    """All of it, as a table for the documentation."""
    lines = [["", "goal", *(_TITLES[name] for name in sides)], ["---"] * (2 + len(sides))]
    for figure in _FIGURES:
        goal = "" if figure.most is None else f"≤ {number(figure.most)}"
        cells = [_cell(figure, _column(found[figure.trial].get(name, []), figure.key)) for name in sides]
        lines.append([f"{figure.text}{f' [{figure.unit}]' if figure.unit else ''}", goal, *cells])
        if figure.key == "rate":
            bar = statistics.median(floor)
            rates = [_column(found["outage"][name], "rate") for name in sides]
            shares = [f"{number(statistics.median(each) / bar)}" if each else "" for each in rates]
            lines.append([f"  of a framed append + fdatasync per 500 ({number(bar)}/s)", "≥ 0.5", *shares])
    for line in lines:
        bench.note(f"| {' | '.join(line)} |")


def _cell(figure: Figure, samples: list[float]) -> str:
    samples = [figure.scale * one for one in samples]
    if not samples:
        return "–"
    if not figure.worst:
        return spread(samples)
    low, high = min(samples), max(samples)
    return number(high) if low == high else f"{number(low)}–{number(high)}"


def _column(samples: Sequence[Figures], key: str) -> list[float]:
    """Of the rounds that did not fail."""
    return [sample[key] for sample in samples if key in sample]


def _plain(name: str) -> str:
    return _TITLES[name].replace("*", "")
