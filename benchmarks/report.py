"""Make the tables and plots of docs/performance of what the benchmarks have found.

``python -m benchmarks report`` takes each ``build/bench/NAME.json``, keeps what matters of it in
``docs/performance/results/NAME.json``, and makes all tables and plots of those: a benchmark that was not run again
keeps its old figures, with their date.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.goals import GOALS, Found, Goal
from benchmarks.harness import number, spread

_ROOT = Path(__file__).parent.parent
_DIGITS = 5
_MADE = "<!-- Made by `python -m benchmarks report`: the next one overwrites it. -->\n"

Result = dict[str, Any]


def main(found: Path = _ROOT / "build" / "bench", docs: Path = _ROOT / "docs" / "performance") -> int:
    """Make them.

    Args:
        found: what the benchmarks wrote.
        docs: where tables, plots and results go.
    """
    keep(found, docs / "results")
    results = {path.stem: json.loads(path.read_text()) for path in sorted((docs / "results").glob("*.json"))}
    tables = docs / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    for name, result in results.items():
        (tables / f"{name}.md").write_text(_MADE + table(result))
    (tables / "goals.md").write_text(_MADE + goals(results))
    (docs / "figures.md").write_text(_MADE + every(results))
    for goal in (goal for _, chapter in _found(results) for goal, measured in chapter if measured is None):
        if goal.benchmark in results:
            print(f"NO FIGURE: {goal.benchmark} has no {goal.figure!r} for a goal", file=sys.stderr)
    if importlib.util.find_spec("matplotlib") is None:
        print("NO PLOTS: matplotlib is not installed: pip install --group bench", file=sys.stderr)
        return 1
    _draw(results, docs)
    print(f"made docs/performance of {len(results)} results")
    return 0


def keep(found: Path, results: Path) -> None:
    """Take over what was measured: the figures without the samples behind them."""
    results.mkdir(parents=True, exist_ok=True)
    for path in sorted(found.glob("*.json")):
        result = json.loads(path.read_text())
        if result["smoke"]:
            continue
        if result.get("failed", True):
            print(f"LEFT OUT: {path.name}: the benchmark failed, or is of an older harness", file=sys.stderr)
            continue
        del result["samples"]
        rows = ",\n".join("  " + json.dumps(_short(row), ensure_ascii=False) for row in result.pop("rows"))
        head = json.dumps(_short(result), ensure_ascii=False)
        (results / path.name).write_text(head[:-1] + ',\n "rows": [\n' + rows + "\n]}\n")


def _short(value: Any) -> Any:
    """With no more digits than were measured."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {name: _short(one) for name, one in value.items()}
    return [_short(one) for one in value] if isinstance(value, list) else value


def table(result: Result) -> str:
    """All figures of a benchmark."""
    lines = [_row("figure", "ours", "beside", "ratio", "goal"), "|---|---|---|---|---|"]
    notes = []
    for row in result["rows"]:
        if "note" in row:
            notes.append(row["note"])
            continue
        unit = f" [{row['unit']}]" if row["unit"] else ""
        beside = f"{row['beside']} {spread(row['limit'])}" if row["beside"] else ""
        goal = (
            f"{_sign(row['goal'])}{'x' if row['goal_of'] == 'ratio' else ''}, {_met(row['met'])}" if row["goal"] else ""
        )
        ratio = spread(row["ratios"], "x") if row["ratios"] else ""
        lines.append(_row(row["figure"].replace("  ", "\u2003"), spread(row["ours"]) + unit, beside, ratio, goal))
    return "\n".join([*lines, "", *_remarks(notes), about(result)]) + "\n"


def _remarks(notes: Iterable[str]) -> list[str]:
    """Remarks as a list, except lines of tables, which stay one."""
    lines: list[str] = []
    for note in notes:
        in_table = note.startswith("|")
        if in_table and lines and not lines[-1].startswith("|"):
            lines.append("")
        lines.append(note if in_table else f"- {note}")
    return [*lines, ""]


def about(result: Result) -> str:
    """When, where and how it was measured, in one line."""
    others = "" if result["others"] is None else f", others used {number(result['others'])} of them meanwhile"
    return (
        f"*`python -m benchmarks {result['benchmark']}`, {result['date'][:10]}, {number(result['seconds'])} s; "
        f"Python {result['python']}, {result['cpus']} cores {result['cpu'] or result['machine']}{others}, "
        f"load {number(result['load'][0])} when it began.*"
    )


def goals(results: dict[str, Result]) -> str:
    """Each goal with what was measured."""
    lines = [_row("goal", "bar", "measured (quartiles)", "met", "by"), "|---|---|---|---|---|"]
    for chapter, found in _found(results):
        lines.append(_row(f"**{chapter}**", "", "", "", ""))
        for goal, measured in found:
            unit = _unit(measured.unit) if measured else ""
            bar = f"{'≤' if goal.most is not None else '≥'} {number(goal.bar)}{unit}"
            shown = spread(measured.samples) + unit if measured else "not measured"
            lines.append(_row(goal.text, bar, shown, _met(_reached(goal, measured)), f"`{goal.benchmark}`"))
    used = dict.fromkeys(goal.benchmark for _, chapter in GOALS for goal in chapter if goal.benchmark in results)
    return "\n".join([*lines, "", *(f"- {about(results[name])}" for name in used)]) + "\n"


def every(results: dict[str, Result]) -> str:
    """The page with all tables."""
    text = "# Every figure\n\nOne table for each benchmark; how to read them: [Performance](../performance.md).\n"
    for name, result in results.items():
        text += f"\n## {name}\n\n{result['question'].replace('``', '`')}\n\n"
        if _bars(result):
            text += f"![Ratios of {name}]({name}.svg)\n\n"
        text += f"```{{include}} tables/{name}.md\n```\n"
    return text


def _draw(results: dict[str, Result], docs: Path) -> None:
    bars = []
    for _, found in _found(results):
        for goal, measured in found:
            if measured and goal.bar:
                samples = [one / goal.bar for one in measured.samples]
                if goal.least is not None:
                    samples = [1 / one for one in samples if one]
                bars.append((goal.text, samples, _reached(goal, measured)))
    if bars:
        plots.chart(docs / "goals.svg", "Measured, as a share of the goal", bars, "1 = the goal; less is better")
    for name, result in results.items():
        if drawn := _bars(result):
            plots.chart(docs / f"{name}.svg", result["question"].replace("``", ""), drawn, "ours by the other's")


def _bars(result: Result) -> list[tuple[str, list[float], bool | None]]:
    """Figures that stand beside a peer's."""
    return [
        (f"{row['figure'].strip()} / {row['beside']}", row["ratios"], row["met"] if row["goal_of"] == "ratio" else None)
        for row in result["rows"]
        if row.get("ratios") and any(row["ratios"])
    ]


def _found(results: dict[str, Result]) -> list[tuple[str, list[tuple[Goal, Found | None]]]]:
    return [(chapter, [(goal, goal.find(results)) for goal in found]) for chapter, found in GOALS]


def _reached(goal: Goal, measured: Found | None) -> bool | None:
    if measured is None:
        return None
    middle = statistics.median(measured.samples)
    return middle <= goal.bar if goal.most is not None else middle >= goal.bar


def _met(reached: bool | None) -> str:
    return "" if reached is None else "met" if reached else "**missed**"


def _sign(goal: str) -> str:
    return goal.replace("<=", "≤").replace(">=", "≥")


def _unit(unit: str) -> str:
    return "x" if unit == "x" else f" {unit.replace('us', 'µs')}" if unit else ""


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
