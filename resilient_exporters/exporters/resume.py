"""What was written, kept beside a file: so that a crash between a write and the queue's note of it doubles no line."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.interval import IntervalSet
from resilient_exporters.exporters.intent import Intent
from resilient_exporters.exporters.slots import SlotFile

__all__ = ["ResumeRecord", "Written"]

_LOG = logging.getLogger(__name__)
_MOST_RANGES = 512
_MOST_RUNS = 64
_MOST_NUMBERED = 64


class ResumeRecord:
    """What is written and what is about to be, stored before every write; a write leaves no second trace.

    It is held with a lock; while another exporter holds it, a numbered one beside it is used, and whoever connects
    first takes over the numbered ones whose holder is gone.

    Args:
        path: where it is.
        durable: whether ``begin`` puts it on disk before it returns.

    Attributes:
        written: the records that are in the file.
        intent: a write that was begun and neither done nor taken back.
    """

    def __init__(self, path: Path, *, durable: bool) -> None:
        self._path = path
        self._durable = durable
        self._slots: SlotFile | None = None
        self._boot = Clock().boot()
        self.written = Written()
        self.intent: Intent | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is held."""
        return self._slots is not None

    def open(self, target: Path) -> None:
        """Take hold of the record and settle what an earlier process left open.

        Args:
            target: the file whose lines it knows. The caller keeps others from writing to it meanwhile.

        Raises:
            OSError: it cannot be made or written.
        """
        if self._slots is None:
            self._take_hold(target)
        self.recover(target)

    def close(self) -> None:
        """Let go."""
        if self._slots is not None:
            self._slots.close()
            self._slots = None

    def begin(self, intent: Intent) -> None:
        """Note a write that is about to be made."""
        self._store(intent.inode, intent.start, intent)
        self.intent = intent

    def done(self) -> None:
        """The write was made. Kept in memory: until the next one the file itself tells."""
        if self.intent is not None:
            self.written.add(self.intent.spans)
            self.intent = None

    def undone(self) -> None:
        """The write was taken back."""
        self.intent = None

    def settle(self, status: os.stat_result) -> None:
        """Store what is written with no write under way: before the file moves, and at the end."""
        self._store(status.st_ino, status.st_size, None)

    def forget(self) -> None:
        """The file is emptied on request: nothing is written. Stored at once, for a kill before it is empty."""
        self.written = Written()
        self.intent = None
        self._store(0, 0, None)

    def recover(self, target: Path) -> None:
        """Find out how far the noted write came, and cut off the line that it tore."""
        if self.intent is not None:
            _settle_intent(self.intent, self.written, target)
            self.intent = None

    def _take_hold(self, target: Path) -> None:
        paths = [
            self._path,
            *(self._path.with_name(f"{self._path.name}.{number}") for number in range(1, _MOST_NUMBERED)),
        ]
        taken = (SlotFile.take(path, create=True, durable=self._durable) for path in paths)
        self._slots = next((slots for slots in taken if slots is not None), None)
        if self._slots is None:
            raise BlockingIOError(f"{self._path} and {_MOST_NUMBERED - 1} more beside it are held by others")
        self._take_in(self._slots, target)
        others = (SlotFile.take(path, create=False, durable=False) for path in paths if path != self._slots.path)
        orphans = [slots for slots in others if slots is not None]
        for orphan in orphans:
            self._take_in(orphan, target)
        if orphans:
            status = target.stat()
            self._store(status.st_ino, status.st_size, None)
        for orphan in orphans:
            orphan.remove()

    def _take_in(self, slots: SlotFile, target: Path) -> None:
        """Take over what an earlier process stored."""
        if slots.value is None:
            return
        try:
            state = msgspec.msgpack.decode(slots.value, type=_State)
        except (msgspec.DecodeError, UnicodeDecodeError):
            _LOG.warning("%s is of another version: lines of the last write may be written twice", slots.path)
            return
        if state.boot != self._boot and not _is_plausible(state, target):
            _LOG.warning("%s lost lines in a power cut; what the queue still holds of them is written again", target)
            return
        written = Written(state.runs)
        if state.intent is not None:
            _settle_intent(state.intent, written, target)
        self.written.merge(written)

    def _store(self, inode: int, size: int, intent: Intent | None) -> None:
        if self._slots is not None:
            state = _State(self._boot, self._durable, inode, size, self.written.ranges(), intent)
            self._slots.store(msgspec.msgpack.encode(state))


class Written:
    """Which records are in the file: ranges of offsets per run of the queue.

    Bounded by 64 runs and 512 ranges; beyond that the lowest range of the run that was longest without a write is
    forgotten, so that at worst a line is written twice.
    """

    def __init__(self, runs: dict[str, list[tuple[int, int]]] | None = None) -> None:
        self._runs = {run: IntervalSet(ranges) for run, ranges in (runs or {}).items()}

    def __contains__(self, record: tuple[str, int]) -> bool:
        offsets = self._runs.get(record[0])
        return offsets is not None and record[1] in offsets

    def __bool__(self) -> bool:
        return bool(self._runs)

    def add(self, spans: Sequence[tuple[str, int, int]]) -> None:
        """Note spans: run, first offset, count."""
        for run, first, count in spans:
            offsets = self._runs.pop(run, None) or IntervalSet()
            self._runs[run] = offsets  # last: the most recently written
            offsets.add(first, first + count)
        while len(self._runs) > _MOST_RUNS:
            del self._runs[next(iter(self._runs))]

    def merge(self, other: Written) -> None:
        """Take in what another record knows."""
        for run, ranges in other.ranges().items():
            self.add([(run, start, stop - start) for start, stop in ranges])

    def ranges(self) -> dict[str, list[tuple[int, int]]]:
        """Everything, in a form that can be stored."""
        runs = {run: list(offsets) for run, offsets in self._runs.items()}
        surplus = sum(map(len, runs.values())) - _MOST_RANGES
        while surplus > 0:
            run = next(iter(runs))
            forgotten, runs[run] = runs[run][:surplus], runs[run][surplus:]
            surplus -= len(forgotten)
            if not runs[run]:
                del runs[run]
            for start, stop in forgotten:
                self._runs[run].remove(start, stop)
        return runs


class _State(msgspec.Struct, array_like=True):
    boot: str
    durable: bool
    inode: int
    size: int
    runs: dict[str, list[tuple[int, int]]]
    intent: Intent | None


def _settle_intent(intent: Intent, written: Written, target: Path) -> None:
    for path in (target, *_same_file(target, intent.inode)):
        try:
            handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            continue
        try:
            standing = intent.standing(handle)
            mine = os.fstat(handle).st_ino == intent.inode
            if standing.torn and mine:
                os.ftruncate(handle, standing.end)
        finally:
            os.close(handle)
        if standing.records or mine:
            written.add(intent.written(standing.records))
            return


def _same_file(target: Path, inode: int) -> Iterator[Path]:
    """The file under another name in its directory: logrotate renamed it."""
    target = Path(os.path.realpath(target))
    with contextlib.suppress(FileNotFoundError), os.scandir(target.parent) as entries:
        for entry in entries:
            if entry.inode() == inode and entry.name != target.name and entry.is_file(follow_symlinks=False):
                yield target.with_name(entry.name)


def _is_plausible(state: _State, target: Path) -> bool:
    """Whether the file survived a reboot with all that is said to be in it."""
    if state.durable:  # lines are on disk before the record says so; what is missing others took away
        return True
    try:
        status = target.stat()
    except FileNotFoundError:
        return False
    return status.st_ino == state.inode and status.st_size >= state.size
