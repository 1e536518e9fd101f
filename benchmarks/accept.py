"""What does it cost to accept records and have them on disk while the target is away?"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.harness import Bench, Figures, column
from benchmarks.material import Target, cpu_seconds, readings
from resilient_exporters.delivery.checksum import crc32_function

BLOCK = 500
crc32 = crc32_function()  # the engine's: the limit is not to be slower for its checksums


def run(bench: Bench) -> None:
    count = bench.size(700_000, 20_000)
    found = bench.measure(
        {
            "dicts": (exporter, {"count": count}),
            "bytes": (exporter, {"count": count, "encoded": True}),
            "zlib": (exporter, {"count": count, "without": ["zstandard"]}),
            "append dicts": (append, {"count": count}),
            "append bytes": (append, {"count": count, "encoded": True}),
        },
        repeats=5,
    )
    for name, what, limit in (
        ("dicts", "dicts of 200 B", "append dicts"),
        ("bytes", "bytes, 200 B", "append bytes"),
        ("zlib", "dicts, without zstandard", "append dicts"),
    ):
        ours, beside = found[name], found[limit]
        title = "framed append"
        goal = 3.0 if name != "zlib" else None
        bench.row(
            f"CPU per million accepted and saved, {what}", column(ours, "cpu"), "s/M",
            beside=(title, column(beside, "cpu")), most=goal,
        )  # fmt: skip
        bench.row(f"  of that: until the last send returned, {what}", column(ours, "send_cpu"), "s/M")
        bench.row(
            f"accept rate, {what}", column(ours, "rate"), "/s",
            beside=(title, column(beside, "rate")), least=0.5, of="ratio",
        )  # fmt: skip
    bench.note("framed append: the same records, encoded if dicts, length + crc32 each, one write + fdatasync per 500")


# In a process of their own:


def exporter(directory: str, count: int, encoded: bool = False) -> Figures:
    material = _material(encoded)
    target = Target(directory, up=False, on_full="block", max_disk="2 GB")
    send = target.send
    send(material[0])
    used, began = cpu_seconds(), time.perf_counter()
    for at in range(count):
        send(material[at % len(material)])
    sent = cpu_seconds() - used
    if not target.save():
        raise RuntimeError("not saved")
    seconds, used = time.perf_counter() - began, cpu_seconds() - used
    stats = target.stats()
    if stats.pending != count + 1:
        raise RuntimeError(f"{stats.pending} wait, {count + 1} were sent")
    target.close(0.0)
    return {"rate": count / seconds, "cpu": used / count * 1e6, "send_cpu": sent / count * 1e6}


def append(directory: str, count: int, encoded: bool = False) -> Figures:
    """The limit: nothing but encode, frame, write and sync, in one thread."""
    material = _material(encoded)
    encode: Callable[[Any], bytes] = bytes if encoded else msgspec.msgpack.Encoder().encode
    pack = struct.Struct("<II").pack
    handle = os.open(Path(directory) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    parts: list[bytes] = []
    used, began = cpu_seconds(), time.perf_counter()
    for at in range(count):
        payload = encode(material[at % len(material)])
        parts.append(pack(len(payload), crc32(payload)))
        parts.append(payload)
        if len(parts) == 2 * BLOCK:
            os.write(handle, b"".join(parts))
            os.fdatasync(handle)
            parts = []
    seconds, used = time.perf_counter() - began, cpu_seconds() - used
    os.close(handle)
    return {"rate": count / seconds, "cpu": used / count * 1e6}


def _material(encoded: bool) -> list[Any]:
    return [msgspec.json.encode(one) for one in readings()] if encoded else readings()
