"""The audit of ``rexport demo``: what the targets really hold, against what was accepted."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from resilient_exporters.delivery.inspection import Inspection

__all__ = ["Account", "audit", "in_database", "in_file", "in_queue"]


@dataclass(frozen=True)
class Account:
    """What a target holds.

    Attributes:
        delivered: accepted readings that it has.
        waiting: accepted readings that it has not, and that wait for it in the queue.
        lost: accepted readings that are neither here nor there.
        doubled: readings that it has more than once, each further copy counted.
        out_of_order: readings that stand behind a later one.
        unsure: readings that it has and of which nobody can say whether they were accepted: the sender was killed in
            ``send``.
    """

    delivered: int
    waiting: int
    lost: int
    doubled: int
    out_of_order: int
    unsure: int

    @property
    def good(self) -> bool:
        """Whether all is there, once and in order."""
        return not (self.waiting or self.lost or self.doubled or self.out_of_order)


def audit(found: Sequence[int], total: int, unsure: Collection[int], queued: Collection[int] = ()) -> Account:
    """Compare.

    Args:
        found: numbers of the readings as they stand in the target.
        total: how many numbers were given out, from 0 on.
        unsure: those of them of which it is not known whether they were accepted.
        queued: those that wait for the target.
    """
    held = set(found)
    accepted = set(range(total)) - set(unsure)
    late, newest = 0, -1
    for number in found:
        late += number < newest
        newest = max(newest, number)
    return Account(
        delivered=len(accepted & held),
        waiting=len((accepted - held) & set(queued)),
        lost=len(accepted - held - set(queued)),
        doubled=len(found) - len(held),
        out_of_order=late,
        unsure=len(held - accepted),
    )


def in_queue(directory: Path, target: str) -> list[int]:
    """The numbers of the readings that wait for a target."""
    with Inspection(directory) as found:
        return [record.data["seq"] for record in found.records(target)]


def in_file(path: Path) -> list[int]:
    """The numbers of the readings in a file of JSON lines."""
    if not path.exists():
        return []
    with path.open("rb") as lines:
        return [json.loads(line)["seq"] for line in lines]


def in_database(path: Path) -> list[int]:
    """The numbers of the readings in the table, in the order in which they were written."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return [seq for (seq,) in connection.execute("SELECT seq FROM readings ORDER BY rowid")]
