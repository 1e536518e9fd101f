"""The mailroom: what can be done with dead letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from resilient_exporters.delivery.attempt import route
from resilient_exporters.delivery.cursor import EXCLUDED
from resilient_exporters.delivery.deadletters import DeadLetter, Letter
from resilient_exporters.delivery.frame import ROUTED
from resilient_exporters.delivery.keeper import Keeper
from resilient_exporters.delivery.queue import Queue

__all__ = ["Mailroom"]


class Mailroom:
    """Lists, replays and discards dead letters.

    Args:
        queue: where replayed records go.
        keeper: has the letters.
        ring: wakes the dispatcher.
    """

    def __init__(self, queue: Queue, keeper: Keeper, ring: Callable[[], None]) -> None:
        self._queue = queue
        self._keeper = keeper
        self._ring = ring

    def letters(self) -> Iterator[DeadLetter]:
        """The dead letters, oldest first."""
        for letter in self._keeper.call(lambda: list(self._keeper.letters)):
            yield letter.open()

    def discard(self, ids: tuple[str, ...]) -> int:
        """Throw dead letters away; they count as dropped."""
        return len(self._take_letters(ids, "discarded"))

    def replay(self, ids: tuple[str, ...]) -> int:
        """Queue dead letters again, for the target that refused them and under the ids they had."""
        wanted = set(ids) or None

        def move() -> int:
            count = 0
            for letter in [one for one in self._keeper.letters if wanted is None or one.id in wanted]:
                cursor = self._queue.cursors.get(letter.target)
                if cursor is None or cursor.left is not None:
                    continue  # its target is not there: it keeps its letters
                payload = route(letter.target, letter.run, letter.offset, letter.flags, letter.payload)
                with self._queue.lock:
                    self._replayed(letter, self._queue.append_again(payload, ROUTED))
                self._keeper.letters.remove_one(letter)
                count += 1
            return count

        try:
            moved: int = self._keeper.call(move)
        finally:
            self._ring()
        return moved

    def _replayed(self, letter: Letter, offset: int) -> None:
        with self._queue.lock:
            for identity, cursor in self._queue.cursors.items():
                if identity == letter.target:
                    cursor.move_dead(1, EXCLUDED)
                elif offset >= 0 and cursor.left is None:
                    cursor.settle(offset, offset + 1, EXCLUDED)
                self._queue.keep_cursor(cursor)

    def _take_letters(self, ids: tuple[str, ...], how: str) -> list[Letter]:
        wanted = set(ids) or None
        taken: list[Letter] = self._keeper.call(lambda: self._keeper.letters.remove(wanted))
        with self._queue.lock:
            for letter in taken:
                cursor = self._queue.cursors.get(letter.target)
                if cursor is not None:
                    cursor.move_dead(1, how)
                    self._queue.keep_cursor(cursor)
        return taken
