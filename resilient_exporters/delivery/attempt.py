"""One attempt: a batch decoded, given to a target, and its answer understood."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, ClassVar, NamedTuple, Protocol

import msgspec

from resilient_exporters import codec
from resilient_exporters.delivery.frame import OPTIONS, ROUTED, payloads, scan
from resilient_exporters.delivery.interval import IntervalSet
from resilient_exporters.delivery.outcome import Batch, Delivered, Full, Hold, Outcome, Record, Reject, Retry, Split
from resilient_exporters.delivery.queue import Piece, Taken
from resilient_exporters.errors import ExportError

__all__ = ["Attempt", "Decoded", "Sink", "Unclear", "ask", "decode", "raw_records", "route"]

log = logging.getLogger("resilient_exporters")

_NO_OPTIONS: dict[str, Any] = {}
_NONE = repeat(_NO_OPTIONS)


class Sink(Protocol):
    """What delivery needs to know of an exporter."""

    name: str
    timeout: float
    retryable: ClassVar[tuple[type[BaseException], ...]]
    rejected: ClassVar[tuple[type[BaseException], ...]]
    held: ClassVar[tuple[type[BaseException], ...]]

    def joined(self, engine: Any) -> None:
        """It is a target of this engine now."""

    def connect(self) -> None:
        """Get ready."""

    def probe(self) -> None:
        """Look whether it is worth trying again."""

    def disconnect(self) -> None:
        """Let go of connections."""

    def export(self, batch: Batch) -> Outcome | Sequence[Outcome | None] | None:
        """Deliver one batch."""


class Unclear(msgspec.Struct, frozen=True):
    """The target failed with something that says neither "later" nor "never"."""

    reason: str


class Route(msgspec.Struct, array_like=True, frozen=True):
    """A record for one target only, under the id that it had before."""

    target: str
    run: bytes
    offset: int
    flags: int
    payload: bytes


class Decoded(NamedTuple):
    """The records of a batch.

    Attributes:
        records: for the target.
        offsets: of each, in the queue.
        strange: offsets that are another target's business.
        broken: offsets whose frames are gone or whose payload cannot be read.
        refused: offset, record and reason of those that the exporter's own transform would not take.
        again: some were given to the target before, and are replayed.
    """

    records: list[Record]
    offsets: list[int]
    strange: list[int]
    broken: list[int]
    refused: list[tuple[int, Record, str]]
    again: bool


def route(target: str, run: bytes, offset: int, flags: int, payload: bytes) -> bytes:
    """The payload of a ``ROUTED`` frame."""
    return _encode(Route(target, run, offset, flags, payload))


def decode(taken: Taken, identity: str) -> Decoded:
    """Turn frames into records."""
    records: list[Record] = []
    offsets: list[int] = []
    strange: list[int] = []
    broken: list[int] = []
    again = False
    read = codec.decode
    expected = taken.start
    for piece in taken.pieces:
        usual = _usual(piece, expected, taken.stop)
        if usual is not None:
            records += usual
            offsets += range(expected, expected := expected + len(usual))
            continue
        run, shift = piece.run.hex(), piece.shift
        low, high = taken.start - shift, taken.stop - shift
        view = memoryview(piece.data)
        frames = piece.frames
        if frames is None:
            frames = list(scan(view, 0, len(view), piece.origin))
        for offset, flags, start, stop in frames:
            if not low <= offset < high:
                continue
            here = offset + shift
            if here < expected:
                continue  # the piece before this one had it
            if here > expected:
                broken.extend(range(expected, here))
            expected = here + 1
            try:
                if not flags:
                    records.append(Record(run, offset, read(view[start:stop]), _NO_OPTIONS))
                elif (record := _unusual(run, offset, flags, bytes(view[start:stop]), identity)) is None:
                    strange.append(here)
                    continue
                else:
                    again = again or bool(flags & ROUTED)
                    records.append(record)
            except Exception as error:  # noqa: BLE001 - whatever a record is made of, it must not stop the others
                log.error("record %s-%d cannot be decoded: %s", run, offset, error)
                broken.append(here)
                continue
            offsets.append(here)
    broken.extend(range(expected, taken.stop))
    if taken.gaps:
        gaps = IntervalSet(taken.gaps)
        mine = [place for place, offset in enumerate(offsets) if offset not in gaps]
        records, offsets = [records[place] for place in mine], [offsets[place] for place in mine]
        strange = [offset for offset in strange if offset not in gaps]
        broken = [offset for offset in broken if offset not in gaps]
    return Decoded(records, offsets, strange, broken, [], again)


def _usual(piece: Piece, start: int, stop: int) -> list[Record] | None:
    """The records from ``start`` on, if the piece is as pieces usually are: all there, and nothing special in it."""
    low = start - piece.shift - piece.origin
    if low < 0:
        return None
    plain = piece.plain
    if plain is None and piece.frames is None:
        plain = payloads(piece.data, piece.origin)
    if plain is None:
        return None
    high = stop - piece.shift - piece.origin
    part = plain if low == 0 and high >= len(plain) else plain[low:high]
    run, first = piece.run.hex(), piece.origin + low
    data = map(codec.decode_plainly, part)
    try:
        return list(map(Record, repeat(run), range(first, first + len(part)), data, _NONE))
    except Exception:  # noqa: BLE001 - one of them cannot be decoded: which one is found out by the slow way
        return None


def _unusual(run: str, offset: int, flags: int, payload: bytes, identity: str) -> Record | None:
    if flags & ROUTED:
        path = _decode_route(payload)
        if path.target != identity:
            return None
        run, offset, flags, payload = path.run.hex(), path.offset, path.flags, path.payload
    if flags & OPTIONS:
        data, options = codec.decode_with_options(payload)
        return Record(run, offset, data, options)
    return Record(run, offset, codec.decode(payload), _NO_OPTIONS)


def raw_records(taken: Taken) -> dict[int, tuple[int, bytes]]:
    """Flags and encoded records by offset: what a dead letter keeps."""
    found: dict[int, tuple[int, bytes]] = {}
    for piece in taken.pieces:
        frames = piece.frames
        if frames is None:
            with memoryview(piece.data) as view:
                frames = list(scan(view, 0, len(view), piece.origin))
        for item in frames:
            flags, payload = item.flags, piece.data[item.start : item.stop]
            if flags & ROUTED:
                path = _decode_route(payload)
                flags, payload = path.flags, path.payload
            found[item.offset + piece.shift] = (flags, payload)
    return found


class Attempt:
    """A batch under way.

    Attributes:
        sink: the exporter, held as long as the attempt lasts.
        taken: what the batch is made of.
        number: 1 for the first attempt at these records, by this process.
        started, deadline: machine's monotonic time at which it began, and at which it is given up.
        doubtful: the target may have been given some of it before.
        abandoned: it was given up; whatever it still does counts no more.
    """

    __slots__ = ("abandoned", "deadline", "doubtful", "number", "sink", "started", "taken")

    def __init__(self, sink: Sink, taken: Taken, number: int, started: float, *, doubtful: bool) -> None:
        self.sink = sink
        self.taken = taken
        self.number = number
        self.started = started
        self.deadline = started + (sink.timeout or math.inf)
        self.doubtful = doubtful
        self.abandoned = False


def ask(sink: Sink, batch: Batch, connect: Callable[[], None], *, probe: bool = False) -> list[Any] | Any:
    """Give a batch to a target. Returns one answer for all, or a list with one for each record.

    Whatever it raises is turned into an answer by the exporter's tables.
    """
    try:
        if probe:
            sink.probe()
        connect()
        answer: object = sink.export(batch)
        if answer is None:
            return Delivered()
        if isinstance(answer, _OUTCOMES):
            return answer
        if not isinstance(answer, (list, tuple)) or len(answer) != len(batch):
            raise ExportError(sink, f"export() must return None or one outcome per record, not {answer!r:.80}")
        return [_outcome(sink, one) for one in answer]
    except Exception as error:  # noqa: BLE001 - the tables below decide what it means
        return classify(sink, error)


def classify(sink: Sink, error: BaseException) -> Any:
    """What an exception of a target means."""
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, sink.held):
        return Hold(reason)
    if isinstance(error, sink.rejected):
        return Reject(reason)
    if isinstance(error, sink.retryable):
        return Retry(getattr(error, "after", None), reason)
    return Unclear(reason)


def _outcome(sink: Sink, one: object) -> object:
    if one is None:
        return _DELIVERED
    if isinstance(one, _OUTCOMES):
        return one
    if isinstance(one, BaseException):
        return classify(sink, one)
    raise ExportError(sink, f"export() returned {one!r:.80} for a record, which is no outcome")


_DELIVERED = Delivered()
_OUTCOMES = (Delivered, Retry, Reject, Hold, Split, Full)
_encode = msgspec.msgpack.Encoder().encode
_decode_route = msgspec.msgpack.Decoder(Route).decode
