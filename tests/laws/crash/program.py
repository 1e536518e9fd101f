"""The program that is recorded: runs a scenario. ``python -m`` with its name, a root, a journal, a seed, a part.

The part is "prepare", or the number of the first record. A last word says what is broken in it, if anything.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from resilient_exporters.delivery import database, directory
from resilient_exporters.delivery.archive import Archive
from resilient_exporters.delivery.block import Block
from resilient_exporters.delivery.deadletters import DeadLetters, Letter
from resilient_exporters.delivery.queue import Queue
from tests.laws.crash.scenario import SCENARIOS, Program
from tests.laws.crash.target import Journal


class _Noted:
    """Stands for a figure of the archive, and notes the moment at which it grows."""

    def __init__(self, journal: Journal, what: str, name: str) -> None:
        self._journal = journal
        self._what = what
        self._name = name

    def __get__(self, archive: Any, _: object = None) -> int:
        return int(archive.__dict__.get(self._name, 0))

    def __set__(self, archive: Any, number: int) -> None:
        archive.__dict__[self._name] = number
        if number:
            self._journal.note(self._what)


def _note_saves(journal: Journal) -> None:
    """Note which offsets the queue takes for saved, at the moment at which it does."""
    saved = Queue.saved

    def noting(queue: Queue, blocks: Iterable[Block], *, done: bool) -> None:
        known, now = list(blocks), time.monotonic()
        if done:
            for block in known:
                journal.note("saved", block.first, f"{queue.ring.run.hex()}/{block.count}", now)
        saved(queue, known, done=done)

    setattr(Queue, "saved", noting)  # noqa: B010 - so that mypy lets it


def _mutate(mutation: str) -> None:
    """Break something, to see whether it is noticed."""
    if mutation == "without a sync at commits":
        database._FULL = 1
    elif mutation == "without a sync of directories":
        for module in (directory, database):
            setattr(module, "sync_directory", lambda _: None)  # noqa: B010 - so that mypy lets it
    elif mutation == "letters before rows":
        setattr(DeadLetters, "without", _taken_at_once)  # noqa: B010 - so that mypy lets it


def _taken_at_once(letters: DeadLetters, some: Collection[Letter]) -> tuple[dict[int, bytes], list[int]]:
    letters.remove({one.id for one in some})
    return {}, []


def main() -> None:
    name, root, journal, seed, part, mutation = sys.argv[1:7]
    _mutate(mutation)
    scenario = SCENARIOS[name]
    program = Program(scenario, Path(root), Path(journal), seed)
    for what, figure in (("late", "late"), ("wrote", "written")):
        setattr(Archive, figure, _Noted(program.journal, what, figure))
    _note_saves(program.journal)
    os.environ["RESILIENT_EXPORTERS_DIR"] = str(Path(root) / "state")
    if part == "prepare":
        assert scenario.prepare is not None
        scenario.prepare(program)
    else:
        program.next = int(part)
        scenario.drive(program)


if __name__ == "__main__":
    main()
