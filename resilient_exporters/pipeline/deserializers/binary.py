"""Deserializers of binary formats, with packages that are optional."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.pipeline.deserializers.base import ROWS, BaseDeserializer, Lot, RawBlocks, Unreadable
from resilient_exporters.pipeline.errors import UnreadableStreamError

__all__ = ["AvroDeserializer", "MessagePackDeserializer"]


class MessagePackDeserializer(BaseDeserializer):
    """Reads MessagePack: maps, one after the other. Needs the extra ``msgpack``.

    Raises:
        MissingModuleError: msgpack is not installed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            import msgpack
        except ModuleNotFoundError as error:
            raise MissingModuleError(None, "MessagePack needs: pip install 'resilient-exporters[msgpack]'") from error
        self._library = msgpack

    def lots(self, blocks: Iterable[bytes], skip: int = 0) -> Iterator[Lot]:
        """The maps, some at a time."""
        unpacker = self._library.Unpacker(strict_map_key=False, timestamp=3, max_buffer_size=0)
        for block in blocks:
            unpacker.feed(block)
            more = True
            while more:
                found, error = _some(unpacker)
                more = len(found) == ROWS
                if skip < len(found):
                    yield _lot(found[skip:])
                skip = max(skip - len(found), 0)
                if error is not None:
                    raise UnreadableStreamError(None, f"a message cannot be read: {error!r}") from error
        unpacker.feed(b"\xc0")  # nil: it comes out as it is where it does not end up within a message
        if _some(unpacker) != ([None], None):
            raise UnreadableStreamError(None, "the last message is not whole")


def _some(items: Iterable[Any]) -> tuple[list[Any], Exception | None]:
    """The next items, and what ended them too soon."""
    found: list[Any] = []
    try:
        found.extend(itertools.islice(items, ROWS))
    except Exception as error:  # noqa: BLE001 - libraries raise whatever damaged bytes lead to
        return found, error
    return found, None


class AvroDeserializer(BaseDeserializer):
    """Reads Avro object container files. Needs the extra ``avro``.

    Raises:
        MissingModuleError: fastavro is not installed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            import fastavro
        except ModuleNotFoundError as error:
            raise MissingModuleError(None, "Avro needs: pip install 'resilient-exporters[avro]'") from error
        self._library = fastavro

    def lots(self, blocks: Iterable[bytes], skip: int = 0) -> Iterator[Lot]:
        """The records, some at a time."""
        raw = RawBlocks(blocks)
        try:
            records = self._library.reader(io.BufferedReader(raw))
            for _ in itertools.islice(records, skip):
                pass
        except Exception as error:
            raise raw.error or UnreadableStreamError(None, f"this is no Avro file: {error!r}") from error
        while True:
            found, wrong = _some(records)
            if found:
                yield _lot(found)
            if wrong is not None:
                raise raw.error or UnreadableStreamError(None, f"the Avro data is damaged: {wrong!r}") from wrong
            if not found:
                return


def _lot(found: list[Any]) -> Lot:
    clean = all(type(one) is dict for one in found)
    return Lot(
        found if clean else [one if isinstance(one, dict) else Unreadable(one, "no map") for one in found], clean=clean
    )
