"""Lines appended to a file: JSON, CSV or text."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from resilient_exporters.delivery.outcome import Batch, Outcome, Record, Reject, Retry
from resilient_exporters.errors import HoldError, InvalidConfigError, RejectedError, TimeoutError
from resilient_exporters.exporter import Exporter
from resilient_exporters.exporters.intent import Intent
from resilient_exporters.exporters.linebound import LineBound
from resilient_exporters.exporters.linefile import LineFile, draft_path
from resilient_exporters.exporters.lines import CsvFormat, line_format
from resilient_exporters.exporters.resume import ResumeRecord
from resilient_exporters.exporters.rotation import Rotation
from resilient_exporters.units import parse_choice, parse_count, parse_seconds

__all__ = ["FileExporter"]

_LOG = logging.getLogger(__name__)


class FileExporter(Exporter):
    """Append records as lines to a file, each at most once and never half.

    Lines are visible to other readers as soon as they are delivered. The file may be renamed, replaced, truncated or
    deleted by others; a directory that is missing is made.

    Args:
        target_file: the file. Relative to the working directory at construction.
        max_lines: lines that the file may hold, those already there included; None: any number. With rotation, those
            of the current file.
        append: False empties the file when it is first opened.
        keep_new_data: whether in a full file the oldest lines make room. Else records that do not fit are not
            delivered and counted as dropped (``full``).
        format: "auto" (text as it is, the rest as JSON), "json", "csv" or "text"; see ``LineFormat``.
        fsync: "never" leaves the time to the system, "batch" puts each batch on disk before it counts as delivered,
            a number puts what was written on disk that many seconds later at most.
        rotate_bytes: size in bytes (or "10 MB") beyond which the file is set aside; None: never by size.
        rotate_every: seconds, ``timedelta``, "hourly", "daily" or "monthly"; None: never by time. See ``Rotation``.
        keep: how many files set aside are kept; None: all.
        compress: "gzip" or "zstd" (needs the extra ``fast``) for files set aside; None: they stay as they are.
        encoding: of text and CSV; JSON is UTF-8, or ASCII under any other encoding.
        newlines: "keep": a text with newlines in it becomes several lines and counts as such; "escape": always one.
        fields: names of the CSV columns; None: as in the file, else the keys of the first mapping.
        header: whether a CSV file begins with the names.
        delimiter: between two CSV cells.
        resume: whether a small record is kept beside the file (``.<name>.resume``) by which a restart knows what was
            written; or the path of that record.
        **options: those of ``Exporter``.

    Raises:
        InvalidConfigError: an option has a value it cannot have.
        MissingModuleError: ``compress="zstd"`` without zstandard.
    """

    kind: ClassVar[str] = "file"
    concurrency: ClassVar[int | str] = 1

    def __init__(
        self,
        target_file: str | os.PathLike[str],
        max_lines: int | None = None,
        append: bool = True,
        *,
        keep_new_data: bool = False,
        format: str = "auto",  # noqa: A002 - a format has no other name
        fsync: str | float | timedelta = "never",
        rotate_bytes: int | str | None = None,
        rotate_every: float | str | timedelta | None = None,
        keep: int | None = None,
        compress: str | None = None,
        encoding: str = "utf-8",
        newlines: str = "keep",
        fields: Sequence[str] | None = None,
        header: bool = True,
        delimiter: str = ",",
        resume: bool | str | os.PathLike[str] = True,
        **options: Any,
    ) -> None:
        self._path = _target(target_file)
        self.max_lines = parse_count(max_lines, "max_lines", none_ok=True)
        self.keep_new_data = bool(keep_new_data)
        self._format = line_format(
            format, encoding=encoding, newlines=newlines, fields=fields, header=header, delimiter=delimiter
        )
        self._fsync = _sync_delay(fsync)
        rotation = Rotation(max_bytes=rotate_bytes, every=rotate_every, keep=keep, compress=compress)
        self._rotation = rotation if rotate_bytes is not None or rotate_every is not None else None
        self._file = LineFile(self._path, sync_names=self._fsync is not None)
        self._bound: LineBound | None = None
        if self.max_lines is not None:
            self._bound = LineBound(self._file, self.max_lines, self._format, keep_new_data=self.keep_new_data)
        self._resume: ResumeRecord | None = None
        if resume is not False:
            beside = self._path.with_name(f".{self._path.name}.resume")
            record = beside if resume is True else Path(os.path.abspath(os.fspath(resume)))  # noqa: PTH100
            self._resume = ResumeRecord(record, durable=self._fsync == 0)
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._is_connected = False
        self._is_stopped = False
        self._is_untidy = False
        self._empty_first = not append
        self._columns_of = -1  # inode of the file whose CSV header was read
        self._timer: threading.Timer | None = None
        self._sync_error: OSError | None = None
        super().__init__(**options)

    def address(self) -> str:
        """The absolute path of the file."""
        return str(self._path)

    @property
    def remaining_lines(self) -> int:
        """How many lines still fit; 0 if the file is full or has no bound (as in the original system)."""
        if self.max_lines is None:
            return 0
        with self._held():
            if self._empty_first or not self._path.exists():
                return self.max_lines
            with self._file.locked(time.monotonic() + self.timeout):
                lines = self._file.count_lines(self._file.status())
            if not self._is_connected:
                self._file.close()
        return max(0, self.max_lines - lines)

    def write_lines(self, data: Any) -> int:
        """Write one record, or a list of them, at once and past the queue.

        Returns:
            How many were written: fewer than given if the file is full.

        Raises:
            ExportError: after ``stop``.
            RejectedError: a record has other columns than the file; nothing was written.
            OSError: the file could not be written.
        """
        records = [Record("", 0, item, {}) for item in (data if isinstance(data, list) else [data])]
        deadline = time.monotonic() + self.timeout
        with self._held(deadline):
            self._get_ready(deadline)
            self._learn_columns(records, deadline)
            answers: list[Outcome | None] = [None] * len(records)
            lines = [(at, self._format.line(record.data)) for at, record in enumerate(records)]
            self._write(_Work(records, lines, answers, deadline=deadline, is_queued=False))
        self._tidy()
        return answers.count(None)

    def remove_lines(self, indices: int | Iterable[int] | None = None) -> int:
        """Take lines out of the file, in one step for whoever reads it.

        Args:
            indices: their numbers from 0, negative ones from the end; None: the first. Those that are not there are
                passed over.

        Returns:
            How many were taken out.

        Raises:
            ExportError: after ``stop``.
        """
        wanted = {0} if indices is None else {indices} if isinstance(indices, int) else set(indices)
        deadline = time.monotonic() + self.timeout
        with self._held(deadline):
            self._get_ready(deadline)
            with self._file.locked(deadline):
                status = self._file.status()
                count = self._file.count_lines(status)
                gone = {at + count if at < 0 else at for at in wanted}
                gone = {at for at in gone if 0 <= at < count}
                if gone:
                    self._settle(status)
                    lines = self._file.lines
                    self._file.replace(lambda: (line for at, line in enumerate(lines()) if at not in gone))
        return len(gone)

    def start(self, append: bool = True) -> None:
        """Go on after ``stop``. Records that were held are delivered at the next probe; ``flush`` makes it now.

        Args:
            append: False empties the file when it is opened again.
        """
        with self._held():
            self._is_stopped = False
            self._empty_first = self._empty_first or not append

    def stop(self) -> None:
        """Close the file. What is sent from now on is held in the queue until ``start``."""
        with self._held():
            self._is_stopped = True
            self._detach()

    def connect(self) -> None:
        """Open the file, and settle what a crash left open."""
        deadline = time.monotonic() + self.timeout
        with self._held(deadline):
            if not self._is_stopped:
                self._attach(deadline)

    def disconnect(self) -> None:
        """Close the file, unless an attempt that was given up is still writing to it."""
        if self._lock.acquire(blocking=False):
            try:
                self._detach()
            finally:
                self._lock.release()

    def export(self, batch: Batch) -> Sequence[Outcome | None] | None:
        """Write a batch with one call to the system.

        Raises:
            HoldError: stopped, or the path cannot be written to.
            OSError: no line of it is in the file (full disk, I/O error).
        """
        with self._held(batch.deadline):
            if self._sync_error is not None:
                error, self._sync_error = self._sync_error, None
                raise error
            self._get_ready(batch.deadline)
            self._learn_columns(batch, batch.deadline)
            answers: list[Outcome | None] = [None] * len(batch)
            self._write(_Work(batch, self._lines(batch, answers), answers, deadline=batch.deadline))
        self._tidy()
        return answers if any(answers) else None

    def _lines(self, batch: Batch, answers: list[Outcome | None]) -> list[tuple[int, bytes]]:
        """What is to be written: place in the batch, line."""
        written = self._resume.written if self._resume is not None and batch.redelivered else None
        line = self._format.line
        if not written and not isinstance(self._format, CsvFormat):
            return [(at, line(record.data)) for at, record in enumerate(batch)]
        lines = []
        for at, record in enumerate(batch):
            if written and (record.run, record.offset) in written:
                continue
            try:
                lines.append((at, line(record.data)))
            except RejectedError as error:
                answers[at] = Reject(str(error))
        return lines

    def _write(self, work: _Work) -> None:
        while work.lines:
            try:
                with self._file.locked(work.deadline):
                    self._write_some(work)
            except (OSError, HoldError) as error:
                if not work.has_begun:
                    raise
                # What was written in an earlier file is delivered; only the rest is tried again.
                for at, _ in work.lines:
                    work.answers[at] = Retry(reason=str(error))
                return

    def _write_some(self, work: _Work) -> None:
        """Write as much as the file may take before it is set aside."""
        status = self._file.status()
        if not stat.S_ISREG(status.st_mode):
            self._file.append(b"".join(line for _, line in work.lines), status)
            work.take(len(work.lines))
            return
        if self._rotation is not None and self._rotation.is_due(status, len(work.lines[0][1])):
            self._settle(status)
            if self._fsync is not None:
                self._file.sync()
            self._rotation.set_aside(self._path)
            self._is_untidy = True
            return
        prefix = self._prefix(status)
        chunk = work.lines[: self._share(work.lines, status.st_size + len(prefix))]
        fitting = chunk
        if self._bound is not None:
            fitting, excess = self._bound.fit(chunk, work.answers, status, prefix)
            if excess:
                self._settle(status)
                self._bound.make_room(excess)
                status = self._file.status()
                prefix = self._prefix(status)
        if fitting:
            pieces = [line for _, line in fitting]
            pieces[0] = prefix + pieces[0]
            records = [work.records[at] for at, _ in fitting] if work.is_queued else []
            self._append(pieces, records, status)
        work.take(len(chunk))

    def _append(self, pieces: list[bytes], records: Sequence[Record], status: os.stat_result) -> None:
        record = self._resume
        if record is not None and record.is_open:
            record.begin(Intent.of(_spans(records), pieces, inode=status.st_ino, start=status.st_size))
        data = b"".join(pieces)
        try:
            self._file.append(data, status)
            if self._fsync == 0:
                try:
                    self._file.sync()
                except OSError:
                    self._file.take_back(status, len(data))
                    raise
        except OSError:
            if record is not None and self._file.status().st_size == status.st_size:
                record.undone()
            raise
        if record is not None:
            record.done()
        if self._fsync and self._timer is None:
            self._timer = threading.Timer(self._fsync, self._sync_later)
            self._timer.daemon = True
            self._timer.start()

    def _share(self, lines: list[tuple[int, bytes]], size: int) -> int:
        """How many of the lines go into this file; at least one."""
        limit = self._rotation.max_bytes if self._rotation is not None else None
        if limit is None:
            return len(lines)
        for count, (_, line) in enumerate(lines):
            size += len(line)
            if size > limit:
                return max(1, count)
        return len(lines)

    def _prefix(self, status: os.stat_result) -> bytes:
        """What stands between the file as it is and the next line: a CSV header, or the end of a broken line."""
        if not status.st_size:
            return self._format.header_line() if isinstance(self._format, CsvFormat) else b""
        return b"" if self._file.ends_with_newline(status) else b"\n"

    def _learn_columns(self, records: Sequence[Record], deadline: float) -> None:
        if not isinstance(self._format, CsvFormat):
            return
        with self._file.locked(deadline):
            status = self._file.status()
            if self._format.header and status.st_size and status.st_ino != self._columns_of:
                found = self._format.read_header(self._file.first_line())
                if self._format.given is None:
                    self._format.learn(found)
                elif found != self._format.given:
                    raise HoldError(
                        self,
                        f"{self._path} begins with {', '.join(found)!r}, but fields={list(self._format.given)!r}: move "
                        f"the file away, or give header=False if it has no names",
                    )
            self._columns_of = status.st_ino
        for record in records:
            self._format.learn_from(record.data)

    def _settle(self, status: os.stat_result) -> None:
        if self._resume is not None:
            self._resume.settle(status)

    def _get_ready(self, deadline: float) -> None:
        if self._is_stopped:
            raise HoldError(self, "stopped; call start() to go on")
        if not self._is_connected or self._empty_first:
            self._attach(deadline)
        elif self._resume is not None and self._resume.intent is not None:
            with self._file.locked(deadline):  # a write failed half-way, and could not be taken back then
                self._resume.recover(self._path)

    def _attach(self, deadline: float) -> None:
        with self._file.locked(deadline):
            status = self._file.status()
            if stat.S_ISREG(status.st_mode):
                draft_path(Path(os.path.realpath(self._path))).unlink(missing_ok=True)
                self._open_resume()
                if self._empty_first:
                    if self._resume is not None:
                        self._resume.forget()
                    self._file.empty()
            else:
                self._resume = None
            self._empty_first = False
        self._is_connected = True
        self._is_untidy = self._rotation is not None

    def _open_resume(self) -> None:
        if self._resume is None:
            return
        try:
            self._resume.open(self._path)
        except OSError as error:
            if not isinstance(error, PermissionError) and error.errno != errno.ENAMETOOLONG:
                raise
            _LOG.warning(
                "%s: no resume record can be kept beside it (%s): after a crash its last lines may be written twice; "
                "give resume=<path> where files can be made, or resume=False",
                self._path,
                error.strerror,
            )
            self._resume = None

    def _detach(self) -> None:
        is_due = self._timer is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_connected:
            try:
                if is_due:
                    self._file.sync()
                if self._resume is not None and self._resume.intent is None:
                    self._settle(self._file.status())
            except OSError as error:
                _LOG.warning("%s: could not be closed in order: %s", self._path, error)
        self._is_connected = False
        self._file.close()
        if self._resume is not None:
            self._resume.close()

    def _sync_later(self) -> None:
        """The timer of ``fsync=<seconds>``: runs once, some time after a write."""
        with self._held(float("inf")):
            if self._timer is None or not self._is_connected:
                return
            self._timer = None
            try:
                self._file.sync()
            except OSError as error:
                self._sync_error = error
                _LOG.warning("%s: fsync failed, lines written before may be lost: %s", self._path, error)

    def _tidy(self) -> None:
        """Pack and delete rotated files, the file itself being free for the next attempt meanwhile."""
        if self._is_untidy and self._rotation is not None:
            self._is_untidy = False
            self._rotation.tidy(self._path)

    @contextlib.contextmanager
    def _held(self, deadline: float | None = None) -> Iterator[None]:
        """One thread at a time: an attempt that was given up may still be writing. Waits ``timeout`` if not told."""
        if self._process != os.getpid():
            # A forked child has its parent's descriptors; the lock on the resume record stays with the parent.
            self._process, self._lock, self._timer = os.getpid(), threading.Lock(), None
            self._is_connected = False
            self._file.close()
            if self._resume is not None:
                self._resume.close()
        wait = self.timeout if deadline is None else max(deadline - time.monotonic(), 0.0)
        if not self._lock.acquire(timeout=min(wait, threading.TIMEOUT_MAX)):
            raise TimeoutError(self, f"an earlier attempt is still writing to {self._path}")
        try:
            yield
        finally:
            self._lock.release()


class _Work:
    """Lines on their way into the file, and the answers for their records."""

    __slots__ = ("answers", "deadline", "has_begun", "is_queued", "lines", "records")

    def __init__(
        self,
        records: Sequence[Record],
        lines: list[tuple[int, bytes]],
        answers: list[Outcome | None],
        *,
        deadline: float,
        is_queued: bool = True,
    ) -> None:
        self.records = records
        self.lines = lines
        self.answers = answers
        self.deadline = deadline
        self.is_queued = is_queued
        self.has_begun = False

    def take(self, count: int) -> None:
        """The first lines are dealt with."""
        self.has_begun = True
        self.lines = self.lines[count:]


def _spans(records: Iterable[Record]) -> list[tuple[str, int, int]]:
    """Records as run, first offset and count."""
    spans: list[tuple[str, int, int]] = []
    run, first, following = "", 0, -1
    for record in records:
        if record.offset != following or record.run != run:
            if following >= 0:
                spans.append((run, first, following - first))
            run = record.run
            first = following = record.offset
        following += 1
    if following >= 0:
        spans.append((run, first, following - first))
    return spans


def _target(target_file: object) -> Path:
    try:
        text = os.fsdecode(target_file)  # type: ignore[arg-type] # what is no path is refused here
    except TypeError:
        text = ""
    if not text or "\0" in text:
        raise InvalidConfigError(f"target_file={target_file!r}: give the path of a file")
    # Absolute, but not resolved: a symbolic link may point elsewhere tomorrow.
    path = Path(os.path.abspath(text))  # noqa: PTH100
    if text.endswith(os.sep) or path.is_dir():
        raise InvalidConfigError(f"target_file={target_file!r}: this is a directory; give the path of a file in it")
    return path


def _sync_delay(fsync: str | float | timedelta) -> float | None:
    """None: never; 0: each batch; else seconds."""
    if isinstance(fsync, str):
        return {"never": None, "batch": 0.0}[parse_choice(fsync, "fsync", ("never", "batch"))]
    return parse_seconds(fsync, "fsync", zero_ok=False)
