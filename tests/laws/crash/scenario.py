"""Programs that use a queue for a few seconds, as a cut may find them."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resilient_exporters import Exporter, ExporterPool
from tests.laws.crash.target import Collector, Journal, Lines, content

__all__ = ["SCENARIOS", "Program", "Scenario", "exporters_of"]

PATIENCE = 60.0


def _small(number: int) -> int:
    return 60 if number % 3 else 20


def _medium(number: int) -> int:
    return 200 if number % 2 else 600


def _big(number: int) -> int:
    return 1500 if number % 3 else 4500


def _sometimes_large(number: int) -> int:
    return 20_000 if number % 11 == 10 else 40


@dataclass(frozen=True)
class Scenario:
    """What a program does.

    Attributes:
        drive: the program that is recorded.
        window: its loss window.
        prepare: what is done before, and is on disk when the recording begins.
        size: how many bytes of padding a record has, by its number.
        rejects: which numbers a target refuses.
        members: names of the targets; more than one are a pool.
        options: of the exporter.
        given: whether the directory is given by hand.
        in_order: whether records come back in the order of their numbers.
        file: the target is a file under the root, which a cut may touch as well, and which must have all in the end.
        after: the recording begins with what a cut left of this other scenario.
    """

    drive: Callable[[Program], None]
    window: float = 0.2
    prepare: Callable[[Program], None] | None = None
    size: Callable[[int], int] = _small
    rejects: Callable[[int], bool] | None = None
    members: tuple[str, ...] = ("target",)
    options: Mapping[str, Any] = field(default_factory=dict)
    given: bool = True
    in_order: bool = True
    file: bool = False
    after: str = ""


def exporters_of(
    scenario: Scenario, root: Path, journal: Journal | None = None, **options: Any
) -> tuple[Exporter, Targets]:
    """The exporter of a scenario, and its targets by name."""
    base: dict[str, Any] = {"retry": 0, "min_free_disk": 0, "max_disk": "64 MB", "on_full": "block", **scenario.options}
    own: dict[str, Any] = {**base, "loss_window": scenario.window, **options}
    if scenario.given:
        own["directory"] = root / "state" / "queue"
    if scenario.file:
        (root / "out").mkdir(exist_ok=True)
        lines = Lines(root / "out" / "log", name="target", size=scenario.size, journal=journal, **own)
        return lines, {"target": lines}
    what: dict[str, Any] = {"size": scenario.size, "journal": journal, "rejects": scenario.rejects}
    if len(scenario.members) == 1:
        [name] = scenario.members
        target = Collector(name=name, **what, **own)
        return target, {name: target}
    targets = {name: Collector(name=name, retry=0, **what) for name in scenario.members}
    return ExporterPool(list(targets.values()), name="pool", **own), targets


Targets = Mapping[str, Any]
"""``Collector`` or ``Lines``, by name."""


class Program:
    """What the scenarios are written in.

    Args:
        scenario: which.
        root: directory that is recorded.
        journal: where to note.
        seed: of the choices.
    """

    def __init__(self, scenario: Scenario, root: Path, journal: Path, seed: str) -> None:
        self.scenario = scenario
        self.root = root
        self.journal = Journal(journal)
        self.dice = random.Random(seed)
        self.next = 0
        self._lock = threading.Lock()

    @contextmanager
    def opened(self, *, away: bool = True) -> Iterator[tuple[Exporter, Targets]]:
        """The exporter, closed in the end."""
        exporter, targets = exporters_of(self.scenario, self.root, self.journal)
        for target in targets.values():
            target.away = away
        try:
            yield exporter, targets
        finally:
            exporter.close()

    def send(self, exporter: Exporter, count: int, *, rate: float = 0) -> None:
        """Send the next ``count`` records, ``rate`` of them a second (0: as fast as it goes)."""
        began = time.monotonic()
        for at in range(count):
            with self._lock:
                number, self.next = self.next, self.next + 1
            if rate:
                time.sleep(max(0.0, began + at / rate - time.monotonic()))  # a rate is kept: nothing is waited for
            data = content(number, self.scenario.size)
            self.journal.note("begin", number)
            receipt = exporter.send(data)
            self.journal.note("sent", number, str(receipt.id))

    def deliver(self, exporter: Exporter, targets: Targets) -> None:
        """The targets are back: deliver all."""
        for target in targets.values():
            target.away = False
        assert exporter.flush(PATIENCE).complete
        self.journal.note("quiet")

    def linger(self, seconds: float) -> None:
        """Let time pass: what a program does that has nothing to send."""
        time.sleep(seconds)  # what is recorded is what the engine does by its own clock meanwhile


def _steady(program: Program) -> None:
    """The first start of all, and then a reading now and then; the link is down."""
    window = program.scenario.window
    with program.opened() as (exporter, _):
        for _ in range(4):
            program.send(exporter, program.dice.randint(1, 30), rate=program.dice.choice((40, 150, 1000)))
            program.linger(program.dice.uniform(0, window))
        program.linger(window)


def _drain(program: Program) -> None:
    """An outage with a backlog, the link comes back while readings go on, rows are deleted, the file shrinks."""
    with program.opened() as (exporter, targets):
        for _ in range(4):
            program.send(exporter, 60, rate=400)
            program.linger(0.1)
        assert exporter.save(PATIENCE)
        for target in targets.values():
            target.away = False
        program.send(exporter, 60, rate=200)
        program.deliver(exporter, targets)
        program.linger(1.2)  # until rows are deleted
        for target in targets.values():
            target.away = True
        program.send(exporter, 40, rate=200)
        program.linger(0.25)
        program.deliver(exporter, targets)


def _zero(program: Program) -> None:
    """Every ``send`` waits for the disk; several threads share its syncs. Then the link comes back."""
    with program.opened() as (exporter, targets):
        program.send(exporter, 3)
        threads = [threading.Thread(target=program.send, args=(exporter, 20)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for target in targets.values():
            target.away = False
        program.send(exporter, 10)
        program.deliver(exporter, targets)
        for target in targets.values():
            target.away = True
        program.send(exporter, 10)


def _letters(program: Program) -> None:
    """Some records are refused for good. Dead letters are replayed and thrown away."""
    with program.opened() as (exporter, targets):
        program.send(exporter, 60, rate=300)
        assert exporter.save(PATIENCE)
        for target in targets.values():
            target.away = False
        program.send(exporter, 40, rate=300)
        program.deliver(exporter, targets)
        program.linger(1.2)  # until the rows that they came from are gone
        letters = list(exporter.dead_letters())
        thrown, again = letters[:4], letters[4:10]
        for letter in thrown:
            program.journal.note("let", letter.data["n"])
        assert exporter.discard(*(letter.id for letter in thrown)) == len(thrown)
        for target in targets.values():
            target.away = True
        assert exporter.replay(*(letter.id for letter in again)) == len(again)
        program.linger(0.3)
        program.send(exporter, 20, rate=300)
        program.deliver(exporter, targets)


def _pool(program: Program) -> None:
    """One target is up, the other one is away for a while."""
    with program.opened(away=False) as (exporter, targets):
        targets["down"].away = True
        for _ in range(3):
            program.send(exporter, 50, rate=300)
            program.linger(0.15)
        program.linger(1.0)
        program.deliver(exporter, targets)
        program.send(exporter, 30, rate=300)
        program.linger(0.3)


def _large(program: Program) -> None:
    """Records that do not fit beside others in memory, between small ones."""
    with program.opened() as (exporter, targets):
        for _ in range(3):
            program.send(exporter, 11, rate=200)
            program.linger(0.1)
        program.send(exporter, 10)
        program.deliver(exporter, targets)


def _restart(program: Program) -> None:
    """A program that is started twice on a backlog: opening, closing, and again."""
    with program.opened() as (exporter, _):
        program.send(exporter, 40, rate=300)
    with program.opened() as (exporter, targets):
        program.send(exporter, 20, rate=300)
        program.deliver(exporter, targets)
        program.send(exporter, 20, rate=300)


def _backlog(program: Program) -> None:
    with program.opened() as (exporter, _):
        for _ in range(6):
            program.send(exporter, 50)
            assert exporter.save(PATIENCE)


def _orphan(program: Program) -> None:
    """A second process's backlog lies in a numbered directory, its holder is gone."""
    first, _ = exporters_of(program.scenario, program.root)
    first.has_unsent_data()
    with program.opened() as (exporter, _):
        for _ in range(6):
            program.send(exporter, 30)
            assert exporter.save(PATIENCE)
    first.close()


