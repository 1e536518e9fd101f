"""What every reader of streams is: files, objects, whatever is opened by name and read from its beginning."""

from __future__ import annotations

import contextlib
import itertools
import zlib
from collections.abc import Generator, Iterable, Iterator
from typing import Any, ClassVar, Final

from resilient_exporters.errors import ResilientExporterException
from resilient_exporters.pipeline.decompressors import AutoDecompressor, BaseDecompressor, Source
from resilient_exporters.pipeline.deserializers import BaseDeserializer, Lot, Unreadable, deserializer_for
from resilient_exporters.pipeline.errors import PipelineError, UnreadableStreamError
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.readers.base import BaseReader
from resilient_exporters.pipeline.retries import LONG, retrying
from resilient_exporters.policy import RetryPolicy
from resilient_exporters.units import parse_count

__all__ = ["BaseStreamReader", "StreamReadError"]

_SAMPLE: Final = 1024  # bytes that tell a stream from another one
_LISTED: Final = 1000  # names of read streams in a position; those before go into the journal, once


# What another attempt does not mend.
_DEFECTS: Final = (AttributeError, ImportError, LookupError, NotImplementedError, TypeError, ValueError)


class StreamReadError(PipelineError):
    """A stream could not be read this time; another attempt may help."""


class BaseStreamReader(BaseReader):
    """Reads one stream after the other: bytes, through a decompressor and a deserializer.

    A subclass writes ``get_read_streams`` and ``open_stream``. A stream that fails is opened again and read from where
    it failed, by the policy ``RetryPolicy.long``; no record comes twice. One that is gone or damaged is a bad record:
    ``on_bad_record`` decides. In its position a stream has a number of units: lines, rows or messages, the bad and the
    empty ones among them; a resume unpacks what is before it, and makes no records of that.

    Attributes:
        decompressor: between bytes and bytes; None: detected by the first bytes.
        deserializer: between bytes and records; None: by the ending of the name, JSON lines where that tells nothing.
    """

    supported_options = {
        "batch_size": Option(
            type=int, default=10_000, check=lambda value: parse_count(value, "batch_size"), help="Records in a batch."
        ),
    }
    retry_policy: ClassVar[RetryPolicy] = LONG

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.decompressor: BaseDecompressor | None = None
        self.deserializer: BaseDeserializer | None = None
        self._batch_size: int = self.read_option("batch_size")
        self._records: Generator[dict[str, Any], None, None] | None = None
        self._read: list[str] = []  # since the journal was drained
        self._known: set[str] = set()
        self._drained: set[str] = set()
        self._offsets: dict[str, int] = {}
        self._stream: str | None = None
        self._at = 0  # units of this stream before those in hand
        self._hand: Any = iter(())  # of a list: it knows how many are left
        self._held = 0  # units that were in hand at first
        self._names: list[str] = []
        self._source: _Watched | None = None
        self._marks: dict[str, list[int]] = {}  # of streams that were read in part before a resume

    # -- for a subclass ------------------------------------------------------------------------------------------

    def get_read_streams(self) -> Iterable[str]:
        """Names of the streams, in the order in which they are to be read; a name stands for one stream for ever."""
        raise NotImplementedError(f"{type(self).__name__} must define get_read_streams()")

    def open_stream(self, stream: str) -> Source:
        """A stream from its beginning.

        Raises:
            FileNotFoundError: there is none.
        """
        raise NotImplementedError(f"{type(self).__name__} must define open_stream(stream)")

    def stream_size(self, stream: str) -> int | None:  # noqa: ARG002 - for those who know
        """Bytes of a stream as it lies at the source, for the progress; None: nobody knows."""
        return None

    # -- reading -------------------------------------------------------------------------------------------------

    def get_next_batch(self) -> Iterator[dict[str, Any]]:
        """The next records, from one stream or several."""
        if self._records is None:
            self._records = self._all()
        try:
            yield from itertools.islice(self._records, self._batch_size)
        except Exception:
            self._records = None  # another call begins again where it stands
            raise

    def _all(self) -> Generator[dict[str, Any], None, None]:
        missing = set(self._offsets)
        self._names = retrying(self._listed, "listing the streams", self.retry_policy, errors=StreamReadError)
        for name in sorted(missing - self._known - set(self._names)):  # first of all: it may have another name by now
            self._at = self._offsets[name]
            self._bad(name, UnreadableStreamError(None, "it is gone, and was not read to its end"))
            self._done(name)
        for name in self._names:
            if name not in self._known:
                yield from self._of(name)
        self.finished = True

    def _listed(self) -> list[str]:
        with _passing("listing the streams"):
            return list(dict.fromkeys(self.get_read_streams()))

    def _of(self, name: str) -> Generator[dict[str, Any], None, None]:
        self._stream, self._at = name, self._offsets.get(name, 0)
        try:
            with contextlib.closing(self._lots(name)) as lots:
                for lot in lots:
                    if lot.clean:
                        self._held, self._hand = len(lot.found), iter(lot.found)
                        yield from self._hand
                        self._at, self._held = self._at + self._held, 0
                    else:
                        yield from self._sorted_out(name, lot)
        except UnreadableStreamError as error:
            self._bad(name, error)
        self._done(name)

    def _sorted_out(self, name: str, lot: Lot) -> Generator[dict[str, Any], None, None]:
        for unit in lot.found:
            if isinstance(unit, Unreadable):
                where = f"{name}, {lot.unit} {self._at + 1}"
                self.bad_records.add(unit.data, unit.error, part=self.part, where=where)
            self._at += 1
            if isinstance(unit, dict):
                yield unit

    def _bad(self, name: str, error: UnreadableStreamError) -> None:
        where = f"{name}, after {self._at} lines or records" if self._at else name
        self.bad_records.add(name, error.content, part=self.part, where=where)

    def _done(self, name: str) -> None:
        self._offsets.pop(name, None)
        self._marks.pop(name, None)
        self._known.add(name)
        self._read.append(name)
        self._stream, self._at = None, 0

    def _lots(self, name: str) -> Generator[Lot, None, None]:
        source: Generator[Lot, None, None] | None = None

        def following() -> Lot | None:
            nonlocal source
            if source is None:
                source = self._opened(name)
            try:
                return next(source, None)
            except StreamReadError:
                source = None
                raise

        try:
            while lot := retrying(following, f"reading {name}", self.retry_policy, errors=StreamReadError):
                yield lot
        finally:
            if source is not None:
                source.close()

    def _opened(self, name: str) -> Generator[Lot, None, None]:
        with contextlib.closing(_Watched(self, name, self._marks.get(name))) as stream:
            self._source = stream
            blocks = (self.decompressor or AutoDecompressor(name=name)).decompress(stream)
            yield from (self.deserializer or deserializer_for(name)).lots(blocks, self._at)

    def share_done(self) -> float | None:
        """Share of the streams read, the open one by its bytes."""
        if not self._names:
            return None
        done = float(sum(name in self._known for name in self._names))
        if self._stream is not None and self._source is not None and self._source.size:
            done += min(self._source.count / self._source.size, 1.0)
        return done / len(self._names)

    # -- position ------------------------------------------------------------------------------------------------

    def get_last_position(self) -> Any:
        """``readed_streams``: names of those read to their end; ``stream_offset``: units read of others.

        ``stream_mark`` tells these from other streams of the same name: the number of their first bytes, a checksum of
        those, and how many bytes they had at least.
        """
        offsets, marks = dict(self._offsets), dict(self._marks)
        if self._stream is not None:
            offsets[self._stream] = self._at + (self._held and self._held - self._hand.__length_hint__())
            if self._source is not None:
                marks[self._stream] = self._source.mark
        begun = {name: n for name, n in offsets.items() if n}
        found: dict[str, Any] = {"readed_streams": list(self._read), "stream_offset": begun}
        if marks := {name: mark for name, mark in marks.items() if name in begun}:
            found["stream_mark"] = marks
        return found

    def set_last_position(self, position: Any) -> None:
        """Leave out what was read."""
        self.close()
        position = position or {}
        self._read = list(position.get("readed_streams", ()))
        self._known = self._drained | set(self._read)
        self._offsets = dict(position.get("stream_offset", {}))
        self._marks = dict(position.get("stream_mark", {}))
        self.finished = False

    def drain_journal(self) -> list[Any]:
        """Names of read streams, where there are too many to be written down again with each position."""
        if len(self._read) <= _LISTED:
            return []
        drained, self._read = self._read, []
        self._drained.update(drained)
        return drained

    def replay_journal(self, entries: list[Any]) -> None:
        """These were read, too. Called before the position is set."""
        self._drained.update(entries)

    def close(self) -> None:
        """Let go of the stream that is open."""
        if self._records is not None:
            self._records.close()
            self._records = None
        self._stream, self._at, self._held = None, 0, 0


