"""Decompressors: between the bytes of a stream and its records."""

from __future__ import annotations

__all__: list[str] = []