def _adopt(program: Program) -> None:
    with program.opened() as (exporter, targets):
        program.send(exporter, 30, rate=300)
        program.linger(0.3)
        program.deliver(exporter, targets)


def _damaged(program: Program) -> None:
    """A backlog in a database that SQLite calls malformed: an index is damaged, its rows are not."""
    _backlog(program)
    database = program.root / "state" / "queue" / "cache.db"
    with closing(sqlite3.connect(database)) as connection:
        [page] = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'Cache_key_raw'").fetchone()
        size = int(connection.execute("PRAGMA page_size").fetchone()[0])
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * 8)


def _lines(program: Program) -> None:
    """A file as the target: it grows while readings come, and after an outage."""
    with program.opened(away=False) as (exporter, targets):
        for _ in range(3):
            program.send(exporter, 20, rate=200)
        targets["target"].away = True
        program.send(exporter, 60, rate=300)
        assert exporter.save(PATIENCE)
        program.deliver(exporter, targets)
        program.send(exporter, 20, rate=200)


SCENARIOS: dict[str, Scenario] = {
    "steady": Scenario(_steady),
    "steady-1.0": Scenario(_steady, window=1.0),
    "drain": Scenario(_drain, size=_big, options={"max_memory": "256 kB", "batch_records": 50}),
    "zero": Scenario(_zero, window=0, in_order=False),
    "letters": Scenario(_letters, rejects=lambda number: number % 5 == 0, in_order=False),
    "pool": Scenario(_pool, members=("up", "down"), size=_medium, options={"batch_records": 20}),
    "large": Scenario(_large, size=_sometimes_large, options={"max_memory": 65_536}),
    "restart": Scenario(_restart, prepare=_backlog),
    "adoption": Scenario(_adopt, prepare=_orphan, given=False, in_order=False),
    "rescue": Scenario(_restart, prepare=_damaged),
    "second cut": Scenario(_drain, after="drain", size=_big, options={"max_memory": "256 kB", "batch_records": 50}),
    "file": Scenario(_lines, file=True, options={"batch_records": 20}),
}
