"""What happens inside the engine, noted where it happens: a record taken in, a drop, an answer booked.

Beside it stands what should be; ``world`` compares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from resilient_exporters import Batch, QueueFullError
from resilient_exporters.delivery import replay
from resilient_exporters.delivery.attempt import Attempt, Decoded
from resilient_exporters.delivery.cursor import EXCLUDED, Cursor
from resilient_exporters.delivery.deadletters import Letter
from resilient_exporters.delivery.engine import Engine
from resilient_exporters.delivery.keeper import Keeper
from resilient_exporters.delivery.outcome import Full
from resilient_exporters.delivery.queue import Queue
from resilient_exporters.delivery.target import Target
from tests.laws.sites import Site, is_delivered, number_of, same
from tests.laws.stage import Actor, Stage, StageClock

__all__ = ["Book", "Notes"]


class Book:
    """What one target's figures should be.

    Attributes:
        open: what waits for it: records by their place in the queue.
        refused: those of them that are on their way to be dead letters.
        letters: its dead letters.
        suspicious: it has failed without a clear reason: a record may be passed over.
        uncounted: its cursor is gone: until it joins again, nobody counts its letters.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self.delivered = 0
        self.dropped: Counter[str] = Counter()
        self.open: dict[int, int] = {}
        self.refused: set[int] = set()
        self.letters: set[int] = set()
        self.present = True
        self.suspicious = False
        self.uncounted = False

    def take(self, place: int, record: int) -> None:
        self.accepted += 1
        self.open[place] = record

    def bury(self, record: int) -> None:
        """It is a dead letter now."""
        del self.open[next(place for place in sorted(self.open) if self.open[place] == record)]
        self.refused.discard(record)
        self.accepted -= record in self.letters  # it had a letter from before
        self.letters.add(record)

    def drop(self, start: int, stop: int, reason: str) -> list[int]:
        gone = [self.open.pop(place) for place in sorted(self.open) if start <= place < stop]
        self.dropped[reason] += len(gone)
        self.refused.difference_update(gone)
        return gone


