"""A message of a broker as a record."""

from __future__ import annotations

import json
import zlib
from typing import Any, Final

import msgspec

from resilient_exporters.pipeline.option import Option

__all__ = ["FORMAT", "PAYLOAD_FIELD", "Payload"]

_MOST: Final = 1 << 28
"""Bytes that a compressed message may become: brokers take one megabyte by default."""
_ANY_HEADER: Final = zlib.MAX_WBITS + 32

FORMAT: Final = Option(
    type=str, default="auto", choices=("auto", "json", "msgpack", "text", "bytes"),
    help="What a message holds. auto: a JSON object or a MessagePack map, either also compressed by zlib or gzip.",
)  # fmt: skip
PAYLOAD_FIELD: Final = Option(
    type=str, default="value", help='A message that is no mapping ("21.5") becomes a record with this one field.'
)


class Payload:
    """Makes records of messages.

    Args:
        kind: "auto", "json", "msgpack", "text" or "bytes". The first byte tells a JSON object from a MessagePack map,
            and both from what is compressed.
        field: where a value goes that is no mapping.
    """

    def __init__(self, kind: str, field: str) -> None:
        self._kind = kind
        self._field = field

    def record(self, data: bytes) -> dict[str, Any]:
        """The record of a message.

        Raises:
            ValueError: it is not what it should be.
        """
        value = self._value(data)
        return value if isinstance(value, dict) else {self._field: value}

    def _value(self, data: bytes) -> Any:
        if self._kind == "bytes":
            return data
        if self._kind == "text":
            return data.decode()
        data = _unpacked(data)
        kind = self._kind
        if kind == "auto":
            kind = "msgpack" if data and (0x80 <= data[0] <= 0x8F or data[0] in (0xDE, 0xDF)) else "json"
        try:
            return msgspec.msgpack.decode(data) if kind == "msgpack" else json.loads(data)
        except (ValueError, msgspec.DecodeError, RecursionError) as error:
            raise ValueError(f"no {'MessagePack' if kind == 'msgpack' else 'JSON'}: {error}") from error


def _unpacked(data: bytes) -> bytes:
    """What zlib or gzip packed; anything else as it is. No JSON and no MessagePack map begins like these."""
    zlibbed = data[:1] == b"\x78" and len(data) > 2 and int.from_bytes(data[:2], "big") % 31 == 0
    if not zlibbed and data[:2] != b"\x1f\x8b":
        return data
    stream = zlib.decompressobj(_ANY_HEADER)
    try:
        found = stream.decompress(data, _MOST)
    except zlib.error as error:
        raise ValueError(f"compressed and damaged: {error}") from error
    if stream.unconsumed_tail:
        raise ValueError(f"compressed, and larger than {_MOST} bytes")
    if not stream.eof:
        raise ValueError("compressed, and cut off")
    return found
