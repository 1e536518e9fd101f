from __future__ import annotations

import importlib.util
import random
import sys
import zlib
from collections.abc import Callable

import pytest

from resilient_exporters.delivery import block as module
from resilient_exporters.delivery.block import Block, BlockDamaged, Payload, pack, salvage, unpack
from resilient_exporters.delivery.frame import OPTIONS, frame

zstandard = pytest.importorskip("zstandard")

RUN = b"run-8byt"
HEAD = 56
CODECS: dict[str, Callable[[bytes], tuple[int, bytes]]] = {
    "raw": lambda frames: (0, frames),
    "zlib": lambda frames: (1, zlib.compress(frames, 1)),
    "zstd": lambda frames: (2, zstandard.ZstdCompressor(level=1).compress(frames)),
}


@pytest.fixture(params=list(CODECS))
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(module, "_compress", CODECS[request.param])
    return str(request.param)


def telemetry(count: int, seed: int = 1) -> list[bytes]:
    chance = random.Random(seed)
    return [
        b'{"sensor":"%04d","temperature":%05.2f,"pressure":%06d}'
        % (chance.randrange(100), chance.random() * 100, chance.randrange(100_000))
        for _ in range(count)
    ]


def row_of(payloads: list[bytes], first: int = 1000, origin: int | None = None) -> bytes:
    start = first if origin is None else origin
    frames = b"".join(frame(payload, start + at) for at, payload in enumerate(payloads))
    return pack(Block(first, len(payloads), RUN, 0, len(frames), 1.5, 2.5, origin), frames)


def records(payload: Payload | None) -> dict[int, bytes]:
    return {} if payload is None else {item.offset: payload.data[item.start : item.stop] for item in payload.frames}


def test_a_block_knows_its_end_and_its_size() -> None:
    block = Block(10, 5, RUN, 100, 180, 1.0, 2.0)
    assert (block.end, block.size, block.origin, block.key, block.replaces) == (15, 80, 10, None, [])
    assert Block(10, 5, RUN, 100, 180, 1.0, 2.0, 3).origin == 3


def test_a_row_gives_back_what_was_packed(codec: str) -> None:
    # Given a block that was adopted: its ids count from elsewhere
    payloads = telemetry(50)
    row = row_of(payloads, first=1000, origin=77)
    # When it is read
    read = unpack(row)
    # Then everything is as it was
    assert (read.run, read.origin, read.count, read.born, read.last) == (RUN, 77, 50, 1.5, 2.5)
    assert records(read) == {77 + at: payload for at, payload in enumerate(payloads)}
    assert row[4] == {"raw": 0, "zlib": 1, "zstd": 2}[codec]


def test_flags_survive(codec: str) -> None:
    frames = frame(b"pair", 5, OPTIONS)
    assert unpack(pack(Block(5, 1, RUN, 0, len(frames), 0, 0), frames)).frames[0].flags == OPTIONS


def test_sensor_records_become_smaller(codec: str) -> None:
    payloads = telemetry(500)
    row = row_of(payloads)
    if codec != "raw":
        assert len(row) < 0.6 * sum(map(len, payloads))


def test_every_flipped_bit_of_the_head_is_noticed(codec: str) -> None:
    row = row_of(telemetry(3))
    for bit in range(HEAD * 8):
        changed = bytearray(row)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BlockDamaged):
            unpack(bytes(changed))
        assert salvage(bytes(changed)) is None