class Notes:
    """The books of all targets, and the hooks that keep them.

    Attributes:
        sent: what each record is.
        ids, numbers: the ids of the records, and the records of the ids.
        born: when each was accepted.
        at: records by place.
        may_miss: what a power cut may have taken.
        maybe: the record that was being sent at a kill, until the disk has shown what waits.
        placing: the dead letters for which places are being reserved, to be replayed: a kill leaves places without
            records, which wait until they prove empty.
        cut: a power cut has passed, and what it took is not looked at yet.
        faults: laws that were broken where nobody could raise.
    """

    def __init__(self, seed: int, restless: float) -> None:
        self.stage = Stage(seed, restless)
        self.clock = StageClock(self.stage)
        self.engine: Engine
        self.books: dict[str, Book] = {}
        self.sites: dict[str, Site] = {}
        self.sent: dict[int, Any] = {}
        self.ids: dict[int, str] = {}
        self.numbers: dict[str, int] = {}
        self.born: dict[int, float] = {}
        self.at: dict[int, int] = {}
        self.appending: list[int] = []
        self.maybe: int | None = None
        self.placing: list[int] = []
        self.may_miss: set[int] = set()
        self.cut = False
        self.given: dict[Actor, tuple[list[str], list[int], Any]] = {}
        self.taken: dict[Attempt, set[int]] = {}
        self.attempts: dict[Actor, Attempt] = {}
        self.faults: list[str] = []

    def take_notes(self, patch: pytest.MonkeyPatch) -> None:
        """Let the engine's classes tell."""
        patch.setattr(Target, "next", self._beginning(Target.next))
        patch.setattr(Target, "run", self._running(Target.run))
        patch.setattr(Target, "_end", self._ending(Target._end))
        patch.setattr(Cursor, "move_dead", self._moving(Cursor.move_dead))
        patch.setattr(replay, "_move", self._placing(replay._move))
        patch.setattr(replay, "_book", _noting(replay._book, self._replayed))
        patch.setattr(replay, "_unbook", _noting(replay._unbook, self._stays))
        patch.setattr(Keeper, "bury", self._burying(Keeper.bury))

    def listen(self, engine: Engine) -> None:
        queue, drop = engine.queue, engine.queue.on_drop

        def dropped(start: int, stop: int, reason: str) -> None:
            for book in self.books.values():
                if start >= 0:
                    gone = book.drop(start, stop, reason)
                    if reason == "age" and gone:
                        self._old_enough(gone)
                    elif reason == "corrupt" and set(gone) - self.may_miss:
                        self.fault(f"lost as corrupt: {set(gone) - self.may_miss}")
                elif book.present:
                    book.accepted += 1
                    book.dropped[reason] += 1
            drop(start, stop, reason)

        append = queue.append

        def accept(payload: bytes, flags: int = 0) -> int:
            try:
                place = append(payload, flags)
            except QueueFullError:
                # A large one that the disk did not take, as it says: it may be there all the same.
                if queue.following - 1 not in self.at:
                    self._perhaps(self.appending[0], queue.following - 1)
                raise
            record = self.appending.pop(0)
            if place >= 0:
                self._accepted(record, place, engine)
            return place

        queue.on_drop = dropped
        queue.append = accept  # type: ignore[method-assign] # noted where it happens

    def _accepted(self, record: int, place: int, engine: Engine) -> None:
        self.at[place] = record
        self.born[record] = self.stage.now
        self.know(record, engine.id_of(place))
        for book in self.books.values():
            if book.present:
                book.take(place, record)

    def _placing(self, move: Callable[..., None]) -> Callable[..., None]:
        def placing(queue: Queue, keeper: Keeper, letters: list[Letter]) -> None:
            self.placing = [self.numbers[letter.id] for letter in letters]
            try:
                move(queue, keeper, letters)
            except Exception:
                self.placing = []  # unlike a kill
                raise

        return placing

    def _replayed(self, _: Queue, letters: Sequence[Letter], first: int) -> None:
        self.placing = []
        for place, letter in enumerate(letters, first):
            book, record = self.books[letter.target], self.numbers[letter.id]
            book.letters.discard(record)
            book.open[place] = self.at[place] = record
            self.may_miss.add(record)  # a kill now leaves a letter, and a place without a record

    def _stays(self, _: Queue, letters: Sequence[Letter]) -> None:
        self.placing = [self.numbers[letter.id] for letter in letters]  # the places stay, empty, until it is over
        for letter in letters:
            book, record = self.books[letter.target], self.numbers[letter.id]
            book.letters.add(record)
            del book.open[next(place for place in sorted(book.open, reverse=True) if book.open[place] == record)]

    def _perhaps(self, record: int, place: int) -> None:
        """A record of which nobody was told that it was accepted."""
        self.at[place] = record
        self.born.setdefault(record, self.stage.now)
        self.may_miss.add(record)

    def know(self, record: int, name: str) -> None:
        """A record's id is fixed: it has one, and nobody else has that."""
        if self.ids.setdefault(record, name) != name:
            self.fault(f"record {record} has two ids: {self.ids[record]} and {name}")
        if self.numbers.setdefault(name, record) != record:
            self.fault(f"two records have the id {name}: {self.numbers[name]} and {record}")

    def _old_enough(self, records: list[int]) -> None:
        most = self.engine.settings.max_age or 0.0
        young = [record for record in records if self.stage.now - self.born[record] < most]
        if young:
            self.fault(f"dropped for their age though younger: {young}")

    def _beginning(self, begin: Callable[..., Attempt | None]) -> Callable[..., Attempt | None]:
        def beginning(target: Target, now: float) -> Attempt | None:
            attempt = begin(target, now)
            self._begun(target, attempt)
            return attempt

        return beginning

    def _begun(self, target: Target, attempt: Attempt | None) -> None:
        """A batch is taken: in order, it begins with the oldest that waits."""
        if attempt is None:
            return
        book = self.books[target.name]
        start, stop = attempt.taken.start, attempt.taken.stop
        self.taken[attempt] = {record for place, record in book.open.items() if start <= place < stop}
        if self.engine.keeper._blind:
            return  # what is on disk is out of reach
        if target.concurrency.level == 1 and not target.concurrency._auto and target._settings.drain == "fifo":
            earlier = [record for place, record in book.open.items() if place < start and record not in book.refused]
            if len(earlier) > (1 if book.suspicious else 0):
                self.fault(f"{target.name}: {sorted(earlier)} wait, and a later one is taken: {start}")

    def _running(self, run: Callable[[Target, Attempt], None]) -> Callable[[Target, Attempt], None]:
        def running(target: Target, attempt: Attempt) -> None:
            self.attempts[self.stage.current] = attempt
            self.given.pop(self.stage.current, None)  # of a call that was given up
            run(target, attempt)

        return running

    def offered(self, site: Site, batch: Batch) -> list[int]:
        """A target is given a batch: unaltered, in order, and nothing that was settled."""
        attempt = self.attempts[self.stage.current]
        records = [number_of(record.data) for record in batch]
        wanted = self.taken.get(attempt, set())
        for number, record in zip(records, batch, strict=True):
            if not same(record.data, self.sent.get(number)):
                self.fault(f"{site.name}: {number} was altered: {record.data!r:.200}")
            self.know(number, record.id)
            if number not in wanted:
                self.fault(f"{site.name}: {number} is none of its business (any more)")
        if not attempt.doubtful and not batch.redelivered and set(records) & set(site.has):
            self.fault(f"{site.name}: had some of {records}, and is not told that they come again")
        return records

    def _ending(self, end: Callable[..., None]) -> Callable[..., None]:
        def ending(target: Target, attempt: Attempt, decoded: Decoded | None, answer: Any) -> None:
            if decoded is not None and decoded.records:
                self._answered(target.name, attempt, decoded)
            end(target, attempt, decoded, answer)

        return ending

    def _answered(self, name: str, attempt: Attempt, decoded: Decoded) -> None:
        """An answer is booked."""
        ids, records, answer = self.given.pop(self.stage.current, ([], [], None))
        if ids != [record.id for record in decoded.records]:
            return  # it never came to ``export``
        book = self.books[name]
        if isinstance(answer, list) and len(answer) == len(records):
            answers: list[Any] = answer
        else:
            answers = [answer] * len(records)
        place = {book.open[at]: at for at in sorted(book.open, reverse=True)}
        for record, one in zip(records, answers, strict=True):
            if record not in place:
                continue  # dropped meanwhile
            if is_delivered(one):
                del book.open[place[record]]
                book.delivered += 1
            elif isinstance(one, Full):
                del book.open[place[record]]
                book.dropped["full"] += 1

    def _burying(self, bury: Callable[..., None]) -> Callable[..., None]:
        def burying(keeper: Keeper, letters: list[Letter], kept: Callable[[], list[int]]) -> None:
            for letter in letters:
                record = self.numbers[letter.id]
                self.books[letter.target].refused.add(record)
                site = self.sites[letter.target]
                if record not in site.may_refuse and not letter.reason.startswith(("TransformError", "given up")):
                    self.fault(f"{letter.target}: {record} became a dead letter: {letter.reason}")
            bury(keeper, letters, noted(letters, kept))

        def noted(letters: list[Letter], kept: Callable[[], list[int]]) -> Callable[[], list[int]]:
            def call() -> list[int]:
                superfluous = kept()
                for at, letter in enumerate(letters):
                    if at not in superfluous:
                        self.books[letter.target].bury(self.numbers[letter.id])
                return superfluous

            return call

        return burying

    def _moving(self, move: Callable[[Cursor, int, str], None]) -> Callable[[Cursor, int, str], None]:
        def moving(cursor: Cursor, number: int, how: str) -> None:
            # After a power cut the disk may know a target that was forgotten since: nobody keeps its book any more.
            if how != EXCLUDED and not (self.cut and cursor.identity not in self.books):
                self.books[cursor.identity].dropped[how] += number
            move(cursor, number, how)

        return moving

    def fault(self, text: str) -> None:
        """A law was broken where nobody could raise."""
        self.faults.append(f"at {self.stage.now:g}: {text}")


def _noting(function: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
    def call(*given: Any) -> Any:
        result = function(*given)
        note(*given)
        return result

    return call
