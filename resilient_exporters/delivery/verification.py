"""Verification: what is damaged in a queue directory, without changing it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from resilient_exporters.delivery.block import BlockDamaged, salvage, unpack
from resilient_exporters.delivery.deadletters import read_letters
from resilient_exporters.delivery.interval import IntervalSet
from resilient_exporters.delivery.picture import Picture
from resilient_exporters.delivery.recovery import decode_state
from resilient_exporters.delivery.rescue import waiting_for_rescue
from resilient_exporters.delivery.spool import span_of

__all__ = ["Finding", "Verification"]


class Finding(msgspec.Struct, frozen=True):
    """Something that ``Inspection.verify`` found.

    Attributes:
        damage: whether something is damaged now; else it is a remark.
        where: the place.
        what: in words.
    """

    damage: bool
    where: str
    what: str


class Verification:
    """Checks everything that has a checksum, and what must fit together.

    Args:
        picture: of the queue directory.
    """

    def __init__(self, picture: Picture) -> None:
        self._picture = picture

    def findings(self) -> Iterator[Finding]:
        """Everything that is wrong, and remarks. Read as you go."""
        folder = self._picture.directory
        yield from self._database()
        yield from self._blocks()
        aside = waiting_for_rescue(folder)
        if aside:
            # What is missing is not lost yet.
            for one in aside:
                yield Finding(True, one.name, "was damaged; what is readable in it is taken over at the next start")
        else:
            yield from self._letters()
            yield from self._cursors()
        for entry in sorted([*folder.glob("quarantine/*"), *folder.glob("damaged-*.db")]):
            name = str(entry.relative_to(folder))
            yield Finding(False, name, "damaged before and replaced; kept for whoever wants to look, may be deleted")
        if self._picture.live:
            yield Finding(False, "lock", f"held by {self._picture.holder}: what it changed meanwhile was not judged")

    def _database(self) -> Iterator[Finding]:
        if not self._picture.rows.exists:
            return
        if self._picture.rows.damage:
            yield Finding(True, "cache.db", f"cannot be read: {self._picture.rows.damage}")
            return
        for line in self._picture.rows.check():
            yield Finding(True, "cache.db", f"SQLite says: {line}")
        if strange := self._picture.rows.strange():
            yield Finding(True, "cache.db", f"{strange} rows that are none of a queue")

    def _blocks(self) -> Iterator[Finding]:
        before = 0
        for key in self._picture.queue.stock.index:
            start, stop = span_of(key)
            where = f"block {start}"
            if start < before:
                yield Finding(False, where, f"repeats {before - start} records of the block before it, as after a kill")
            before = max(before, stop)
            row = self._picture.rows.get(key)
            if row is None:
                if not self._picture.live:
                    yield Finding(True, where, f"the row of {stop - start} records cannot be read")
                continue
            try:
                payload = unpack(row)
            except BlockDamaged as error:
                part = salvage(row)
                whole = 0 if part is None else len(part.frames)
                yield Finding(True, where, f"{whole} of {stop - start} records are intact ({error})")
                continue
            if payload.count != stop - start:
                yield Finding(True, where, f"holds {payload.count} records, its key says {stop - start}")

    def _letters(self) -> Iterator[Finding]:
        found: dict[str, int] = {}
        for key in self._picture.letter_keys:
            row = self._picture.rows.get(key)
            letters = read_letters(row)
            if not letters and not self._picture.live:
                yield Finding(True, f"dead letters {key}", "cannot be read")
            for letter in letters:
                found[letter.target] = found.get(letter.target, 0) + 1
        if self._picture.live or self._picture.rows.damage:
            return
        for cursor in self._picture.queue.cursors.values():
            if found.get(cursor.identity, 0) < cursor.dead:
                number = cursor.dead - found.get(cursor.identity, 0)
                yield Finding(True, cursor.identity, f"{number} of {cursor.dead} dead letters are gone")

    def _cursors(self) -> Iterator[Finding]:
        queue = self._picture.queue
        if self._picture.ring_damage:
            yield Finding(True, "memory", self._picture.ring_damage)
        if self._picture.state is not None and decode_state(self._picture.state) is None:
            yield Finding(True, "cursors", "the row with the cursors cannot be read")
        if not queue.cursors and len(queue.stock.index):
            yield Finding(True, "cursors", f"gone; {len(queue.stock.index)} blocks wait for nobody knows whom")
        if self._picture.live:
            return
        held = IntervalSet()
        for one in self._picture.held():
            held.add(one.start, one.stop)
        lost = sum(b - a for start, stop in self._picture.open() for a, b in held.gaps(start, stop))
        if lost:
            yield Finding(True, "records", f"{lost} that wait are neither in memory nor on disk")
        for cursor in queue.cursors.values():
            accepted, pending = cursor.accepted(queue.following), cursor.pending(queue.following)
            settled = cursor.delivered + sum(cursor.dropped.values()) + cursor.dead + pending
            if settled != accepted:
                text = f"counters do not add up: {accepted} accepted, {settled} settled or waiting"
                yield Finding(True, cursor.identity, text)
