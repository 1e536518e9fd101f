"""Messages of brokers as records."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import msgspec
import pytest

from resilient_exporters.pipeline.readers import payload
from resilient_exporters.pipeline.readers.payload import Payload

RECORD = {"n": 1, "text": "é", "deep": [{"x": None}]}
JSON, MSGPACK = json.dumps(RECORD).encode(), msgspec.msgpack.encode(RECORD)


@pytest.mark.parametrize(
    "data",
    [
        JSON,
        b" \n" + JSON,
        MSGPACK,
        zlib.compress(JSON),
        zlib.compress(MSGPACK, 1),
        gzip.compress(MSGPACK),
        gzip.compress(JSON),
    ],
)
def test_what_a_message_holds_is_seen_from_its_first_byte(data: bytes) -> None:
    assert Payload("auto", "value").record(data) == RECORD


def test_a_large_map_of_message_pack_is_seen_too() -> None:
    record = {str(n): n for n in range(70_000)}
    assert Payload("auto", "value").record(msgspec.msgpack.encode(record)) == record


@pytest.mark.parametrize(
    ("kind", "data", "value"),
    [
        ("auto", b"21.5", 21.5),
        ("auto", b"80", 80),
        ("auto", b"80.5", 80.5),
        ("auto", b'"x"', "x"),
        ("auto", b"[1]", [1]),
        ("auto", b"123456789012345678901234567890", 123456789012345678901234567890),
        ("json", b"null", None),
        ("msgpack", b"\x07", 7),
        ("text", "é".encode(), "é"),
        ("bytes", b"\xff\x00", b"\xff\x00"),
    ],
)
def test_what_is_no_mapping_becomes_one(kind: str, data: bytes, value: Any) -> None:
    assert Payload(kind, "reading").record(data) == {"reading": value}


@pytest.mark.parametrize(
    ("kind", "data", "text"),
    [
        ("auto", b"", "no JSON"),
        ("auto", b"\xff\xfe\xfd", "no JSON"),
        ("auto", b"{", "no JSON"),
        ("auto", b"[" * 100_000, "no JSON"),
        ("auto", MSGPACK[:-1], "no MessagePack"),
        ("json", MSGPACK, "no JSON"),
        ("auto", zlib.compress(JSON)[:-3], "cut off"),
        ("auto", b"\x1f\x8b damaged", "damaged"),
        ("text", b"\xff", "utf-8"),
    ],
)
def test_what_is_none_is_told(kind: str, data: bytes, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Payload(kind, "value").record(data)


def test_a_bomb_does_not_go_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "_MOST", 1000)
    with pytest.raises(ValueError, match="larger than 1000 bytes"):
        Payload("auto", "value").record(zlib.compress(b'{"x": "' + b" " * 100_000 + b'"}'))
