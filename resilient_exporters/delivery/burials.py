"""Burials: dead letters on their way to disk, and the cursors' count of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from resilient_exporters.delivery.cursor import DEAD, EXCLUDED
from resilient_exporters.delivery.deadletters import DeadLetters, Letter
from resilient_exporters.delivery.listener import Listener
from resilient_exporters.delivery.queue import Queue
from resilient_exporters.delivery.spool import Spool

__all__ = ["Burials"]


class Burials:
    """Keeps the letters that targets hand in, and sees to it that each is counted once.

    ``add`` may be called by anyone, the rest belongs to the keeper's thread.

    Args:
        queue: whose cursors count the letters.
        spool: where they are kept.
        listener: told of letters that are dropped.
        fits: whether so many bytes more keep the bounds on the disk.

    Attributes:
        letters: those on disk.
        robbed: at this start not all letters could be read any more.
    """

    def __init__(self, queue: Queue, spool: Spool, listener: Listener, fits: Callable[[int], bool]) -> None:
        self._queue = queue
        self._listener = listener
        self.robbed = False
        self._waiting: list[tuple[list[Letter], Callable[[], list[int]]]] = []
        self._looked = 0  # how many of them were looked up
        self._seen: set[tuple[str, str]] = set()  # ids and targets of what was looked up
        self._again: set[tuple[str, str]] = set()  # those of them that were letters before, or stand there twice
        self._new: set[tuple[str, str]] = set()  # ids and targets of those that are being kept
        self._gone: set[tuple[str, str]] = set()  # those of them that went for the bound already
        self.letters = DeadLetters(spool, queue.settings.max_dead, self._overflowed, fits)

    def add(self, letters: list[Letter], kept: Callable[[], list[int]]) -> None:
        """Hand letters in; see ``Keeper.bury``."""
        self._waiting.append((letters, kept))

    def work(self) -> bool:
        """Keep what was handed in. Returns whether that was anything.

        Raises:
            SpoolUnavailable, SpoolDamaged: what is not kept yet stays handed in.
        """
        done = bool(self._waiting)
        while self._waiting:
            # All at once: a sync for each would keep what waits to be saved waiting.
            handed = list(self._waiting)
            for letter in (letter for letters, _ in handed[self._looked :] for letter in letters):
                name = _name(letter)
                if name in self._seen or letter in self.letters:
                    self._again.add(name)
                self._seen.add(name)
            self._looked = len(handed)
            keep = self._queue.settings.max_dead > 0
            self._new = self._seen
            self._gone = set()
            try:
                if keep:
                    self.letters.add([letter for letters, _ in handed for letter in letters])
            finally:
                self._new = set()
            del self._waiting[: len(handed)]
            again, self._again, self._seen, self._looked = self._again, set(), set(), 0
            superfluous = self._settle(handed, again, keep=keep)
            for letter in superfluous:
                if _name(letter) not in again:
                    self.letters.remove_one(letter)
        return done

    def _settle(
        self, handed: list[tuple[list[Letter], Callable[[], list[int]]]], again: set[tuple[str, str]], *, keep: bool
    ) -> list[Letter]:
        """They are kept: settle their records. Returns the letters whose records were settled otherwise meanwhile."""
        found: list[Letter] = []
        with self._queue.lock:
            for letters, kept in handed:
                superfluous = set(kept())
                found.extend(letters[at] for at in superfluous if keep)
                counted = [one for at, one in enumerate(letters) if at not in superfluous]
                self._overflowed([one for one in counted if not keep or _name(one) in self._gone])
            for target in {target for _, target in again}:
                self._count_once(target)
        return found

    def _count_once(self, target: str) -> None:
        """Refused once more, after a crash in its burial or its replay: that is one letter."""
        cursor = self._queue.cursors.get(target)
        if cursor is not None and (more := cursor.dead - self.letters.count(target)) > 0:
            cursor.move_dead(more, EXCLUDED)
            self._queue.keep_cursor(cursor)

    def count(self) -> None:
        """At the start: a crash may have come between a letter and the cursor that counts it. The letters are right."""
        own = {self._queue.ring.run.hex(), self._queue.lineage.hex()}
        with self._queue.lock:
            for run, offset, target in self.letters.names():
                buried = self._queue.cursors.get(target)
                if buried is not None and run in own and offset < self._queue.following:
                    self._queue.settle(buried, offset, offset + 1, DEAD)
            for cursor in self._queue.cursors.values():
                more = self.letters.count(cursor.identity) - cursor.dead
                # One that is gone was on its way out when the crash came: it counts, whoever took it.
                gone = "corrupt" if self.robbed else "discarded"
                cursor.move_dead(-more, gone if more < 0 else EXCLUDED)
                self._queue.keep_cursor(cursor)

    def welcome(self, target: str) -> None:
        """A target joins: if its cursor went in a power cut and its letters did not, it counts them again."""
        with self._queue.lock:
            cursor = self._queue.cursors.get(target)
            if cursor is not None and not cursor.dead and (more := self.letters.count(target)):
                cursor.move_dead(-more, EXCLUDED)
                self._queue.keep_cursor(cursor)

    def lost(self, found: set[int]) -> None:
        """The database was replaced, and these rows are all there is: other letters count as dropped."""
        self._dropped(self.letters.forget_other(found), "corrupt")

    def _overflowed(self, letters: list[Letter]) -> None:
        # Whether one that is just being kept counts is known when its record is settled.
        self._gone.update(_name(letter) for letter in letters if _name(letter) in self._new)
        self._dropped([letter.target for letter in letters if _name(letter) not in self._new], "dead_overflow")

    def _dropped(self, targets: Iterable[str], reason: str) -> None:
        with self._queue.lock:
            for target in targets:
                cursor = self._queue.cursors.get(target)
                if cursor is not None:
                    cursor.move_dead(1, reason)
                    self._queue.keep_cursor(cursor)
                self._listener.dropped(target, 1, reason)


def _name(letter: Letter) -> tuple[str, str]:
    return letter.id, letter.target
