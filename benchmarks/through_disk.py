"""How fast do records go through the disk: saved, read back, delivered, deleted, every commit synced?"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from benchmarks.durable_peers import BLOCK, PEERS, figures_of, installed, peer, raw_log, sqlite
from benchmarks.harness import Bench, Figures, column
from benchmarks.material import Target, cpu_seconds, readings
from resilient_exporters.delivery.block import Block, pack
from resilient_exporters.delivery.frame import frame
from resilient_exporters.delivery.spool import Spool, key_of

_RAW, _SQLITE = "raw append", "SQLite, 500 rows a commit"


def run(bench: Bench) -> None:
    count, few = bench.size(400_000, 20_000), bench.size(2_000, 100)
    peers = [name for name, (module, _) in PEERS.items() if installed(module)]
    for name in sorted(set(PEERS) - set(peers)):
        bench.note(f"NOT MEASURED: {name}: not installed; `make bench` does it")
    found = bench.measure(
        {
            "exporter": (exporter, {"count": count}),
            "spool": (spool, {"count": count}),
            _RAW: (raw_log, {"count": count}),
            _SQLITE: (sqlite, {"count": bench.size(100_000, 5_000)}),
            **{name: (peer, {"name": name, "count": few}) for name in peers},
        }
    )
    ours, limit = found["exporter"], found[_RAW]
    append = (_RAW, column(limit, "in"))
    bench.row("rate, send to deleted", column(ours, "rate"), "/s", beside=append, least=0.5, of="ratio")
    bench.row("rate, send to deleted", column(ours, "rate"), "/s", least=250_000)
    bench.row("  in: send and save", column(ours, "in"), "/s", beside=append, least=0.5, of="ratio")
    bench.row("  out: read, deliver, delete", column(ours, "out"), "/s", beside=append)
    both = ("raw log, in and out", column(limit, "rate"))
    bench.row("rate, send to deleted", column(ours, "rate"), "/s", beside=both)
    bench.row("  out: read, deliver, delete", column(ours, "out"), "/s", beside=("raw log, out", column(limit, "out")))
    bench.row("CPU, send to deleted", column(ours, "cpu"), "s/M", beside=(_RAW, column(limit, "cpu_in")))
    for part, name in (("in: send and save", "cpu_in"), ("out: read, deliver, delete", "cpu_out")):
        bench.row(f"  {part}", column(ours, name), "s/M", beside=("raw log, the same", column(limit, name)))
    rows = found["spool"]
    bench.row("rate, the disk part alone", column(rows, "rate"), "/s", beside=append, least=0.5, of="ratio")
    bench.row("CPU, the disk part alone", column(rows, "cpu"), "s/M", beside=(_RAW, column(limit, "cpu_in")))
    for name in (_SQLITE, *peers):
        _beside(bench, name, ours, found[name])
    bench.note(
        "raw append: prebuilt bytes of the same records, write + fdatasync per 500; nothing read, nothing deleted"
    )
    bench.note(
        "raw log, out: read, crc32 checked record by record, the position written and synced per 500; no decoding"
    )
    bench.note("disk part alone: frames given; compress, insert, read, check, delete; a transaction per 500 in")
    bench.note("the peers one by one, as their documentation has them: put, then get and acknowledge, or remove")
    unsynced = ", ".join(name for name, (_, synced) in PEERS.items() if not synced)
    bench.note(f"a power cut can take what {unsynced} took: their commits are not synced; all others' are")
    bench.note("FIFOSQLiteQueue, SQLiteAckQueue and UniqueQ are persist-queue's")


def _beside(bench: Bench, name: str, ours: list[Figures], theirs: list[Figures]) -> None:
    goal = 80 if PEERS.get(name, ("",))[0] == "persistqueue" else None
    bench.row(
        "rate, send to deleted",
        column(ours, "rate"),
        "/s",
        beside=(name, column(theirs, "rate")),
        least=goal,
        of="ratio",
    )
    for part, figure, unit in (("in", "in", "/s"), ("out", "out", "/s"), ("CPU, in and out", "cpu", "s/M")):
        bench.row(f"  {part}", column(ours, figure), unit, beside=(name, column(theirs, figure)))


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
    return figures_of(count, used, began)


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
