"""Write buffers: which records of a group are kept until its file is written."""

from __future__ import annotations

import importlib
import random
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.formatters.base import BaseFormatter
from resilient_exporters.pipeline.module import Module
from resilient_exporters.pipeline.option import Option, named
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.writers.buffer_log import Buffer, BufferLog

__all__ = ["ReservoirSamplingWriteBuffer", "WriteBuffer", "write_buffer_class"]

_SLOT: Final = struct.Struct("<II")  # slot and length


class WriteBuffer(Module):
    """Keeps every record. A subclass may keep fewer.

    Classes of the old system say what is kept by ``buffer(item)``, and what is one file by ``get_key_from_item(item)``
    and ``should_write_buffer(key)``; these are called for each record.

    Attributes:
        take: how the writer takes a record; set by it.
        metadata_of: what is known of each file that is about to be written, by its path: ``number_of_records``,
            ``size``, ``file_hash``.
    """

    family = "write_buffer"
    at_flush_only: ClassVar[bool] = False
    """Buffers have no limits."""
    keeps_all: ClassVar[bool] = True
    """What comes goes into the file as it comes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.metadata_of: dict[str, dict[str, Any]] = {}
        self.take: Callable[[BaseRecord], None] = _no_writer
        self.separator = b""
        self._log: BufferLog | None = None

    def open(self, directory: Path, formatter: BaseFormatter, state: Mapping[str, Any] | None = None) -> BufferLog:
        """Begin, or go on where the state says."""
        self.separator = formatter.separator
        self._log = BufferLog(directory, self.joiner(), state)
        return self._log

    def buffer(self, item: BaseRecord) -> None:
        """Take a record, of whatever group. A subclass may change it, or not call this for it."""
        self.take(item)

    def get_key_from_item(self, item: BaseRecord) -> tuple[Any, ...]:
        """The group of a record: those of one go into one file."""
        return tuple(getattr(item, "group_membership", ()))

    def should_write_buffer(self, key: tuple[Any, ...]) -> bool:  # noqa: ARG002 - a subclass needs it
        """Whether the file of a group is to be written now, below its limits already."""
        return False

    @property
    def grouping_info(self) -> dict[tuple[Any, ...], dict[str, Any]]:
        """The open buffers by group, each with its number of records as ``buffered_items``."""
        return {buffer.group: {"buffered_items": buffer.records} for buffer in self._log or ()}

    @property
    def asks(self) -> bool:
        """A subclass has something to say about each record."""
        own = type(self)
        return any(
            getattr(own, name) is not getattr(WriteBuffer, name)
            for name in ("buffer", "get_key_from_item", "should_write_buffer")
        )

    def joiner(self) -> bytes:
        """What stands between two pieces in the log."""
        return self.separator

    def add(self, buffer: Buffer, data: bytes) -> None:
        """Take a record of a group."""
        assert self._log is not None  # noqa: S101 - the writer opened it
        self._log.add(buffer, data)

    def content(self, buffer: Buffer) -> Iterator[bytes]:
        """The records that are kept, in parts that are to be joined by the separator."""
        assert self._log is not None  # noqa: S101 - the writer opened it
        return self._log.read(buffer)

    def number_of_records(self, buffer: Buffer) -> int:
        """How many are kept."""
        return buffer.records

    def get_metadata_of(self, path: object, key: str) -> Any:
        """What is known of a file that is about to be written, or None."""
        return self.metadata_of.get(str(path), {}).get(key)


class ReservoirSamplingWriteBuffer(WriteBuffer):
    """Keeps a uniform sample of each group; it is written at the end of the run only.

    Vitter's algorithm R: the record number n replaces one of the k kept with the probability k / n. Replaced ones stay
    in the log, k * ln(n / k) of them on average.
    """

    at_flush_only = True
    keeps_all = False
    supported_options = {
        "sample_size": Option(type=int, default=1000, help="Records to keep of each group."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sample_size: int = self.read_option("sample_size")
        if self.sample_size < 1:
            raise ConfigurationError(None, f"sample_size={self.sample_size}: at least 1")
        self.random = random.Random()  # noqa: S311 - a sample, no secret

    def joiner(self) -> bytes:
        """Nothing: pieces know their length."""
        return b""

    def add(self, buffer: Buffer, data: bytes) -> None:
        """Take a record, perhaps in the place of another one."""
        assert self._log is not None  # noqa: S101 - the writer opened it
        seen = buffer.records
        slot = seen if seen < self.sample_size else self.random.randrange(seen + 1)
        self._log.add(buffer, _SLOT.pack(slot, len(data)) + data if slot < self.sample_size else None)

    def content(self, buffer: Buffer) -> Iterator[bytes]:
        """The sample."""
        kept: dict[int, bytes] = {}
        for part in super().content(buffer):
            at = 0
            while at < len(part):
                slot, length = _SLOT.unpack_from(part, at)
                at += _SLOT.size + length
                kept[slot] = part[at - length : at]
        return iter(kept.values())

    def number_of_records(self, buffer: Buffer) -> int:
        """At most the size of the sample."""
        return min(buffer.records, self.sample_size)


def _no_writer(item: BaseRecord) -> None:
    raise ConfigurationError(None, f"there is no writer that takes {item!r:.60}: a write buffer belongs to one")


_OURS: Final = {cls.__name__: cls for cls in (WriteBuffer, ReservoirSamplingWriteBuffer)}


def write_buffer_class(name: str) -> type[WriteBuffer]:
    """The class of a write buffer: by its name, by a dotted path of the old system, or by any dotted path.

    Raises:
        ConfigurationError: there is none, or it is something else.
    """
    module, _, last = name.replace(":", ".").rpartition(".")
    if not module or module.partition(".")[0] == "exporters":
        if last not in _OURS:
            raise ConfigurationError(None, f"write_buffer={named(last, _OURS)}: there are {', '.join(_OURS)}")
        return _OURS[last]
    try:
        found = getattr(importlib.import_module(module), last)
    except Exception as error:  # somebody else's module, and what it does when it is imported
        raise ConfigurationError(None, f"write_buffer={name} cannot be loaded: {error}") from error
    if not (isinstance(found, type) and issubclass(found, WriteBuffer)):
        raise ConfigurationError(None, f"write_buffer={name} is no subclass of WriteBuffer")
    return found