def test_a_flip_anywhere_in_the_body_is_noticed_and_nothing_altered_comes_back(codec: str) -> None:
    payloads = telemetry(12)
    row = row_of(payloads)
    good = {1000 + at: payload for at, payload in enumerate(payloads)}
    saved = 0
    for bit in range(HEAD * 8, len(row) * 8):
        changed = bytearray(row)
        changed[bit // 8] ^= 1 << bit % 8
        # Given a damaged body, reading the row says so
        with pytest.raises(BlockDamaged):
            unpack(bytes(changed))
        # When what proves intact is asked for, then each record is one that was sent, under its own offset
        found = salvage(bytes(changed))
        assert found is not None
        assert found.count == 12
        assert records(found).items() <= good.items()
        saved += len(found.frames)
    if codec == "raw":
        # Uncompressed, a flip costs one record.
        assert saved >= (len(row) - HEAD) * 8 * 11


@pytest.mark.parametrize("codec", ["zstd"], indirect=True)
def test_telemetry_altered_by_a_damaged_body_is_never_believed(codec: str) -> None:
    # Given blocks of records that differ in some digits only, as those of a sensor do: the decompressor then copies
    # one record's digits into another's
    chance = random.Random(6)
    altered = 0
    for seed in range(2):
        payloads = telemetry(200, seed)
        row = row_of(payloads)
        for _ in range(1000):
            changed = bytearray(row)
            bit = chance.randrange(HEAD * 8, len(row) * 8)
            changed[bit // 8] ^= 1 << bit % 8
            altered += sum(payloads[at - 1000] != payload for at, payload in records(salvage(bytes(changed))).items())
    # Then none of them passes for another one (with Adler-32 in place of CRC-32, some do)
    assert altered == 0


def test_a_row_cut_anywhere_gives_back_its_beginning(codec: str) -> None:
    payloads = telemetry(30)
    row = row_of(payloads)
    good = {1000 + at: payload for at, payload in enumerate(payloads)}
    most = 0
    for size in range(len(row)):
        with pytest.raises(BlockDamaged):
            unpack(row[:size])
        found = salvage(row[:size])
        assert (found is None) == (size < HEAD)
        assert records(found).items() <= good.items()
        most = max(most, len(records(found)))
    assert most >= {"raw": 29, "zlib": 20, "zstd": 0}[codec]  # zstandard gives out 128 kB at a time


def test_a_cut_row_of_zstandard_gives_back_whole_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_compress", CODECS["zstd"])
    payloads = telemetry(6000)
    row = row_of(payloads)
    assert len(records(salvage(row[: len(row) * 2 // 3]))) > 1500


@pytest.mark.parametrize("row", [b"", b"short", bytes(200), b"RXB1" + bytes(100), random.Random(3).randbytes(500)])
def test_what_is_no_row_is_damaged(row: bytes) -> None:
    with pytest.raises(BlockDamaged):
        unpack(row)
    assert salvage(row) is None


def repacked(codec: int, body: bytes, *, count: int = 1, raw: int = 100, magic: bytes = b"RXB1") -> bytes:
    head = module._HEAD.pack(magic, codec, count, 0, RUN, 0.0, 0.0, raw, zlib.crc32(body))
    return head + module._CHECK.pack(zlib.crc32(head)) + body


def test_a_head_that_is_whole_but_makes_no_sense_is_damaged() -> None:
    body = frame(b"x", 0)
    for row in (
        repacked(0, body, magic=b"RXB9", raw=len(body)),  # a format to come
        repacked(0, body, raw=1 << 31),  # more than there is memory
        repacked(9, body, raw=len(body)),  # an unknown codec
        repacked(0, body, raw=len(body), count=2),  # fewer records than promised
        repacked(0, body + b"more", raw=len(body)),  # another length than promised
    ):
        with pytest.raises(BlockDamaged):
            unpack(row)
        assert records(salvage(row)).items() <= {0: b"x"}.items()


@pytest.mark.parametrize("codec", ["zlib", "zstd"], indirect=True)
def test_a_body_that_grows_beyond_its_promise_does_not_fill_the_memory(codec: str) -> None:
    # Given a row of 50 MB of zeros that says it has 100 bytes
    number, body = CODECS[codec](bytes(50 << 20))
    bomb = repacked(number, body)
    # Then it is damaged, and what is taken out of it is bounded
    with pytest.raises(BlockDamaged):
        unpack(bomb)
    found = salvage(bomb)
    assert found is not None
    assert len(found.data) < 8 << 20


def test_without_zstandard_a_block_is_compressed_by_zlib(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an installation without zstandard
    monkeypatch.setitem(sys.modules, "zstandard", None)
    name = "resilient_exporters.delivery.block"
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    plain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plain)
    # When it packs a block, then the other kind can read it
    frames = b"".join(frame(payload, at) for at, payload in enumerate(telemetry(5)))
    row = plain.pack(plain.Block(0, 5, RUN, 0, len(frames), 0, 0), frames)
    assert row[4] == 1
    assert len(unpack(row).frames) == 5
    # and a row that it cannot read for want of the module is not called damaged: it waits
    zstd = repacked(2, zstandard.ZstdCompressor().compress(frames), count=5, raw=len(frames))
    with pytest.raises(plain.CodecMissing, match="fast"):
        plain.unpack(zstd)
    assert plain.salvage(zstd).frames == []
