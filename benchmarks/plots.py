"""Plots of the report: colours that can be read on white and on black, the same bytes for the same data."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import number, quartiles

__all__ = ["chart"]

_INK = "#7b7f87"
_OURS = "#2f8fd8"
_MISSED = "#d9662b"
_GRID = "#7b7f8744"
_LEAST = 1e-3


def chart(path: Path, title: str, bars: Sequence[tuple[str, Sequence[float], bool | None]], axis: str) -> None:
    """Draw a dot with its quartiles for each figure, over a logarithmic axis with a line at one.

    Args:
        path: of the SVG.
        title: above it.
        bars: name, samples, and whether a goal was met, or None without one.
        axis: what the numbers are.
    """
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(8.4, 0.9 + 0.27 * len(bars)))
    for at, (_, samples, met) in enumerate(bars):
        colour = _MISSED if met is False else _OURS
        middle = max(statistics.median(samples), _LEAST)
        low, high = (max(one, _LEAST) for one in quartiles(samples))
        axes.plot([low, high], [at, at], color=colour, linewidth=3, solid_capstyle="round", alpha=0.5)
        axes.plot([middle], [at], "D" if met is False else "o", color=colour, markersize=5.5)
        shown = number(statistics.median(samples))
        axes.annotate(
            shown, (max(high, middle), at), (7, 0), textcoords="offset points", va="center", color=_INK, fontsize=8
        )
    axes.axvline(1, color=_INK, linewidth=1)
    axes.set_xscale("log")
    left, right = axes.get_xlim()
    axes.set_xlim(min(left, 0.8), max(right, 1.25) * 1.7)  # room for the numbers
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_yticks(range(len(bars)), [name.replace("`", "") for name, _, _ in bars])
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlabel(axis, color=_INK, fontsize=8)
    axes.set_title(title, color=_INK, fontsize=10, loc="left")
    _finish(figure, axes, path)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "resilient_exporters", "font.family": "sans-serif"})
    import matplotlib.pyplot as plt

    return plt


def _finish(figure: Any, axes: Any, path: Path) -> None:
    axes.grid(axis="x", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, labelsize=8, length=0)
    axes.minorticks_off()
    for side in axes.spines.values():
        side.set_visible(False)
    figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None, "Creator": None})
    _pyplot().close(figure)
    # Matplotlib ends some lines with blanks.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
