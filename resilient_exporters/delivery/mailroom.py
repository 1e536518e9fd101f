"""The mailroom: what can be done with dead letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from resilient_exporters.delivery.deadletters import DeadLetter, Letter
from resilient_exporters.delivery.keeper import Keeper
from resilient_exporters.delivery.queue import Queue
from resilient_exporters.delivery.replay import replay

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
            letters = [one for one in self._keeper.letters if wanted is None or one.id in wanted]
            cursors = self._queue.cursors
            # One whose target is not there keeps its letters.
            present = [one for one in letters if one.target in cursors and cursors[one.target].left is None]
            return replay(self._queue, self._keeper, present)

        try:
            moved: int = self._keeper.call(move)
        finally:
            self._ring()
        return moved

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
