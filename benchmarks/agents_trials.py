"""What is done to each side, in a process of its own: a module of `agents`."""

from __future__ import annotations

import functools
import os
import random
import re
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.agents_receiver import Receiver
from benchmarks.agents_sides import Ours, Side, side
from benchmarks.harness import Figures
from tests.servers.provision import ServerError
from tests.servers.small_disk import SmallDisk

__all__ = ["exiting", "flipped", "full", "killed", "outage", "rest", "waiting"]

_CLOSED = re.compile(r"agents:closed in ([\d.]+) ms")
_Trial = Callable[..., Figures]
_FLIP = 64
_FEW = 500
"""Readings at hand where memory or the end of the program is asked for: ten thousand of them are not ours."""
_PATIENCE = 10.0


def _told(trial: _Trial) -> _Trial:
    """One that fails must not end a run of many minutes: it is told, and leaves a gap."""

    @functools.wraps(trial)
    def attempt(**given: Any) -> Figures:
        try:
            return trial(**given)
        except Exception:  # noqa: BLE001 - whatever it is, the others go on
            traceback.print_exc()
            return {"failed": 1.0}

    return attempt


@_told
def outage(directory: str, name: str, count: int) -> Figures:
    """The target is away while records come as fast as they are taken; then it is there."""
    with Receiver() as receiver, side(name, Path(directory), receiver.port, retry=1.0) as one:
        count = int(count * one.share)
        one.start()
        one.prepare(0, count)
        one.settle()
        used, wrote, idle = one.cpu(), one.written(), one.resident()
        seconds = one.feed(0, count)
        one.settle()
        accept = one.cpu() - used
        wrote_in = one.written() - wrote
        took, resident = one.on_disk(), one.resident()
        if len(one.accepted) != count:
            raise RuntimeError(f"{name} took {len(one.accepted)} of {count}")
        used = one.cpu()
        receiver.start()
        got = receiver.wait(count, _PATIENCE * 2)
        one.settle()
        drain = one.cpu() - used
        wrote_out = one.written() - wrote - wrote_in
        report = receiver.report(count)
        million = count / 1e6
        return {
            "rate": count / seconds, "accept": accept / million, "drain": drain / million,
            "drain_rate": got / max(receiver.span, 1e-3), "bytes": (wrote_in + wrote_out) / count,
            "bytes_in": wrote_in / count, "bytes_out": wrote_out / count, "dir": took / count,
            "rss": resident, "rss_idle": idle, "rss_drained": one.resident(),
            "dir_after": one.on_disk() / 1e6, "lost": len(report["missing"]), "doubled": report["doubled"],
        }  # fmt: skip


@_told
def waiting(directory: str, name: str, count: int) -> Figures:
    """How much memory does it take while records wait?"""
    with Receiver() as receiver, side(name, Path(directory), receiver.port) as one:
        count = int(count * one.share)
        if isinstance(one, Ours):
            one.set(distinct=_FEW)
        one.start()
        one.prepare(0, count)
        one.feed(0, count)
        one.settle()
        return {"rss": one.resident()}


@_told
def rest(directory: str, name: str, count: int, after: float, seconds: float) -> Figures:
    """The target stays away and nothing is sent; attempts are as each has them by default."""
    with Receiver() as receiver, side(name, Path(directory), receiver.port) as one:
        count = int(count * one.share)
        one.start()
        one.prepare(0, count)
        one.feed(0, count)
        time.sleep(after)
        used, began = one.cpu(), time.monotonic()
        time.sleep(seconds)
        return {"cpu": (one.cpu() - used) / (time.monotonic() - began) * 100}


@_told
def killed(directory: str, name: str, rate: int, seconds: float) -> Figures:
    """SIGKILL in the middle of a steady stream with the target away; what does the next start deliver?"""
    with Receiver() as receiver, side(name, Path(directory), receiver.port, retry=1.0) as one:
        rate = int(rate * one.share)
        count = int(rate * seconds)
        one.start()
        one.prepare(0, 2 * count)
        one.feed(0, count, rate)
        one.kill_now()
        taken = max(one.accepted, default=-1) + 1
        missing = _after_restart(one, receiver, taken)
        return {
            "taken": taken, "lost": len(missing), "old": sum(1 for number in missing if number < taken - rate),
            "doubled": receiver.report(0)["doubled"],
        }  # fmt: skip


