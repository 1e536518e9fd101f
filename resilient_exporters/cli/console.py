"""How things are printed: tables for people, JSON for programs, remarks on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import click
import rich.box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from resilient_exporters.exporters.lines import json_line

__all__ = [
    "age",
    "escape",
    "moment",
    "number",
    "print_json",
    "print_table",
    "remark",
    "rows",
    "screen",
    "short_json",
    "size",
    "table",
]

_WIDE = 500  # where nobody looks at it, a table is not folded


def screen(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr as they are now."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _WIDE, highlight=False, soft_wrap=False)


def table(*columns: str, title: str | None = None) -> Table:
    """A table; a column whose name begins with ``>`` is aligned to the right."""
    made = Table(box=rich.box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.removeprefix(">"), justify="right" if right else "left", overflow="fold", no_wrap=right)
    return made


def print_table(made: Table) -> None:
    """A table to stdout."""
    screen().print(made)


def print_json(value: Any) -> None:
    """One JSON document to stdout."""
    click.echo(json_line(value), nl=False)


def remark(text: str) -> None:
    """A line to stderr, for people; where that is full or gone, nothing fails for it."""
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # also a signal within a write, and a closed file
        click.echo(text, err=True)


def number(value: int) -> str:
    """12345 as 12,345."""
    return f"{value:,}"


def size(value: float) -> str:
    """Bytes as a person reads them, in powers of 1000 as everywhere in this package."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def age(seconds: float | None) -> str:
    """Seconds as a person reads them: the two largest units."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if minutes < 60:
        return f"{minutes} min {int(seconds % 60)} s"
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{days} d {hours % 24} h"


def moment(seconds: float) -> str:
    """Seconds since the epoch as local time."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return f"{seconds:.0f}"


def short_json(value: Any, most: int = 120) -> str:
    """A value in one line, cut."""
    text = json_line(value).decode().rstrip("\n")
    return text if len(text) <= most else f"{text[: most - 1]}…"


def rows(made: Table, lines: Sequence[Sequence[object]]) -> Table:
    """Add lines to a table; what they hold is text, never markup."""
    for line in lines:
        made.add_row(*(escape(str(cell)) for cell in line))
    return made