class _Watched:
    """A stream whose failures are told from those of whatever reads it.

    Attributes:
        size: bytes in all, or None.
        count: bytes read.
    """

    def __init__(self, reader: BaseStreamReader, name: str, mark: list[int] | None = None) -> None:
        self._name = name
        self._kept = mark
        self._head = b""
        with _passing(f"reading {name}"):
            self._stream = reader.open_stream(name)
            self.size = reader.stream_size(name)
        self.count = 0

    def read(self, size: int, /) -> bytes:
        with _passing(f"reading {self._name}"):
            block = self._stream.read(size)
        self.count += len(block)
        if len(self._head) < _SAMPLE:
            self._head += block[: _SAMPLE - len(self._head)]
        if self._kept is not None:
            self._compare(self._kept, ended=bool(size) and not block)
        return block

    @property
    def mark(self) -> list[int]:
        """What tells it from another stream of the same name."""
        return [len(self._head), zlib.crc32(self._head), self.count]

    def _compare(self, kept: list[int], *, ended: bool) -> None:
        length, checksum, count = kept
        if ended and self.count < count:
            raise UnreadableStreamError(
                None, f"it has {self.count} bytes, and had {count} at least when it was read: it is not what it was"
            )
        if len(self._head) >= length and zlib.crc32(self._head[:length]) != checksum:
            raise UnreadableStreamError(None, "it begins otherwise than what was read of it: it is another one now")
        if self.count >= count and len(self._head) >= length:
            self._kept = None  # it is the same one

    def close(self) -> None:
        with contextlib.suppress(Exception):  # it was only read: there is nothing to lose
            self._stream.close()


@contextlib.contextmanager
def _passing(what: str) -> Iterator[None]:
    """Tells failures that may pass from those that stay."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise UnreadableStreamError(None, f"there is no such file or object: {error}") from error
    except PermissionError as error:
        raise PipelineError(None, f"{what} is not allowed: {error}") from error
    except (ResilientExporterException, *_DEFECTS):
        raise
    except Exception as error:
        raise StreamReadError(None, f"{what} failed: {error!r}") from error
