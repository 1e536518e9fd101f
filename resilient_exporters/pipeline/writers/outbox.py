"""Parcels: records on their way to a service that cannot take anything back."""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from resilient_exporters.pipeline.checks import at_least_one
from resilient_exporters.pipeline.errors import StateError
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.writers.base import OUTDATED, BaseWriter

__all__ = ["MOST_ITEMS", "OutboxWriter", "Parcel"]

_LENGTH: Final = struct.Struct(">I")
_SPOOL: Final = 1 << 20  # bytes of one parcel that are held in memory within a batch
MOST_ITEMS: Final = 1_000_000


def _items(value: int) -> None:
    at_least_one(value)
    if value > MOST_ITEMS:
        raise ValueError(f"give {MOST_ITEMS} at most")


class Parcel(msgspec.Struct):
    """Records that go out together.

    Attributes:
        number: of the parcel; never used twice in a job.
        group: that the records belong to.
        count: of records.
        size: bytes in its file.
        content: bytes of the records.
    """

    number: int
    group: tuple[Any, ...] = ()
    count: int = 0
    size: int = 0
    content: int = 0


class OutboxWriter(BaseWriter):
    """Packs records into parcels on disk, and hands over each parcel once it is full and on record.

    Nothing goes out before the commit that knows of it, and what goes out has a number that a repetition has, too: the
    service can tell it from something new. A parcel's file is removed once it was taken, so that a resume sends again
    only what was under way when the program was killed: between the answer of the service and the removal of the file.
    Where the service refused something, the file stays until that is on record, too.

    A subclass writes ``pack`` and ``deliver``.
    """

    groups = False
    """Each group gets parcels of its own."""
    supported_options = {
        **OUTDATED,
        "items_per_buffer_write": Option(type=int, default=500, check=_items, help="Records that go out together."),
        "size_per_buffer_write": Option(
            type=int, default=5_000_000, check=at_least_one, help="Bytes that go out together, at most."
        ),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.run = uuid.uuid4().hex[:16]
        self._most_items: int = self.read_option("items_per_buffer_write")
        self._most_bytes: int = self.read_option("size_per_buffer_write")
        self._next = 0
        self._open: dict[tuple[Any, ...], Parcel] = {}
        self._ready: list[Parcel] = []
        self._unwritten: dict[int, bytearray] = {}
        self._unsynced: set[int] = set()
        self._refused: list[Path] = []

    # -- what a subclass writes ----------------------------------------------------------------------------------

    def pack(self, record: BaseRecord) -> bytes:
        """A record as it lies in a parcel."""
        raise NotImplementedError(f"{type(self).__name__} must define pack(record)")

    def deliver(self, parcel: Parcel, entries: list[bytes]) -> None:
        """Hand a parcel over. May be called again for the same one.

        Args:
            parcel: the parcel; ``id_of(parcel)`` is its identity.
            entries: what ``pack`` gave.
        """
        raise NotImplementedError(f"{type(self).__name__} must define deliver(parcel, entries)")

    def id_of(self, parcel: Parcel) -> str:
        """The identity of a parcel: the same at each attempt, and after each resume; no other one has it."""
        return f"{self.run}-{parcel.number}"

    # -- records -------------------------------------------------------------------------------------------------

    def write_batch(self, batch: Iterable[BaseRecord]) -> None:
        """Pack records.

        Raises:
            ItemsLimitReached: as many as ``items_limit`` are written.
            BadRecordError: a record cannot be packed, and ``on_bad_record`` is "fail".
        """
        for record in self.counted(batch):
            data = self.sound(self.pack, record)
            if data is not None:
                self._add(record.group_membership if self.groups else (), data)

    def _add(self, group: tuple[Any, ...], data: bytes) -> None:
        parcel = self._open.get(group)
        if parcel is not None and parcel.content + len(data) > self._most_bytes:
            self._seal(parcel)
            parcel = None
        if parcel is None:
            parcel = self._open[group] = Parcel(self._next, group)
            self._next += 1
        unwritten = self._unwritten.setdefault(parcel.number, bytearray())
        unwritten += _LENGTH.pack(len(data)) + data
        parcel.count += 1
        parcel.size += _LENGTH.size + len(data)
        parcel.content += len(data)
        if len(unwritten) >= _SPOOL:
            self._write(parcel.number)
        if parcel.count >= self._most_items:
            self._seal(parcel)

    def _seal(self, parcel: Parcel) -> None:
        del self._open[parcel.group]
        self._ready.append(parcel)

    def _write(self, number: int) -> None:
        data = self._unwritten.pop(number, None)
        if data:
            with self._path(number).open("ab") as file:
                file.write(data)
            self._unsynced.add(number)

    def _path(self, number: int) -> Path:
        return self.workplace.path / f"parcel-{number}"

    @property
    def _mark(self) -> Path:
        """Is there as long as the directory is the one that the job began with: a parcel that lacks was taken, then."""
        return self.workplace.path / "parcels"

    # -- commits -------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Bring all parcels to disk."""
        for number in list(self._unwritten):
            self._write(number)
        if not self._unsynced:
            return
        for number in sorted(self._unsynced):
            _sync(self._path(number))
        self._mark.touch(0o600)
        _sync(self.workplace.path)
        self._unsynced.clear()

    def get_state(self) -> Any:
        """The parcels."""
        return {
            **super().get_state(), "run": self.run, "next": self._next,
            "open": [msgspec.structs.asdict(parcel) for parcel in self._open.values()],
            "ready": [msgspec.structs.asdict(parcel) for parcel in self._ready],
        }  # fmt: skip

    def committed(self) -> None:
        """Hand over what is full."""
        while self._refused:
            self._remove(self._refused.pop())
        while self._ready:
            parcel = self._ready[0]
            path = self._path(parcel.number)
            if path.exists():
                refused = self._bad()
                self.deliver(parcel, list(_entries(path, parcel)))
                if self._bad() == refused:
                    self._remove(path)
                else:
                    self._refused.append(path)
                    self.set_metadata("items_count", self.items_count)
            self._ready.pop(0)

    def _bad(self) -> int:
        return self.bad_records.count.get(self.part, 0)

    @staticmethod
    def _remove(path: Path) -> None:
        path.unlink()
        _sync(path.parent)

    def flush(self) -> None:
        """No record will be added to any parcel."""
        for parcel in list(self._open.values()):
            self._seal(parcel)

    def finish_writing(self) -> None:
        """Used alone, without a pipeline, it hands over what is full."""
        if self._ready:
            self.prepare()
            self.committed()

    def close(self) -> None:
        """Let go of the files; used alone, without a pipeline, what was not handed over goes."""
        self.workplace.release()

    def set_state(self, state: Any) -> None:
        """Throw away what came after the commit, and hand over what was full then and is still here."""
        super().set_state(state)
        self.run, self._next = state["run"], state["next"]
        opened = [_parcel(one) for one in state["open"]]
        self._open = {parcel.group: parcel for parcel in opened}
        self._ready = [_parcel(one) for one in state["ready"]]
        if (opened or self._ready) and not self._mark.exists():
            count = sum(parcel.count for parcel in (*opened, *self._ready))
            raise StateError(None, f"{self.workplace.path}: {count} records were here, and are gone: begin a new job")
        known = {f"parcel-{parcel.number}" for parcel in (*opened, *self._ready)}
        for path in self.workplace.path.glob("parcel-*"):
            if path.name not in known:
                path.unlink()
        for parcel in opened:
            path = self._path(parcel.number)
            if not path.exists() or path.stat().st_size < parcel.size:
                raise StateError(None, f"{path}: {parcel.count} records were here, and are gone: begin a new job")
            os.truncate(path, parcel.size)
        self.committed()


def _parcel(kept: Mapping[str, Any]) -> Parcel:
    return Parcel(**{**kept, "group": tuple(kept["group"])})


def _entries(path: Path, parcel: Parcel) -> Iterator[bytes]:
    data = memoryview(path.read_bytes())
    if len(data) < parcel.size:
        raise StateError(None, f"{path}: {parcel.count} records were here, and are gone: begin a new job")
    at = 0
    while at < parcel.size:  # what is behind it was written after the commit
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        yield bytes(data[at : at + length])
        at += length


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