@_told
def exiting(directory: str, name: str, count: int) -> Figures:
    """SIGTERM with the target away, right after the last record was taken."""
    with Receiver() as receiver, side(name, Path(directory), receiver.port, retry=1.0) as one:
        count = int(count * one.share)
        one.start()
        one.prepare(0, count)
        if isinstance(one, Ours):
            one.saves = False  # that is for the end to do
            one.set(distinct=_FEW)
        one.feed(0, count)
        seconds = one.end(signal.SIGTERM)
        closing = _CLOSED.search(one.said())
        missing = _after_restart(one, receiver, count)
        figures: Figures = {"seconds": seconds, "lost": len(missing), "doubled": receiver.report(0)["doubled"]}
        return figures if closing is None else {**figures, "closing": float(closing[1])}


@_told
def flipped(directory: str, name: str, count: int, seed: int) -> Figures:
    """64 bytes somewhere in the files of a queue are not what they were; the program was stopped in order before."""
    with Receiver(check=True) as receiver, side(name, Path(directory), receiver.port, retry=1.0) as one:
        count = int(count * one.share)
        one.start()
        one.prepare(0, count)
        one.feed(0, count)
        one.settle()
        one.end(signal.SIGTERM)
        one.reboot()
        _flip(one.queue, seed)
        try:
            missing = _after_restart(one, receiver, count)
        except (ServerError, RuntimeError):
            return {"dead": 1, "lost": count, "altered": 0, "doubled": 0, "said": 1}
        report = receiver.report(0)
        damage = ("corrupt", "damage", "invalid", "malformed", "error", "checksum", "crc", "unmarshal", "cannot")
        return {
            "dead": 0, "lost": len(missing), "altered": report["altered"], "doubled": report["doubled"],
            "said": float(any(word in one.said().lower() for word in damage)),
        }  # fmt: skip


@_told
def full(directory: str, name: str, count: int, megabytes: int, new: int) -> Figures:
    """The disk of the queue takes no more; then the target comes, and then there are new records."""
    folder = Path(directory)
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        disk = SmallDisk(folder / "disk", megabytes)
        stack.callback(disk.remove)
        place = folder / "disk" / "queue"
        place.mkdir()
        one = stack.enter_context(side(name, folder, receiver.port, retry=1.0, queue=place))
        if isinstance(one, Ours):
            one.set(on_full="drop_oldest", min_free_disk="1 MB")  # by default it leaves 64 MB of any disk alone
            one.saves = False
        one.start()
        one.prepare(0, count)
        one.feed(0, count, patience=8.0)
        one.settle()
        lines = one.said().count("\n")
        receiver.start()
        receiver.wait(count, _PATIENCE)
        try:
            one.prepare(count, new)
            one.feed(count, new, patience=8.0)
        except OSError:
            print(f"{name} takes no new records: it is gone", flush=True)
        receiver.wait(count + new, _PATIENCE)
        missing = set(receiver.report(count + new)["missing"])
        lost = sum(1 for number in one.accepted if number < count and number in missing)
        counted = one.ask(do="stats")["dropped"] if isinstance(one, Ours) else 0
        figures: Figures = {
            "given": count, "taken": sum(1 for number in one.accepted if number < count), "lost": lost, "lines": lines,
            "new": sum(1 for number in range(count, count + new) if number not in missing),
        }  # fmt: skip
        if isinstance(one, Ours):
            figures["uncounted"] = abs(lost - counted)
        return figures


def _after_restart(one: Side, receiver: Receiver, count: int) -> list[int]:
    """Start it again with the target there; the numbers that do not come."""
    receiver.start()
    one.start()
    receiver.wait(count, _PATIENCE)
    found: list[int] = receiver.report(count)["missing"]
    return found


def _flip(folder: Path, seed: int) -> None:
    """Somewhere in what is not empty: in a page that is zero nothing is hit."""
    chance = random.Random(seed)
    places = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        places += [(path, at) for at in range(0, len(content), _FLIP) if content[at : at + _FLIP].strip(b"\0")]
    path, at = chance.choice(places)
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(_FLIP)
        file.seek(at)
        file.write(bytes(byte ^ chance.randrange(1, 256) for byte in old))
        os.fsync(file.fileno())
