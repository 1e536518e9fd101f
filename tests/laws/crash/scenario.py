"""Programs that use a queue for a few seconds, as a cut may find them. Each is run as ``python -m``, with arguments.

Each keeps a journal outside of the root: what it sent and when ``send`` returned, and what its targets were given.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resilient_exporters import Exporter, ExporterPool, FileExporter, Reject
from resilient_exporters.delivery import database, directory
from resilient_exporters.delivery.archive import Archive
from resilient_exporters.delivery.block import Block
from resilient_exporters.delivery.deadletters import DeadLetters, Letter
from resilient_exporters.delivery.outcome import Batch, Outcome
from resilient_exporters.delivery.queue import Queue

__all__ = ["SCENARIOS", "Collector", "Journal", "Lines", "Scenario", "content", "exporters_of"]

PATIENCE = 60.0


def content(number: int, size: Callable[[int], int]) -> dict[str, Any]:
    """The record with a number: the same in every process, and no two alike."""
    chance = random.Random(number)
    pad = chance.randbytes(size(number) // 2).hex()
    return {"n": number, "value": chance.random(), "text": f"reading {chance.getrandbits(64):x}", "pad": pad}


def _small(number: int) -> int:
    return 60 if number % 3 else 20


def _medium(number: int) -> int:
    return 200 if number % 2 else 600


def _big(number: int) -> int:
    return 1500 if number % 3 else 4500


def _sometimes_large(number: int) -> int:
    return 20_000 if number % 11 == 10 else 40


class Journal:
    """Lines on another disk: what happened, to which record, when, and a word more.

    ``begin`` before a send and ``sent`` after it; ``taken`` or ``refused`` by a target, whose ``next`` batch says that
    the queue noted the one before; ``quiet``: it has noted all; ``let`` go: dropped on purpose; ``wrote``: a
    transaction was on disk; ``saved``: records from an offset on were in it; ``late``: the queue counted it as late.
    """

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def note(self, what: str, number: int = -1, word: str = "-", at: float | None = None) -> None:
        """One line."""
        os.write(self._handle, f"{what} {number} {time.monotonic() if at is None else at!r} {word}\n".encode())


class Collector(Exporter):
    """A target that takes what comes, unless it is away.

    Args:
        size: how many bytes of padding a record has, by its number.
        journal: where it notes what it took, or None.
        rejects: which numbers it refuses.
        **options: those of ``Exporter``.

    Attributes:
        got: number, id, and whether the batch was marked as redelivered.
        altered: numbers of records that are not what was sent.
    """

    def __init__(
        self,
        *,
        size: Callable[[int], int],
        journal: Journal | None,
        rejects: Callable[[int], bool] | None = None,
        **options: Any,
    ) -> None:
        self.size = size
        self.away = False
        self.rejects = rejects or (lambda _: False)
        self.got: list[tuple[int, str, bool]] = []
        self.altered: list[int] = []
        self.journal = journal
        super().__init__(**options)

    def export(self, batch: Batch) -> list[Outcome | None]:
        if self.away:
            raise ConnectionError("no link")
        if self.journal is not None:
            self.journal.note("next", 0, self.name)
        answers: list[Outcome | None] = []
        for record in batch:
            number = record.data["n"]
            if record.data != content(number, self.size):
                self.altered.append(number)
            if self.rejects(number):
                if self.journal is not None:
                    self.journal.note("refused", number)
                answers.append(Reject("poison"))
                continue
            if self.journal is not None:
                self.journal.note("taken", number, f"{self.name}/{record.id}")
            self.got.append((number, record.id, batch.redelivered))
            answers.append(None)
        return answers


class Lines(FileExporter):
    """A file as the target: what it got is what stands in it.

    Args:
        file: which.
        size, journal: as for a ``Collector``.
        **options: those of ``FileExporter``.
    """

    def __init__(self, file: Path, *, size: Callable[[int], int], journal: Journal | None, **options: Any) -> None:
        self.path = file
        self.size = size
        self.away = False
        self.journal = journal
        self._known = 0
        super().__init__(file, fsync="batch", **options)

    def export(self, batch: Batch) -> Any:
        if self.away:
            raise ConnectionError("no link")
        answers = super().export(batch)
        if self.journal is not None:
            for record in batch:
                self.journal.note("taken", record.data["n"], f"{self.name}/{record.id}")
        return answers

    @property
    def altered(self) -> list[int]:
        """Places of lines that are not what was sent."""
        return [at for at, line in enumerate(self._there()) if self._number(line) < 0]

    @property
    def got(self) -> list[tuple[int, str, bool]]:
        """The lines in the file since ``look_on``. They have no ids."""
        return [(self._number(line), "", True) for line in self._there()[self._known :]]

    def look_on(self) -> None:
        """What is in the file now is known."""
        self._known = len(self._there())

    def _there(self) -> list[bytes]:
        return self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []

    def _number(self, line: bytes) -> int:
        try:
            number = int(json.loads(line)["n"])
        except (ValueError, KeyError, TypeError):
            return -1
        return number if line == json.dumps(content(number, self.size), separators=(",", ":")).encode() + b"\n" else -1


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
                time.sleep(max(0.0, began + at / rate - time.monotonic()))
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
        time.sleep(seconds)


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
