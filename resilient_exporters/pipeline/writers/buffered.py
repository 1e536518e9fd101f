"""A writer that gathers records in buffers and hands over finished files."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from resilient_exporters.delivery.directory import make_directory, sync_directory
from resilient_exporters.pipeline.errors import ConfigCheckError, ConfigurationError, StateError
from resilient_exporters.pipeline.formatters.base import BaseFormatter
from resilient_exporters.pipeline.formatters.json import JsonExportFormatter
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.writers.base import BaseWriter
from resilient_exporters.pipeline.writers.buffer_log import Buffer, BufferLog
from resilient_exporters.pipeline.writers.compression import check_compression
from resilient_exporters.pipeline.writers.packing import Packer, Packing
from resilient_exporters.pipeline.writers.write_buffer import WriteBuffer, write_buffer_class

__all__ = ["BaseBufferedWriter", "PackedFile"]

_CHUNK: Final = 1 << 20
_EARLY: Final = 1 << 20  # bytes from which a buffer is packed while it grows
_EARLY_COMPRESSIONS: Final = ("gz", "bz2")
_MOST_EARLY: Final = 16  # such buffers: each takes a quarter of a megabyte


class PackedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is finished, and waits for being delivered.

    Attributes:
        number: of its buffer.
        name: under which it is to be delivered, fixed for ever.
        file: name of the file in the writer's workplace.
        group: what the grouper said of its records.
        records: how many.
        size: bytes, compressed.
        md5: of these, in hexadecimal.
    """

    number: int
    name: str
    file: str
    group: list[Any]
    records: int
    size: int
    md5: str


