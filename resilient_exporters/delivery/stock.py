"""Where the sealed blocks lie: in the ring, on disk, or read back from there."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable

from resilient_exporters.delivery.block import Block, Payload
from resilient_exporters.delivery.spool import key_of, span_of

__all__ = ["SAVING", "Stock"]

SAVING = -1
"""In place of a key: the keeper is writing this block."""
_LOADED_BLOCKS = 6
_AHEAD = 2


class Stock:
    """The sealed blocks, oldest first. Not locked by itself: the queue's lock guards it.

    Attributes:
        blocks: those in the ring (some of them saved as well).
        index: keys of those that are only on disk, sorted.
        freed: keys of rows that nobody needs any more.
        wanted: keys of rows that somebody waits for.
        load_soon: called when ``wanted`` grew.
    """

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.index: array[int] = array("q")
        self.freed: list[int] = []
        self.wanted: dict[int, None] = {}
        self.load_soon: Callable[[], None] = _nothing
        self._loaded: OrderedDict[int, Payload] = OrderedDict()
        self._oldest_row: tuple[int, float, float] | None = None

    def block_at(self, offset: int) -> Block | None:
        """The block in the ring that holds ``offset``."""
        at = bisect_right(self.blocks, offset, key=_first) - 1
        return self.blocks[at] if at >= 0 and offset < self.blocks[at].end else None

    def key_at(self, offset: int) -> int | None:
        """The key of the row that holds ``offset``, of those that are only on disk."""
        at = bisect_right(self.index, key_of(offset + 1, 0)) - 1
        return self.index[at] if at >= 0 and offset < span_of(self.index[at])[1] else None

    def next_held(self, offset: int, stop: int) -> int:
        """The first offset behind ``offset`` that lies in some block, at most ``stop``."""
        at = bisect_right(self.blocks, offset, key=_first)
        if at < len(self.blocks):
            stop = min(stop, self.blocks[at].first)
        near = bisect_right(self.index, key_of(offset + 1, 0))
        if near < len(self.index):
            stop = min(stop, span_of(self.index[near])[0])
        return stop

    # -- reading back --------------------------------------------------------------------------------------------

    def loaded(self, key: int) -> Payload | None:
        """A row that was read, or None: then it is asked for, and so are those behind it."""
        payload = self._loaded.get(key)
        if payload is None:
            self.want(key)
        else:
            self._loaded.move_to_end(key)
        at = bisect_right(self.index, key)
        for ahead in self.index[at : at + _AHEAD]:
            if ahead not in self._loaded:
                self.want(ahead)
        return payload

    def want(self, key: int) -> None:
        """Ask the keeper to read a row."""
        if key not in self.wanted:
            self.wanted[key] = None
            self.load_soon()

    def put_loaded(self, key: int, payload: Payload | None) -> None:
        """Take what the keeper read."""
        self.wanted.pop(key, None)
        if payload is None:
            return
        self._loaded[key] = payload
        if self.index and key == self.index[0]:
            self._oldest_row = (key, payload.born, payload.last)
        while len(self._loaded) > _LOADED_BLOCKS:
            self._loaded.popitem(last=False)

    def oldest_row(self) -> tuple[float, float] | None:
        """Queue times of the first and last record of the oldest row, or None: not read yet."""
        if self.index and self._oldest_row is not None and self._oldest_row[0] == self.index[0]:
            return self._oldest_row[1:]
        return None

    # -- coming and going ----------------------------------------------------------------------------------------

    def evict(self) -> bool:
        """Take the oldest block out of memory if it is on disk."""
        if not self.blocks:
            return False
        key = self.blocks[0].key
        if key is None or key == SAVING:
            return False
        del self.blocks[0]
        insort(self.index, key)
        return True

    def free_below(self, low: int) -> bool:
        """Let go of everything below ``low``. Returns whether memory was freed."""
        gone = 0
        for block in self.blocks:
            if block.end > low:
                break
            self._release(block)
            gone += 1
        del self.blocks[:gone]
        done = 0
        while done < len(self.index) and span_of(self.index[done])[1] <= low:
            done += 1
        if done:
            self.freed.extend(self.index[:done])
            del self.index[:done]
        return bool(gone)

    def free_between(self, start: int, stop: int, settled: Callable[[int, int], bool]) -> bool:
        """Let go of the blocks that overlap a range and are settled. Returns whether memory was freed."""
        at = max(0, bisect_right(self.blocks, start, key=_first) - 1)
        gone = False
        while at < len(self.blocks) and self.blocks[at].first < stop:
            if settled(self.blocks[at].first, self.blocks[at].end):
                self._release(self.blocks.pop(at))
                gone = True
            else:
                at += 1
        at = max(0, bisect_right(self.index, key_of(start + 1, 0)) - 1)
        while at < len(self.index) and span_of(self.index[at])[0] < stop:
            if settled(*span_of(self.index[at])):
                self.freed.append(self.index.pop(at))
            else:
                at += 1
        return gone

    def _release(self, block: Block) -> None:
        self.freed.extend(block.replaces)
        block.replaces = []
        if block.key is not None and block.key != SAVING:
            self.freed.append(block.key)
        block.start = -1  # a save under way finds that nobody needs it

    def first_unsaved(self) -> int:
        """Index of the oldest block in memory that is neither on disk nor on its way: they are saved in order."""
        return bisect_left(self.blocks, True, key=_is_unsaved)

    def unsaved(self) -> Block | None:
        """The oldest block in memory that is neither on disk nor on its way."""
        at = self.first_unsaved()
        return self.blocks[at] if at < len(self.blocks) else None


def _is_unsaved(block: Block) -> bool:
    return block.key is None


def _first(block: Block) -> int:
    return block.first


def _nothing() -> None: ...
