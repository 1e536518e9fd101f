"""What every formatter is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from resilient_exporters.codec import decode, encode
from resilient_exporters.pipeline.module import Module

__all__ = ["BaseFormatter", "BaseWholeFormatter"]


class BaseFormatter(Module):
    """Turns records into the bytes of a file.

    A file is ``header()``, the records by ``format`` with ``separator`` between them, and ``footer()``; valid also
    with no record and with one. A format that is written as a whole (Parquet) sets ``whole`` and defines
    ``assemble``.

    Attributes:
        file_extension: without a dot.
        separator: what stands between two records, and nowhere else.
        whole: the file is made by ``assemble`` from all records at once, when the buffer is full.
    """

    family = "formatter"
    file_extension: str = "txt"
    separator: bytes = b""
    whole: ClassVar[bool] = False

    def format(self, item: dict[str, Any]) -> bytes:
        """One record."""
        raise NotImplementedError(f"{type(self).__name__} must define format(item)")

    def header(self) -> bytes:
        """What a file begins with."""
        return b""

    def footer(self) -> bytes:
        """What a file ends with."""
        return b""

    def assemble(self, source: Any, target: Any) -> None:
        """Make the file of a whole format.

        Args:
            source: binary file with what ``format`` gave for each record, with ``separator`` between.
            target: binary file to write to.
        """
        raise NotImplementedError(f"{type(self).__name__} must define assemble(source, target)")


class BaseWholeFormatter(BaseFormatter):
    """For formats that cannot be written record by record, because what comes first depends on all of them.

    Until the file is made, records are kept as MessagePack of our codec, with their types.
    """

    whole = True

    def format(self, item: dict[str, Any]) -> bytes:
        """One record as it is kept until ``assemble``."""
        payload = encode(item)
        return len(payload).to_bytes(4, "little") + payload

    @staticmethod
    def records(source: Any) -> Iterator[dict[str, Any]]:
        """The records of a binary file that ``format`` wrote, from its beginning."""
        source.seek(0)
        while length := source.read(4):
            yield decode(source.read(int.from_bytes(length, "little")))
