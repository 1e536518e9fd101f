"""How fast do records go through the disk: saved, read back, delivered, deleted, every commit synced?"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from benchmarks.harness import Bench, Figures, column
from benchmarks.material import Target, cpu_seconds, readings
from resilient_exporters.delivery.block import Block, pack
from resilient_exporters.delivery.frame import frame
from resilient_exporters.delivery.spool import Spool, key_of

BLOCK = 500


def run(bench: Bench) -> None:
    count, few = bench.size(500_000, 20_000), bench.size(5_000, 300)
    found = bench.measure(
        {
            "exporter": (exporter, {"count": count}),
            "spool": (spool, {"count": count}),
            "append": (append, {"count": count}),
            "Deque": (deque, {"count": few}),
            "FIFOSQLiteQueue": (persist_queue, {"count": few, "kind": "FIFOSQLiteQueue"}),
            "UniqueQ": (persist_queue, {"count": few, "kind": "UniqueQ"}),
        }
    )
    ours, limit = found["exporter"], found["append"]
    title = "raw append"
    bench.row(
        "rate, send to deleted",
        column(ours, "rate"),
        "/s",
        beside=(title, column(limit, "rate")),
        least=0.5,
        of="ratio",
    )
    bench.row("rate, send to deleted", column(ours, "rate"), "/s", least=250_000)
    bench.row("  send and save", column(ours, "in"), "/s", beside=(title, column(limit, "rate")))
    bench.row("  read, deliver, delete", column(ours, "out"), "/s", beside=(title, column(limit, "rate")))
    bench.row("CPU, send to deleted", column(ours, "cpu"), "s/M", beside=(title, column(limit, "cpu")))
    bench.row("  send and save", column(ours, "cpu_in"), "s/M")
    bench.row("  read, deliver, delete", column(ours, "cpu_out"), "s/M")
    rows = found["spool"]
    bench.row(
        "rate, the disk part alone",
        column(rows, "rate"),
        "/s",
        beside=(title, column(limit, "rate")),
        least=0.5,
        of="ratio",
    )
    bench.row("CPU, the disk part alone", column(rows, "cpu"), "s/M", beside=(title, column(limit, "cpu")))
    for peer in ("Deque", "FIFOSQLiteQueue", "UniqueQ"):
        if all(column(found[peer], "rate")):
            bench.row("rate, send to deleted", column(ours, "rate"), "/s", beside=(peer, column(found[peer], "rate")))
        else:
            bench.note(f"{peer} is not installed: pip install --group bench")
    bench.note(
        "raw append: prebuilt bytes of the same records, write + fdatasync per 500; nothing read, nothing deleted"
    )
    bench.note("disk part alone: frames given; compress, insert, read, check, delete; a transaction per 500 in")
    bench.note("the peers one by one, as they come: Deque does not sync its commits, persist-queue does")


# In a process of their own:


def exporter(directory: str, count: int) -> Figures:
    material = readings()
    target = Target(directory, up=False, on_full="block", max_disk="2 GB")
    send = target.send
    send(material[0])
    target.save()
    used, began = [cpu_seconds()], [time.perf_counter()]
    for at in range(1, count):
        send(material[at % len(material)])
    if not target.save():
        raise RuntimeError("not saved")
    used.append(cpu_seconds())
    began.append(time.perf_counter())
    target.up = True
    report = target.flush(600)
    target.close()  # deletes the last rows
    used.append(cpu_seconds())
    began.append(time.perf_counter())
    if not report.complete or target.taken != count:
        raise RuntimeError(f"{target.taken} of {count} were delivered")
    return {
        "rate": count / (began[2] - began[0]),
        "in": count / (began[1] - began[0]),
        "out": count / (began[2] - began[1]),
        "cpu": (used[2] - used[0]) / count * 1e6,
        "cpu_in": (used[1] - used[0]) / count * 1e6,
        "cpu_out": (used[2] - used[1]) / count * 1e6,
    }


def spool(directory: str, count: int) -> Figures:
    """The spool without an exporter around it: what the disk format allows."""
    encode = msgspec.msgpack.Encoder().encode
    payloads = [encode(one) for one in readings()]
    blocks = [
        b"".join(frame(payloads[offset % len(payloads)], offset) for offset in range(first, first + BLOCK))
        for first in range(0, count, BLOCK)
    ]
    disk = Spool(Path(directory), 1 << 31)
    disk.open()
    used, began = cpu_seconds(), time.perf_counter()
    for at, frames in enumerate(blocks):
        block = Block(at * BLOCK, BLOCK, b"benchrun", 0, len(frames), 0.0, 0.0)
        disk.write({key_of(block.first, BLOCK): pack(block, frames)})
    done: list[int] = []
    for first in range(0, count, BLOCK):
        key = key_of(first, BLOCK)
        payload, damaged = disk.read(key)
        if payload is None or damaged or len(payload.frames) != BLOCK:
            raise RuntimeError("a row came back damaged")
        done.append(key)
        if len(done) == 100:
            disk.write({}, done)
            done = []
    disk.write({}, done)
    seconds, used = time.perf_counter() - began, cpu_seconds() - used
    disk.close()
    return {"rate": count / seconds, "cpu": used / count * 1e6}


def append(directory: str, count: int) -> Figures:
    """The limit of the disk: bytes that are there already, appended and synced."""
    encode = msgspec.msgpack.Encoder().encode
    payloads = [encode(one) for one in readings()]
    blocks = [
        b"".join(
            len(payload).to_bytes(4, "little") + crc32(payload).to_bytes(4, "little") + payload for payload in part
        )
        for part in (payloads[first : first + BLOCK] for first in range(0, len(payloads), BLOCK))
    ]
    handle = os.open(Path(directory) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    used, began = cpu_seconds(), time.perf_counter()
    for at in range(count // BLOCK):
        os.write(handle, blocks[at % len(blocks)])
        os.fdatasync(handle)
    seconds, used = time.perf_counter() - began, cpu_seconds() - used
    os.close(handle)
    return {"rate": count / seconds, "cpu": used / count * 1e6}


def deque(directory: str, count: int) -> Figures:
    import diskcache

    material = readings(count)
    waiting = diskcache.Deque(directory=directory)
    began = time.perf_counter()
    for data in material:
        waiting.append(data)
    for _ in range(count):
        waiting.popleft()
    return {"rate": count / (time.perf_counter() - began)}


def persist_queue(directory: str, count: int, kind: str) -> Figures:
    try:
        import persistqueue
    except ModuleNotFoundError:
        return {"rate": 0.0}
    material = readings(count)
    waiting: Any = getattr(persistqueue, kind)(directory, auto_commit=True, multithreading=True)
    began = time.perf_counter()
    for data in material:
        waiting.put(data)
    for _ in range(count):
        waiting.get()
    return {"rate": count / (time.perf_counter() - began)}
