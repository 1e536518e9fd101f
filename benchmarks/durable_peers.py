"""The peers of ``through_disk``: queues on disk for Python, each as its documentation shows it.

Every function puts ``count`` readings in, then takes each out and says that it is done with it; what came out is
compared with what went in.
"""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.harness import Figures
from benchmarks.material import cpu_seconds, readings
from resilient_exporters.delivery.checksum import crc32_function

BLOCK = 500
crc32 = crc32_function()  # the engine's: the limit is not to be slower for its checksums

#: By name: the module that it needs, and whether each of its commits is synced.
PEERS = {
    "FIFOSQLiteQueue": ("persistqueue", True),
    "SQLiteAckQueue": ("persistqueue", True),
    "UniqueQ": ("persistqueue", True),
    "persist-queue files": ("persistqueue", False),
    "diskcache.Deque": ("diskcache", False),
    "litequeue": ("litequeue", False),
    "huey on SQLite": ("huey", True),
}


def peer(name: str, directory: str, count: int) -> Figures:
    """One of ``PEERS``."""
    return _OPENERS[name](directory, readings(count))


def installed(module: str) -> bool:
    """Whether a module of a peer can be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


def sqlite(directory: str, count: int) -> Figures:
    """What a careful programmer writes: 500 rows a transaction, in and out, every commit synced."""
    material = readings()
    encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode
    db = sqlite3.connect(Path(directory) / "queue.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE queue (id INTEGER PRIMARY KEY, record BLOB NOT NULL)")

    def put() -> None:
        for first in range(0, count, BLOCK):
            rows = [(encode(material[at % len(material)]),) for at in range(first, min(first + BLOCK, count))]
            db.execute("BEGIN")
            db.executemany("INSERT INTO queue (record) VALUES (?)", rows)
            db.execute("COMMIT")

    def take() -> int:
        taken = 0
        while rows := db.execute("SELECT id, record FROM queue ORDER BY id LIMIT ?", (BLOCK,)).fetchall():
            taken += len([decode(record) for _, record in rows])
            db.execute("BEGIN")
            db.execute("DELETE FROM queue WHERE id <= ?", (rows[-1][0],))
            db.execute("COMMIT")
        return taken

    with closing(db):
        return _in_and_out(count, put, take)


def raw_log(directory: str, count: int) -> Figures:
    """The limit of the disk: prebuilt bytes, appended and synced per block; read, checked, and the position synced."""
    encode = msgspec.msgpack.Encoder().encode
    payloads = [encode(one) for one in readings()]
    blocks = [
        b"".join(
            len(payload).to_bytes(4, "little") + crc32(payload).to_bytes(4, "little") + payload for payload in part
        )
        for part in (payloads[first : first + BLOCK] for first in range(0, len(payloads), BLOCK))
    ]
    log = os.open(Path(directory) / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    position = os.open(Path(directory) / "position", os.O_WRONLY | os.O_CREAT)

    def put() -> None:
        for at in range(count // BLOCK):
            os.write(log, blocks[at % len(blocks)])
            os.fdatasync(log)

    def take() -> int:
        taken = begin = 0
        for at in range(count // BLOCK):
            data = os.pread(log, len(blocks[at % len(blocks)]), begin)
            taken += _check(data)
            begin += len(data)
            os.pwrite(position, begin.to_bytes(8, "little"), 0)
            os.fdatasync(position)
        return taken

    return _in_and_out(count, put, take)


def _check(data: bytes) -> int:
    at = found = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        payload = data[at + 8 : at + 8 + size]
        if crc32(payload) != int.from_bytes(data[at + 4 : at + 8], "little"):
            raise RuntimeError("a record came back damaged")
        at += 8 + size
        found += 1
    return found


def _in_and_out(count: int, put: Callable[[], None], take: Callable[[], int]) -> Figures:
    used, began = [cpu_seconds()], [time.perf_counter()]
    put()
    used.append(cpu_seconds())
    began.append(time.perf_counter())
    taken = take()
    used.append(cpu_seconds())
    began.append(time.perf_counter())
    if taken != count:
        raise RuntimeError(f"{taken} of {count} came out")
    return figures_of(count, used, began)


def figures_of(count: int, used: list[float], began: list[float]) -> Figures:
    """Rates and CPU seconds per million, from three moments: before, all are in, all are out."""
    return {
        "rate": count / (began[2] - began[0]),
        "in": count / (began[1] - began[0]),
        "out": count / (began[2] - began[1]),
        "cpu": (used[2] - used[0]) / count * 1e6,
        "cpu_in": (used[1] - used[0]) / count * 1e6,
        "cpu_out": (used[2] - used[1]) / count * 1e6,
    }


def _one_by_one(
    material: list[Any], put: Callable[[Any], Any], take: Callable[[], Any], after: Callable[[], Any] = bool
) -> Figures:
    def put_all() -> None:
        for data in material:
            put(data)

    def take_all() -> int:
        taken = [take() for _ in material]
        after()
        return sum(a == b for a, b in zip(taken, material, strict=True))

    return _in_and_out(len(material), put_all, take_all)


def _persist_queue(kind: str, directory: str, material: list[Any]) -> Figures:
    import persistqueue

    waiting = getattr(persistqueue, kind)(directory, auto_commit=True, multithreading=True)
    return _one_by_one(material, waiting.put, waiting.get)


def _persist_ack_queue(directory: str, material: list[Any]) -> Figures:
    import persistqueue

    waiting = persistqueue.SQLiteAckQueue(directory, multithreading=True)

    def take() -> Any:
        data = waiting.get()
        waiting.ack(data)
        return data

    def clear() -> None:
        waiting.clear_acked_data(max_delete=len(material), keep_latest=0)

    return _one_by_one(material, waiting.put, take, clear)


def _persist_files(directory: str, material: list[Any]) -> Figures:
    import persistqueue

    waiting = persistqueue.Queue(directory, tempdir=directory)

    def take() -> Any:
        data = waiting.get()
        waiting.task_done()
        return data

    return _one_by_one(material, waiting.put, take)


def _deque(directory: str, material: list[Any]) -> Figures:
    import diskcache

    waiting = diskcache.Deque(directory=directory)
    with closing(waiting.cache):
        return _one_by_one(material, waiting.append, waiting.popleft)


def _litequeue(directory: str, material: list[Any]) -> Figures:
    from litequeue import LiteQueue

    waiting = LiteQueue(Path(directory) / "queue.db")
    encode, decode = msgspec.json.Encoder().encode, msgspec.json.Decoder().decode

    def take() -> Any:
        message = waiting.pop()
        waiting.done(message.message_id)
        return decode(message.data)

    return _one_by_one(material, lambda data: waiting.put(encode(data).decode()), take, waiting.prune)


def _huey(directory: str, material: list[Any]) -> Figures:
    from huey import SqliteHuey

    waiting = SqliteHuey(filename=str(Path(directory) / "queue.db"), results=False, fsync=True)
    deliver = waiting.task()(_delivered.append)
    _delivered.clear()

    def take() -> Any:
        waiting.execute(waiting.dequeue())
        return _delivered[-1]

    return _one_by_one(material, deliver, take)


_delivered: list[Any] = []

_OPENERS: dict[str, Callable[[str, list[Any]], Figures]] = {
    "FIFOSQLiteQueue": partial(_persist_queue, "FIFOSQLiteQueue"),
    "SQLiteAckQueue": _persist_ack_queue,
    "UniqueQ": partial(_persist_queue, "UniqueQ"),
    "persist-queue files": _persist_files,
    "diskcache.Deque": _deque,
    "litequeue": _litequeue,
    "huey on SQLite": _huey,
}
