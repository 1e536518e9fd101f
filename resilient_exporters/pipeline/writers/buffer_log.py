"""The open buffers of all groups in one log: one file to sync for a batch, however many groups it touched.

The log is a row of segments, files that only grow. A frame holds some records of one buffer; a buffer that is done gets
a last, empty frame. Segments whose frames are all of done buffers are removed from the front; where one buffer alone
keeps a long row, its frames are written anew at the end. What is durable is said in ``state``, a few numbers; what lies
behind that in the files is thrown away by a resume.
"""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from resilient_exporters.codec import decode, encode
from resilient_exporters.delivery.directory import make_directory, sync_directory
from resilient_exporters.errors import EncodingError
from resilient_exporters.pipeline.errors import StateError

__all__ = ["Buffer", "BufferLog"]

_FRAME: Final = struct.Struct("<QIIII")  # buffer, sequence, records, length, crc32 of all the others and the payload
_HEAD: Final = struct.Struct("<QIII")
_DONE: Final = 0xFFFFFFFF  # as sequence: the buffer is done
_SEGMENT: Final = 64 << 20
_MEMORY: Final = 8 << 20
_SUFFIX: Final = ".seg"


class Buffer:
    """The open buffer of one group.

    Attributes:
        number: of the buffer in its run; no two have the same.
        group: what the grouper said.
        key: the same as text: equal texts are one group, because their files would have one name.
        records: taken so far.
        size: their bytes.
        pieces: those that are in memory only.
        unwritten: how many records were taken since the last frame.
        positions, lengths: of its frames, by sequence.
    """

    __slots__ = ("group", "key", "lengths", "number", "pieces", "positions", "records", "size", "unwritten")

    def __init__(self, number: int, group: tuple[Any, ...], key: tuple[str, ...]) -> None:
        self.number = number
        self.group = group
        self.key = key
        self.records = self.size = self.unwritten = 0
        self.pieces: list[bytes] = []
        self.positions: array[int] = array("Q")
        self.lengths: array[int] = array("I")


