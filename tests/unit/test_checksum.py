"""The checksum of frames: the same numbers, whoever sums."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_exporters.delivery.checksum import crc32_function


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    crc32_function.cache_clear()
    yield
    crc32_function.cache_clear()


@given(st.binary(max_size=5000))
def test_isal_sums_as_zlib_does(data: bytes) -> None:
    isal_zlib = pytest.importorskip("isal.isal_zlib")

    assert crc32_function() is isal_zlib.crc32
    assert crc32_function()(data) == crc32_function()(memoryview(data)) == zlib.crc32(data)


def test_without_isal_zlib_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)

    assert crc32_function() is zlib.crc32
