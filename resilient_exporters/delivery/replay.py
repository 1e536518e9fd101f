"""Replay: dead letters become records of the queue again, for the target that refused them and under their old ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from resilient_exporters.delivery.attempt import route
from resilient_exporters.delivery.block import Block, pack
from resilient_exporters.delivery.cursor import EXCLUDED
from resilient_exporters.delivery.deadletters import Letter
from resilient_exporters.delivery.frame import ROUTED, frame
from resilient_exporters.delivery.keeper import Keeper
from resilient_exporters.delivery.queue import Queue
from resilient_exporters.delivery.spool import SpoolUnavailable, key_of

__all__ = ["replay"]


def replay(queue: Queue, keeper: Keeper, letters: Sequence[Letter]) -> int:
    """Queue letters again. In the keeper's thread.

    They were on disk and stay there: the transaction that takes them out of the letters puts them into the queue, so
    a power cut leaves each of them as the one or the other.

    Args:
        queue: where they go.
        keeper: has them.
        letters: which. Their targets have cursors.

    Returns:
        How many.

    Raises:
        SpoolUnavailable: the disk does not take them. Those that are left are letters still.
        QueueFullError: there is no room in memory for their places.
    """
    for part in _parts(letters, queue.settings.batch_records, queue.settings.batch_bytes):
        _move(queue, keeper, part)
    return len(letters)


def _parts(letters: Sequence[Letter], most: int, most_bytes: int) -> Iterator[list[Letter]]:
    """As they go into blocks."""
    part: list[Letter] = []
    size = 0
    for letter in letters:
        if part and (len(part) >= most or size + len(letter.payload) > most_bytes):
            yield part
            part, size = [], 0
        part.append(letter)
        size += len(letter.payload)
    if part:
        yield part


def _move(queue: Queue, keeper: Keeper, letters: list[Letter]) -> None:
    first, count, done = queue.reserve(len(letters), again=True), len(letters), False
    frames = b"".join(
        frame(route(one.target, one.run, one.offset, one.flags, one.payload), first + at, ROUTED)
        for at, one in enumerate(letters)
    )
    now = queue.clock.now()
    block = Block(first, count, queue.ring.run, -1, -1, now, now)
    _book(queue, letters, first)
    try:
        done = keeper.write_row(key_of(first, count), pack(block, frames), instead_of=letters)
    finally:
        if not done:
            _unbook(queue, letters)
        queue.placed(first, count, done=done)
    if not done:
        raise SpoolUnavailable(f"dead letters cannot be queued again: {keeper.trouble or 'the disk has no room'}")


def _book(queue: Queue, letters: list[Letter], first: int) -> None:
    """Each is one target's business, and no dead letter of that any more."""
    with queue.lock:
        for cursor in queue.cursors.values():
            for at, letter in enumerate(letters):
                if letter.target == cursor.identity:
                    cursor.move_dead(1, EXCLUDED)
                elif cursor.left is None:
                    cursor.settle(first + at, first + at + 1, EXCLUDED)
            queue.keep_cursor(cursor)


def _unbook(queue: Queue, letters: list[Letter]) -> None:
    with queue.lock:
        for letter in letters:
            cursor = queue.cursors[letter.target]
            cursor.move_dead(-1, EXCLUDED)
            queue.keep_cursor(cursor)
