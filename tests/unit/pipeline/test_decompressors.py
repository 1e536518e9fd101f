"""Bytes of compressed streams: of several members, cut anywhere, damaged, or something else than they should be."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from resilient_exporters.pipeline.decompressors import (
    AutoDecompressor,
    BaseDecompressor,
    BZ2Decompressor,
    NoDecompressor,
    XZDecompressor,
    ZLibDecompressor,
    ZstdDecompressor,
)
from resilient_exporters.pipeline.errors import UnreadableStreamError

Packer = Callable[[bytes], bytes]
FORMATS: list[tuple[type[BaseDecompressor], Packer, str]] = [
    (ZLibDecompressor, lambda data: gzip.compress(data, mtime=0), ".gz"),
    (ZLibDecompressor, zlib.compress, ".zlib"),
    (BZ2Decompressor, bz2.compress, ".bz2"),
    (XZDecompressor, lzma.compress, ".xz"),
    (ZstdDecompressor, zstandard.compress, ".zst"),
]
IDS = ["gzip", "zlib", "bzip2", "xz", "zstd"]
DATA = bytes(range(256)) * 4096  # more than a block


class Dripping(io.BytesIO):
    """Gives no more than some bytes at once, as a socket does."""

    def __init__(self, data: bytes, most: int) -> None:
        super().__init__(data)
        self.most = most

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self.most)


def unpacked(decompressor: BaseDecompressor, data: bytes, most: int = 1 << 16) -> bytes:
    return b"".join(decompressor.decompress(Dripping(data, most)))


@pytest.mark.parametrize(("cls", "pack", "ending"), FORMATS, ids=IDS)
@given(parts=st.lists(st.binary(max_size=2000), min_size=1, max_size=4), most=st.integers(1, 300))
def test_members_come_one_after_the_other(
    cls: type[BaseDecompressor], pack: Packer, ending: str, parts: list[bytes], most: int
) -> None:
    data = b"".join(map(pack, parts))
    assert unpacked(cls(), data, most) == b"".join(parts)
    assert unpacked(AutoDecompressor(name="x" + ending), data, most) == b"".join(parts)
    assert unpacked(AutoDecompressor(), data, most) == b"".join(parts)


@pytest.mark.parametrize(("cls", "pack", "ending"), FORMATS, ids=IDS)
def test_large_members_come_in_bounded_blocks(cls: type[BaseDecompressor], pack: Packer, ending: str) -> None:
    packed = pack(DATA)
    assert unpacked(cls(), packed + packed) == DATA + DATA


@pytest.mark.parametrize(("cls", "pack", "ending"), FORMATS, ids=IDS)
@pytest.mark.parametrize("cut", [1, 4, 200])
def test_a_stream_that_was_cut_is_an_error(cls: type[BaseDecompressor], pack: Packer, ending: str, cut: int) -> None:
    packed = pack(DATA)
    with pytest.raises(UnreadableStreamError, match="ends in the middle"):
        unpacked(cls(), packed[:-cut])


@pytest.mark.parametrize(("cls", "pack", "ending"), FORMATS, ids=IDS)
def test_a_damaged_stream_is_an_error(cls: type[BaseDecompressor], pack: Packer, ending: str) -> None:
    # zstd's own tool writes a checksum, the library's default does not: there damage may show in the content only
    packed = bytearray(
        zstandard.ZstdCompressor(write_checksum=True).compress(DATA) if cls is ZstdDecompressor else pack(DATA)
    )
    packed[len(packed) // 2] ^= 0x10
    with pytest.raises(UnreadableStreamError, match="is damaged"):
        unpacked(cls(), bytes(packed))


@pytest.mark.parametrize(("cls", "pack", "ending"), FORMATS, ids=IDS)
def test_plain_data_is_told_from_compressed(cls: type[BaseDecompressor], pack: Packer, ending: str) -> None:
    with pytest.raises(UnreadableStreamError, match="use NoDecompressor"):
        unpacked(cls(), b'{"plain": "json"}\n')
    with pytest.raises(UnreadableStreamError, match=r"the name says .* or else give NoDecompressor"):
        unpacked(AutoDecompressor(name="x.jl" + ending), b'{"plain": "json"}\n')
    assert unpacked(AutoDecompressor(name="x.jl"), b'{"plain": "json"}\n') == b'{"plain": "json"}\n'
    assert unpacked(NoDecompressor(), pack(b"x")) == pack(b"x")


def test_the_error_names_the_other_format() -> None:
    with pytest.raises(UnreadableStreamError, match=r"this is no gzip or zlib data .*use BZ2Decompressor"):
        unpacked(ZLibDecompressor(), bz2.compress(b"x"))
    with pytest.raises(UnreadableStreamError, match=r"this is no xz data .*use ZLibDecompressor"):
        unpacked(XZDecompressor(), gzip.compress(b"x"))


@pytest.mark.parametrize("ending", ["", ".gz", ".bz2"])
def test_an_empty_stream_holds_nothing(ending: str) -> None:
    assert unpacked(AutoDecompressor(name="x" + ending), b"") == b""


def test_zeros_after_gzip_are_padding_and_other_bytes_are_damage() -> None:
    packed = gzip.compress(b"a") + b"\0" * 1000
    assert unpacked(ZLibDecompressor(), packed, 7) == b"a"
    assert unpacked(ZLibDecompressor(), packed + gzip.compress(b"b"), 7) == b"ab"
    with pytest.raises(UnreadableStreamError, match="is damaged"):
        unpacked(ZLibDecompressor(), gzip.compress(b"a") + b"left over")


@pytest.mark.parametrize(("cls", "pack", "ending"), FORMATS, ids=IDS)
def test_a_small_file_that_holds_much_does_not_fill_the_memory(
    cls: type[BaseDecompressor], pack: Packer, ending: str
) -> None:
    packed = pack(bytes(60_000_000))
    tracemalloc.start()
    try:
        size = sum(map(len, cls().decompress(io.BytesIO(packed))))
        assert size == 60_000_000
        assert tracemalloc.get_traced_memory()[1] < 25_000_000
    finally:
        tracemalloc.stop()


class Failing(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise ConnectionResetError("by peer")
        return super().read(100)


@pytest.mark.parametrize(("cls", "pack", "ending"), FORMATS, ids=IDS)
def test_a_wire_that_breaks_is_no_damage(cls: type[BaseDecompressor], pack: Packer, ending: str) -> None:
    source: Any = Failing(pack(bytes(1000) + DATA))
    with pytest.raises(ConnectionResetError):
        list(cls().decompress(source))
