"""The end of a file that grows, across its rotation."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from resilient_exporters.pipeline.deserializers import LineSplitter, Unreadable
from resilient_exporters.pipeline.errors import UnreadableStreamError
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.readers.base import BaseReader
from resilient_exporters.pipeline.readers.rotation import Place, Seal, before, find, following
from resilient_exporters.pipeline.readers.stdin import line_deserializer
from resilient_exporters.units import parse_count, parse_seconds

__all__ = ["TailReader"]

_BLOCK: Final = 256 * 1024


class TailReader(BaseReader):
    """Reads the lines of a file that another program writes; JSON, unless there is another deserializer of lines.

    A log may be rotated, by renaming it (``log.1``, ``log-20261121``) or by copying and truncating it: what was
    renamed or copied is read to its end first, also after a resume. If it is gone by then, or compressed, what was
    missed of it counts as a bad record: ``on_bad_record`` decides. A line counts once its end was written; the last
    one of a file that was rotated, or that is not followed, need not have an end.

    Args:
        config, metadata: as of every module.
        **options: ``path``, ``follow``, ``poll``, ``from_end``, ``batch_size``.

    Attributes:
        deserializer: makes records of the lines; None: ``JsonLinesDeserializer``.
    """

    supported_options = {
        "path": Option(type=str, help="Of the file."),
        "follow": Option(type=bool, default=False, help="Wait for more lines, until the run is asked to stop."),
        "poll": Option(
            type=float,
            default=1.0,
            check=lambda value: parse_seconds(value, "poll", zero_ok=False),
            help="Seconds between two looks for more lines.",
        ),
        "from_end": Option(type=bool, default=False, help="A new job begins with what is written from now on."),
        "batch_size": Option(
            type=int, default=10_000, check=lambda value: parse_count(value, "batch_size"), help="Lines in a batch."
        ),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deserializer: Any = None
        self._path = Path(self.read_option("path"))
        self._follow: bool = self.read_option("follow")
        self._from_end: bool = self.read_option("from_end")
        self._poll: float = self.read_option("poll")
        self._batch_size: int = self.read_option("batch_size")
        self._file: io.FileIO | None = None
        self._kept: Place | None = None  # of the job, before the file is open
        self._offset = 0  # the end of the last line given
        self._ends = 0  # the end of what was read
        self._inode = self._before = self._mtime = 0
        self._given: Seal | None = None  # of the file up to the one place
        self._read: Seal | None = None  # and to the other
        self._lines: list[tuple[Any, int]] = []  # read and not given, with their sizes
        self._splitter: LineSplitter = LineSplitter(0)
        self._leaving = False  # read to its end, and the log is another file by now
        self._said = False  # that there is no such file

    # -- lines ---------------------------------------------------------------------------------------------------

    def get_next_batch(self) -> Iterator[dict[str, Any]]:
        """The lines that are there; waits for the first one where the file is followed."""
        deserializer = line_deserializer(self)
        left = self._batch_size
        while left and self._more(some=left < self._batch_size):
            lines, self._lines = self._lines[:left], self._lines[left:]
            left -= len(lines)
            for (line, size), unit in zip(lines, deserializer.lot([one for one, _ in lines]).found, strict=True):
                if isinstance(unit, Unreadable):
                    where = f"{self._path}, byte {self._offset}"
                    self.bad_records.add(unit.data, unit.error, part=self.part, where=where)
                self._give(line, size)
                if isinstance(unit, dict):
                    yield unit

    def _more(self, *, some: bool) -> bool:
        """Whether there are lines. Waits for them where the batch has none, and they are to come."""
        while not self._lines and not self.finished:
            if not self._look() and not self.finished:
                if some or self.stopping():
                    return False
                self.pause(self._poll)
        return bool(self._lines)

    def _look(self) -> bool:
        """Read a piece, or go on to the next file. False: there is nothing new now."""
        if self._file is None and not self._begin():
            return False
        assert self._file is not None  # noqa: S101 - begun just now
        if not self._in_place(self._file.fileno()):
            return False
        block = self._file.read(_BLOCK)
        if block:
            self._cut(self._splitter.feed(block), block)
            return True
        if self._splitter.held and (self._leaving or not self._follow):
            self._cut(self._splitter.end(), b"")  # there will be no end to this line
            return True
        if not self._is_other():
            self.finished = not self._follow
            return False
        if not self._leaving:
            self._leaving = True  # whoever writes to it may do so for a moment longer: look again
            return not self._follow
        path, inode = following(self._path, self._inode, self._mtime)
        return self._enter(path, inode=inode)

    def _cut(self, lines: list[Any], block: bytes) -> None:
        """Take lines that were read, with their sizes; they and what the splitter holds are all that was read."""
        assert self._read is not None  # noqa: S101 - there is a file
        self._ends += len(block)
        self._read.add(block)
        sizes = [(one.size if isinstance(one, Unreadable) else len(one)) + 1 for one in lines]
        if lines and not block:
            sizes[-1] -= 1  # the last one of the file, without an end
        self._lines.extend(zip(lines, sizes, strict=True))

    def _give(self, line: Any, size: int) -> None:
        """A line is given: the position is after it."""
        assert self._file is not None  # noqa: S101 - it is of it
        assert self._given is not None  # noqa: S101 - as above
        self._offset += size
        if isinstance(line, Unreadable):
            self._given = Seal(self._file.fileno(), self._offset)  # not all of it was kept
        else:
            self._given.add(line if size == len(line) else line + b"\n")

    # -- files ---------------------------------------------------------------------------------------------------

    def _begin(self) -> bool:
        """Open the file in which to go on. False: there is none yet."""
        kept, self._kept = self._kept, None
        if kept is None:
            return self._enter(self._path, self._end() if self._from_end else 0)
        known = find(self._path, kept)
        if known is not None:
            self._kept = kept  # until it is open
            return self._enter(known[0], kept.offset, inode=known[1])
        self.bad_records.add(
            str(self._path),
            "the file that was read is gone: rotated away and compressed or removed; what it held after this is missed",
            part=self.part,
            where=f"{self._path}, byte {kept.offset}",
        )
        return self._enter(following(self._path, -1, kept.mtime)[0])  # -1: no file has it

    def _enter(self, path: Path, offset: int = 0, splitter: LineSplitter | None = None, inode: int = 0) -> bool:
        """Go on in a file. False: it is not there, and may come; or its name is that of another one by now."""
        try:
            file = path.open("rb", buffering=0)
        except FileNotFoundError as error:
            if not self._follow:
                raise UnreadableStreamError(None, f"path={str(self._path)!r}: there is no such file") from error
            if not self._said:
                self.logger.info("waiting for %s, which is not there", path)
            self._said = True
            return False
        if inode and os.fstat(file.fileno()).st_ino != inode:
            file.close()
            return False
        self.close()
        self._kept = None
        file.seek(offset)
        self._splitter = splitter or line_deserializer(self).splitter()
        self._file, self._ends, self._offset = file, offset, offset - self._splitter.held
        status = os.fstat(file.fileno())
        self._inode, self._mtime = status.st_ino, status.st_mtime_ns
        self._before = before(self._path, self._inode)
        self._read, self._given = Seal(file.fileno(), self._ends), Seal(file.fileno(), self._offset)
        self._leaving = self._said = False
        return True

    def _end(self) -> int:
        """Where the last whole line of the log ends; or at least a place that is within its last line."""
        if not self._path.exists():
            return 0
        with self._path.open("rb", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            last = os.pread(file.fileno(), _BLOCK, max(size - _BLOCK, 0))
        return size - len(last) + last.rfind(b"\n") + 1 if b"\n" in last else size

    def _is_other(self) -> bool:
        """Whether the log is another file than the one that is open."""
        return self._path.exists() and not self._holds(self._path)

    def _holds(self, path: Path) -> bool:
        """Whether it is the file that is open."""
        try:
            return path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def _in_place(self, number: int) -> bool:
        """Whether to read on: if the file was truncated in its copy, or else at its beginning. False: not yet."""
        assert self._read is not None  # noqa: S101 - there is a file
        kept, status = self._read.sum, os.fstat(number)
        if self._ends and Seal(number, self._ends).sum == kept and status.st_size >= self._ends:
            self._mtime = status.st_mtime_ns
            return True
        copy = find(self._path, Place(-1, self._ends, kept, self._mtime, self._before))
        if not self._ends and (copy is None or copy[1] == self._inode):
            return True
        if copy is not None:
            return self._enter(copy[0], self._ends, self._splitter, inode=copy[1])
        self.logger.warning(
            "%s was truncated, and there is no copy: what it held after byte %d is missed", self._path, self._offset
        )
        return self._enter(self._path)

    # -- position ------------------------------------------------------------------------------------------------

    def get_last_position(self) -> Any:
        """``inode`` and ``offset``, with what tells the file from another one."""
        if self._file is None and self._kept is None and self._path.exists():
            self._begin()  # a resume begins in this file, and at this end of it, whatever comes first
        if self._file is None or self._given is None:
            return None if self._kept is None else msgspec.structs.asdict(self._kept)
        place = Place(self._inode, self._offset, self._given.sum, self._mtime, self._before)
        return msgspec.structs.asdict(place)

    def set_last_position(self, position: Any) -> None:
        """Go on from there."""
        self.close()
        self._lines = []
        self.finished = False
        self._kept = Place(**position) if position else None

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