class BufferLog:
    """The buffers that are open.

    Args:
        directory: for the segments; made, and emptied if there is no state.
        joiner: what stands between two pieces of a buffer.
        state: as ``state`` gave it.
        segment: bytes after which a segment is followed by another one.
        memory: bytes that may wait in memory.

    Raises:
        StateError: the files are not what the state says.

    Attributes:
        on_frame: called with a buffer and what was just added to its frames.
    """

    def __init__(
        self, directory: Path, joiner: bytes = b"", state: Mapping[str, Any] | None = None, *,
        segment: int = _SEGMENT, memory: int = _MEMORY,
    ) -> None:  # fmt: skip
        self._directory = directory
        self._joiner = joiner
        self._segment_bytes, self._memory_bytes = segment, memory
        self._open: dict[tuple[str, ...], Buffer] = {}
        self._by_number: dict[int, Buffer] = {}
        self._touched: list[Buffer] = []
        self._memory = 0
        self._next = 0
        self._lengths: dict[int, int] = {}  # of the segments
        self._live: dict[int, int] = {}  # bytes of frames of open buffers in each
        self._current = -1
        self._file: BinaryIO | None = None
        self._reading: tuple[int, int] | None = None  # segment and descriptor
        self._unneeded: list[int] = []
        self.on_frame: Callable[[Buffer, bytes], None] | None = None
        make_directory(directory)
        self._restore(state or {"next": 0, "segments": []})

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Buffer]:
        return iter(list(self._open.values()))

    def of(self, group: tuple[Any, ...]) -> Buffer:
        """The open buffer of a group; a new one if there is none."""
        key = tuple([str(value) for value in group]) if group else ()
        buffer = self._open.get(key)
        if buffer is None:
            buffer = self._open[key] = self._by_number[self._next] = Buffer(self._next, group, key)
            self._next += 1
        return buffer

    def add(self, buffer: Buffer, piece: bytes | None) -> None:
        """Take a record; None counts it only."""
        if not buffer.unwritten:
            self._touched.append(buffer)
        buffer.unwritten += 1
        buffer.records += 1
        if piece is not None:
            size = len(piece) + len(self._joiner)
            buffer.size += size
            buffer.pieces.append(piece)
            self._memory += size
            if self._memory > self._memory_bytes:
                self._write()

    def detach(self, buffer: Buffer) -> None:
        """The next record of its group opens another one."""
        del self._open[buffer.key]

    def read(self, buffer: Buffer) -> Iterator[bytes]:
        """What was taken, in its order, in parts that are to be joined by the joiner."""
        if self._file is not None:
            self._file.flush()
        for sequence, position in enumerate(buffer.positions):
            if sequence:
                payload = self._payload(buffer, sequence, position)
                if payload:
                    yield payload
        yield from self.unwritten(buffer)

    def unwritten(self, buffer: Buffer) -> list[bytes]:
        """What was taken and is in no frame: at most one part."""
        return [self._joiner.join(buffer.pieces)] if buffer.pieces else []

    def drop(self, buffer: Buffer) -> None:
        """A detached buffer is done."""
        for position, length in zip(buffer.positions, buffer.lengths, strict=True):
            self._live[position >> 32] -= length
        self._memory -= sum(map(len, buffer.pieces)) + len(buffer.pieces) * len(self._joiner)
        buffer.pieces, buffer.unwritten = [], 0
        del self._by_number[buffer.number]
        if buffer.positions:
            self._append(_frame(buffer.number, _DONE, 0, b""))

    def sync(self) -> None:
        """Make durable what was taken."""
        self._write()
        self._move_old()
        if self._file is not None:
            self._file.flush()
            os.fdatasync(self._file.fileno())

    def state(self) -> dict[str, Any]:
        """What is durable, after ``sync``."""
        needed = next((number for number in self._lengths if self._live[number]), None)
        for number in list(self._lengths):
            if number == needed:
                break
            if needed is None and number == self._current:
                self._close_file()
            self._unneeded.append(number)
            del self._lengths[number], self._live[number]
        return {"next": self._next, "segments": [list(item) for item in self._lengths.items()]}

    def settled(self) -> None:
        """The last state is on record: what it does not need goes."""
        for number in self._unneeded:
            self._path(number).unlink(missing_ok=True)
        self._unneeded.clear()

    def close(self) -> None:
        """Close the files."""
        self._close_file()
        self._close_reading()

    # -- frames --------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """What is in memory goes to the file; a power cut may still take it."""
        touched, self._touched = self._touched, []
        for buffer in touched:
            if not buffer.unwritten:
                continue
            if not buffer.positions:
                self._place(buffer, _frame(buffer.number, 0, 0, _definition(buffer)))
            payload = self._joiner.join(buffer.pieces)
            self._place(buffer, _frame(buffer.number, len(buffer.positions), buffer.unwritten, payload))
            buffer.pieces, buffer.unwritten = [], 0
            if self.on_frame is not None and payload:
                self.on_frame(buffer, payload)
        self._memory = 0

    def _place(self, buffer: Buffer, frame: bytes, sequence: int | None = None) -> None:
        position = self._append(frame)
        self._live[position >> 32] += len(frame)
        if sequence is None:
            buffer.positions.append(position)
            buffer.lengths.append(len(frame))
        else:
            self._live[buffer.positions[sequence] >> 32] -= len(frame)
            buffer.positions[sequence] = position

    def _append(self, frame: bytes) -> int:
        if self._file is None or self._lengths[self._current] >= self._segment_bytes:
            self._begin_segment()
        assert self._file is not None  # noqa: S101 - a segment was just begun
        position = self._current << 32 | self._lengths[self._current]
        self._file.write(frame)
        self._lengths[self._current] += len(frame)
        return position

    def _payload(self, buffer: Buffer, sequence: int, position: int) -> bytes:
        frame = self._read_at(position, buffer.lengths[sequence])
        payload = _checked(frame, buffer.number, sequence)
        if payload is None:
            raise StateError(None, f"{self._path(position >> 32)} is damaged: begin the job anew")
        return payload

    def _read_at(self, position: int, length: int) -> bytes:
        number = position >> 32
        if self._reading is None or self._reading[0] != number:
            self._close_reading()
            self._reading = (number, os.open(self._path(number), os.O_RDONLY | os.O_CLOEXEC))
        return os.pread(self._reading[1], length, position & 0xFFFFFFFF)

    # -- segments ------------------------------------------------------------------------------------------------

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:08d}{_SUFFIX}"

    def _begin_segment(self) -> None:
        self._close_file()
        self._current += 1
        descriptor = os.open(
            self._path(self._current), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        self._file = os.fdopen(descriptor, "wb", buffering=1 << 18)
        self._lengths[self._current] = self._live[self._current] = 0
        sync_directory(self._directory)

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fdatasync(self._file.fileno())
            self._file.close()
            self._file = None

    def _close_reading(self) -> None:
        if self._reading is not None:
            os.close(self._reading[1])
            self._reading = None

    def _move_old(self) -> None:
        """Where old segments are kept for a few frames, these go to the end: the disk holds what is open, about."""
        while self._lengths:
            oldest = next(iter(self._lengths))
            total, live = sum(self._lengths.values()), sum(self._live.values())
            if oldest == self._current or total <= 2 * live + 2 * self._segment_bytes:
                return
            if self._live[oldest]:
                self._move(oldest)
            self._unneeded.append(oldest)
            del self._lengths[oldest], self._live[oldest]

    def _move(self, segment: int) -> None:
        if self._file is not None:
            self._file.flush()
        for offset, number, sequence, frame in self._frames(segment, self._lengths[segment]):
            buffer = self._by_number.get(number)
            position = segment << 32 | offset
            if buffer is not None and sequence < len(buffer.positions) and buffer.positions[sequence] == position:
                self._place(buffer, frame, sequence)

    def _frames(self, segment: int, length: int) -> Iterator[tuple[int, int, int, bytes]]:
        """Offset, buffer, sequence and the whole of each frame of a segment."""
        offset = 0
        with self._path(segment).open("rb", buffering=1 << 20) as file:
            while offset < length:
                head = file.read(_FRAME.size)
                number, sequence, _, size, _ = _FRAME.unpack(head) if len(head) == _FRAME.size else (0, 0, 0, 0, 0)
                frame = head + file.read(size)
                if offset + len(frame) > length or _checked(frame, number, sequence) is None:
                    raise StateError(None, f"{self._path(segment)} is damaged at byte {offset}: begin the job anew")
                yield offset, number, sequence, frame
                offset += len(frame)

    # -- resume --------------------------------------------------------------------------------------------------

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._next = state["next"]
        self._lengths = dict(state["segments"])
        self._live = dict.fromkeys(self._lengths, 0)
        for path in self._directory.glob(f"*{_SUFFIX}"):
            number = int(path.stem)
            self._current = max(self._current, number)
            if number not in self._lengths:
                path.unlink()
        self._current = max([self._current, *self._lengths])
        found: dict[int, dict[int, tuple[int, int, int]]] = {}
        definitions: dict[int, Any] = {}
        for segment, length in self._lengths.items():
            path = self._path(segment)
            there = path.stat().st_size if path.exists() else -1
            if there < length:
                raise StateError(None, f"{path} has {there} bytes and should have {length}: begin the job anew")
            if there > length:
                os.truncate(path, length)
            for offset, number, sequence, frame in self._frames(segment, length):
                if sequence == _DONE:
                    found.pop(number, None)
                    continue
                if sequence == 0:
                    definitions[number] = decode(frame[_FRAME.size :])
                records, size = _FRAME.unpack_from(frame)[2:4]
                found.setdefault(number, {})[sequence] = (segment << 32 | offset, records, size)
        for number in sorted(found):
            self._restore_buffer(number, found[number], definitions[number])

    def _restore_buffer(self, number: int, frames: dict[int, tuple[int, int, int]], definition: Any) -> None:
        buffer = Buffer(number, tuple(definition["group"]), tuple(definition["key"]))
        for sequence in range(len(frames)):
            position, records, size = frames[sequence]
            buffer.positions.append(position)
            buffer.lengths.append(size + _FRAME.size)
            self._live[position >> 32] += size + _FRAME.size
            if sequence:
                buffer.records += records
                buffer.size += size + len(self._joiner) * bool(size)
        self._open[buffer.key] = self._by_number[number] = buffer


def _frame(number: int, sequence: int, records: int, payload: bytes) -> bytes:
    head = _HEAD.pack(number, sequence, records, len(payload))
    return head + zlib.crc32(payload, zlib.crc32(head)).to_bytes(4, "little") + payload


def _checked(frame: bytes, number: int, sequence: int) -> bytes | None:
    """The payload of a frame; None: it is not what was written."""
    if len(frame) < _FRAME.size:
        return None
    head, payload = frame[: _HEAD.size], frame[_FRAME.size :]
    *said, crc = _FRAME.unpack_from(frame)
    good = zlib.crc32(payload, zlib.crc32(head)) == crc and said[:2] == [number, sequence] and said[3] == len(payload)
    return payload if good else None


def _definition(buffer: Buffer) -> bytes:
    try:
        return encode({"group": list(buffer.group), "key": list(buffer.key)}, "group")
    except EncodingError:
        return encode({"group": list(buffer.key), "key": list(buffer.key)}, "group")