class BaseBufferedWriter(BaseWriter):
    """Gathers the records of each group in a buffer. When it is full, or at the end, it becomes a file: see ``write``.

    A subclass defines ``write(dump_path, group_key=None)``: it gets the path of a finished, compressed file and the
    group that its records are of. After a crash it may get the last one again: the same file under the same name. One
    at a time, in the order in which they were finished, once the records in it are on record.

    Records are formatted at once. What is open lies in the workplace, so that a resume goes on with it; memory holds
    at most a few megabytes of it, and no file is ever held whole. A run without records writes no file.

    Attributes:
        compression: of the files.
        write_buffer: which records of a group are kept.
        token: seven characters, of this run only.
    """

    supported_options = {
        "items_per_buffer_write": Option(
            type=int, default=500000, help="Records of a group after which its file is written; 0: no limit."
        ),
        "size_per_buffer_write": Option(
            type=int, default=4000000000, help="Bytes of a group, not compressed, after which it is; 0: no limit."
        ),
        "check_consistency": Option(type=bool, default=False, help="Look at the target whether each file arrived."),
        "compression": Option(type=str, default="gz", help="Of the files: gz, bz2, zip or none."),
        "write_buffer": Option(
            type=str, default="WriteBuffer", help="Class that keeps the records: this, or ReservoirSamplingWriteBuffer."
        ),
        "write_buffer_options": Option(type=dict, default={}, help="Options of that class."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.compression = check_compression(self.read_option("compression"))
        self.check_consistency: bool = self.read_option("check_consistency")
        cls = write_buffer_class(self.read_option("write_buffer"))
        try:
            options = {"options": self.read_option("write_buffer_options")}
            self.write_buffer: WriteBuffer = cls(options, self.metadata)
        except ConfigCheckError as error:
            raise ConfigCheckError({"write_buffer_options": error.errors}) from error
        self.write_buffer.take = self._take
        self._most_records = self._limit("items_per_buffer_write")
        self._most_bytes = self._limit("size_per_buffer_write")
        self.token = uuid.uuid4().hex[:7]
        self._log: BufferLog | None = None
        self._sealed: list[tuple[Buffer, str]] = []
        self._outbox: list[PackedFile] = []
        self._delivered: list[PackedFile] = []
        self._journal: list[Any] = []
        self._files = 0
        self._packer = Packer()

    def _limit(self, option: str) -> float:
        limit = self.read_option(option)
        if limit < 0:
            raise ConfigurationError(None, f"{option}={limit}: give a number above 0, or 0 for no limit")
        return float("inf") if limit == 0 or self.write_buffer.at_flush_only else limit

    def write(self, dump_path: str, group_key: Any = None) -> None:
        """Take a finished file to where it belongs.

        Args:
            dump_path: of the file; it is removed afterwards.
            group_key: group of its records, a tuple; empty: none.
        """
        raise NotImplementedError(f"{type(self).__name__} must define write(dump_path, group_key=None)")

    # -- what a subclass may change ------------------------------------------------------------------------------

    def name_of(self, buffer: Buffer) -> str:
        """The name of a file, fixed when its buffer is full."""
        return f"{self.token}-{buffer.number:08d}{self.extension}"

    def opened(self, buffer: Buffer) -> None:
        """A buffer gets its first record."""

    def deliver(self, packed: PackedFile, path: Path) -> None:
        """Take a finished file to where it belongs; called again after a crash."""
        self.write(str(path), tuple(packed.group))

    # -- records -------------------------------------------------------------------------------------------------

    @property
    def export_formatter(self) -> BaseFormatter:
        """The formatter: that of the pipeline, else JSON lines."""
        if self.formatter is None:
            self.formatter = JsonExportFormatter()
        return self.formatter

    @property
    def extension(self) -> str:
        """Of all files, with its dot: ``.jl.gz``."""
        packed = "" if self.compression == "none" else f".{self.compression}"
        return f".{self.export_formatter.file_extension}{packed}"

    def write_batch(self, batch: Iterable[BaseRecord]) -> None:
        """Take records.

        Raises:
            ItemsLimitReached: as many as ``items_limit`` are written.
            BadRecordError: a record cannot be formatted, and ``on_bad_record`` is "fail".
        """
        if self.write_buffer.asks:
            self._buffers()
            for record in self.counted(batch):
                self.write_buffer.buffer(record)
            return
        log, make, sound = self._buffers(), self.export_formatter.format, self.sound
        add = log.add if self.write_buffer.keeps_all else self.write_buffer.add
        for record in self.counted(batch):
            data = sound(make, record)
            if data is None:
                continue
            buffer = log.of(getattr(record, "group_membership", ()))
            if not buffer.records:
                self.opened(buffer)
            add(buffer, data)
            if buffer.records >= self._most_records or buffer.size >= self._most_bytes:
                self._seal(buffer)

    def _take(self, record: BaseRecord) -> None:
        """Take one record that the write buffer lets through."""
        data = self.sound(self.export_formatter.format, record)
        if data is None:
            return
        buffer = self._buffers().of(tuple(self.write_buffer.get_key_from_item(record)))
        if not buffer.records:
            self.opened(buffer)
        self.write_buffer.add(buffer, data)
        full = buffer.records >= self._most_records or buffer.size >= self._most_bytes
        if full or self.write_buffer.should_write_buffer(buffer.group):
            self._seal(buffer)

    def _buffers(self, state: Any = None) -> BufferLog:
        if self._log is None:
            self._log = self.write_buffer.open(self.workplace.path / "buffers", self.export_formatter, state)
            make_directory(self._place)
            plain = self.write_buffer.keeps_all and not self.export_formatter.whole
            if plain and self.compression in _EARLY_COMPRESSIONS:
                self._log.on_frame = self._pack_early
        return self._log

    @property
    def _place(self) -> Path:
        return self.workplace.path / "finished"

    def _seal(self, buffer: Buffer) -> None:
        """A buffer is full: what its file will be called is fixed."""
        self._buffers().detach(buffer)
        self._sealed.append((buffer, self.name_of(buffer)))

    # -- finished files ------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Pack what is full, and make durable what is open."""
        log = self._buffers()
        sealed, self._sealed = self._sealed, []
        for buffer, name in sealed:
            packed = self._pack(buffer, name)
            self._outbox.append(packed)
            self._journal.append(self.entry_of(buffer, packed))
            self.note(self._journal[-1])
            log.drop(buffer)
        if sealed:
            sync_directory(self._place)
        log.sync()

    def _pack(self, buffer: Buffer, name: str) -> PackedFile:
        footer = self.export_formatter.footer()
        if buffer.number in self._packer.packings:
            target = self._packer.finish(buffer.number, self._buffers().unwritten(buffer), footer)
        else:
            packing = self._packing(buffer, name)
            try:
                self._fill(packing, buffer)
                packing.finish(footer)
            except BaseException:
                packing.abandon()
                raise
            target = packing.target
        return PackedFile(
            number=buffer.number, name=name, file=self._file_of(buffer), group=list(buffer.group),
            records=self.write_buffer.number_of_records(buffer), size=target.size, md5=target.md5,
        )  # fmt: skip

    def _packing(self, buffer: Buffer, name: str) -> Packing:
        return Packing(
            self._place / self._file_of(buffer), self.compression, _inner(name, self.compression),
            self.export_formatter.header(), self.write_buffer.separator,
        )  # fmt: skip

    def _file_of(self, buffer: Buffer) -> str:
        return f"{buffer.number:08d}{self.extension}"

    def _pack_early(self, buffer: Buffer, part: bytes) -> None:
        """Pack what is large while it grows; should the run be killed, it is packed again from the log."""
        begun = self._packer.packings
        if buffer.number in begun:
            self._packer.feed(begun[buffer.number], [part])
        elif buffer.size >= _EARLY and len(begun) < _MOST_EARLY:
            begun[buffer.number] = self._packing(buffer, "")
            self._packer.feed(begun[buffer.number], self._buffers().read(buffer))

    def _fill(self, packing: Packing, buffer: Buffer) -> None:
        formatter = self.export_formatter
        if not formatter.whole:
            for part in self.write_buffer.content(buffer):
                packing.write(part)
            return
        with (
            tempfile.TemporaryFile(dir=self._place) as source,
            tempfile.TemporaryFile(dir=self._place) as whole,
        ):
            separator = b""
            for part in self.write_buffer.content(buffer):
                source.write(separator)
                source.write(part)
                separator = self.write_buffer.separator
            source.seek(0)
            formatter.assemble(source, whole)
            whole.seek(0)
            while part := whole.read(_CHUNK):
                packing.write_raw(part)

    def committed(self) -> None:
        """Deliver what is finished; what was delivered before goes."""
        self._buffers().settled()
        for packed in self._delivered:
            self._path(packed).unlink(missing_ok=True)
        self._delivered.clear()
        for packed in list(self._outbox):
            path = self._path(packed)
            known = {"number_of_records": packed.records, "size": packed.size, "file_hash": packed.md5}
            self.write_buffer.metadata_of = {str(path): known}
            self.deliver(packed, path)
            self._outbox.remove(packed)
            self._delivered.append(packed)

    def _path(self, packed: PackedFile) -> Path:
        return self._place / packed.file

    def flush(self) -> None:
        """All buffers become files, which go out with the next ``committed``."""
        for buffer in self._buffers():
            self._seal(buffer)

    def finish_writing(self) -> None:
        """Check, if ``_check_write_consistency`` is defined. Used alone, without a pipeline, it delivers, too."""
        if self._sealed or self._outbox:
            self.prepare()
            self.committed()
        self.set_metadata("files_count", self._files)
        check = getattr(self, "_check_write_consistency", None)
        if self.check_consistency and check is not None:
            check()

    # -- state ---------------------------------------------------------------------------------------------------

    def entry_of(self, buffer: Buffer, packed: PackedFile) -> Any:  # noqa: ARG002 - a subclass may need it
        """What is kept of a file for the rest of the run."""
        return {"name": packed.name}

    def note(self, entry: Any) -> None:  # noqa: ARG002 - a subclass needs it
        """A file was finished, in this run or before it was resumed."""
        self._files += 1

    def get_state(self) -> Any:
        """Open buffers, files to be delivered, names."""
        return {
            **super().get_state(),
            "token": self.token,
            "buffers": self._buffers().state(),
            "write_buffer": self.write_buffer.get_state(),
            "outbox": [msgspec.structs.asdict(packed) for packed in self._outbox],
        }

    def set_state(self, state: Any) -> None:
        """Go on with these buffers; what came after goes."""
        super().set_state(state)
        self.token = state["token"]
        self._outbox = [PackedFile(**one) for one in state["outbox"]]
        self._log = None
        self._buffers(state["buffers"])
        if state["write_buffer"] is not None:
            self.write_buffer.set_state(state["write_buffer"])
        known = {packed.file for packed in self._outbox}
        for path in self._place.iterdir():
            if path.name not in known:
                path.unlink()
        missing = known - {path.name for path in self._place.iterdir()}
        if missing:
            raise StateError(
                None, f"{self._place} lacks {', '.join(sorted(missing)[:3])}, to be delivered: begin the job anew"
            )

    def drain_journal(self) -> list[Any]:
        """The files finished since the last commit."""
        entries, self._journal = self._journal, []
        return entries

    def replay_journal(self, entries: list[Any]) -> None:
        """The files finished before."""
        for entry in entries:
            self.note(entry)

    def close(self) -> None:
        """Close the files; used alone, without a pipeline, what was not finished goes."""
        self._packer.close()
        if self._log is not None:
            self._log.close()
        self.workplace.release()


def _inner(name: str, compression: str) -> str:
    """What is in a zip: the same name without its end."""
    last = name.rpartition("/")[2]
    return last.removesuffix(f".{compression}")
