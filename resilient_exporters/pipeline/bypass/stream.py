"""Streams copied from any source that has them to any store, byte by byte."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

from resilient_exporters.pipeline.bypass.base import BaseBypass, Copied, class_of
from resilient_exporters.pipeline.errors import RequisitesNotMet
from resilient_exporters.pipeline.retries import LONG, retrying

__all__ = ["Counted", "StreamBypass", "class_names"]

_AZURE: Final = ("AzureBlobWriter", "AzureFileWriter")
_STORE: Final = "BaseStoreWriter"


class StreamBypass(BaseBypass):
    """Copies streams of a reader that has ``get_read_streams`` and ``open_stream`` by a writer's ``write_stream``.

    As it was: to Google Cloud Storage, from S3 to Azure, and to a writer that defines ``write_stream`` itself, whenever
    nothing asks for the records. To all other stores only if ``exporter_options`` has ``"stream_bypass": true``,
    because the files there keep the names and the packing of their sources, and are not named after ``filebase``.
    """

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """See whether it can be taken.

        Raises:
            RequisitesNotMet: it cannot.
        """
        super().check(config)
        reader, writer = class_of(config, "reader"), class_of(config, "writer")
        if not all(hasattr(reader, name) for name in ("get_read_streams", "open_stream")):
            raise RequisitesNotMet(None, "the reader has no streams")
        if not hasattr(writer, "write_stream"):
            raise RequisitesNotMet(None, "the writer takes no streams")
        if (config.get("exporter_options") or {}).get("stream_bypass"):
            return
        names = class_names(writer)
        usual = "GStorageWriter" in names or ("S3Reader" in class_names(reader) and not names.isdisjoint(_AZURE))
        if not usual and _STORE in names:
            raise RequisitesNotMet(None, "stream_bypass is not set")

    def copy(self, name: str, target: str) -> Copied:
        """Copy a stream; from its beginning where that failed."""

        def once() -> int:
            with contextlib.closing(self.reader.open_stream(name)) as stream:
                counted = Counted(stream)
                self.writer.write_stream(target, counted)
                return counted.size

        return Copied(retrying(once, f"copying {name}", LONG, errors=OSError))


class Counted:
    """A stream that counts what is read from it.

    Attributes:
        size: bytes read.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        """Read."""
        data: bytes = self._stream.read(size)
        self.size += len(data)
        return data


def class_names(cls: type | None) -> set[str]:
    """The names of a class and its bases."""
    return {one.__name__ for one in (cls.__mro__ if cls else ())}
