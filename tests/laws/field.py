"""A year in the field: what becomes of a sensor's readings on a bad link, in a machine that is switched off at will.

The engine is the real one, threads and disk included; only time is made. It goes from event to event (``FieldClock``),
so that a year passes in minutes. ``python -m tests.laws.field --days 365`` prints the figures and draws them.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import logging
import os
import random
import resource
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resilient_exporters import Batch, Exporter, ExporterPool, HoldError, RejectedError
from resilient_exporters.delivery import dispatcher, engine
from resilient_exporters.delivery.ring import ring_path
from tests.laws.field_clock import FieldClock
from tests.laws.field_figures import Card, Figures, Sample, draw
from tests.laws.weather import DAY, HOUR, Link, Weather

EVERY = 10.0
BURST = 500
"""Readings of an event that the sensor records closely: a door, a starting pump."""


def reading(n: int) -> dict[str, Any]:
    """The reading ``n``: about 200 bytes encoded, and nobody can alter it without being noticed."""
    mixed = (n * 2654435761) & 0xFFFFFFFF
    return {
        "n": n, "station": "pump-house-7", "line": "north", "temperature": 15 + mixed % 1000 / 100,
        "pressure": 1000 + (mixed >> 8) % 500 / 10, "flow": (mixed >> 4) % 997 / 7, "vibration": mixed / 7919,
        "current": (mixed >> 12) % 333 / 3, "state": ("idle", "run", "stop", "run")[mixed >> 30], "battery": 12.6,
        "rssi": -60 - (mixed >> 20) % 40, "firmware": "4.2.1-rc3", "site": "waterworks east",
        "operator": "night shift",
    }  # fmt: skip


POISON = 50_021
"""Every so many-th reading is one that the cloud refuses for good."""


class Far(Exporter):
    """A target that keeps a record once, by its id, and that the weather decides on."""

    kind = "far"

    def __init__(self, place: Place, **options: Any) -> None:
        super().__init__(**options)
        self.place = place

    def export(self, batch: Batch) -> list[Any] | None:
        place = self.place
        at = place.clock.seconds
        place.attempts += 1
        if place.name == "cloud" and place.weather.revoked[0] <= at < place.weather.revoked[1]:
            raise HoldError(self, "401: the key was revoked")
        if place.away.holds(at):
            raise ConnectionError("no link")
        poisoned = place.name == "cloud" and any(record.data["n"] % POISON == POISON - 1 for record in batch)
        answers: list[Any] = []
        for record in batch:
            n = record.data["n"]
            if poisoned and n % POISON == POISON - 1:
                answers.append(RejectedError(self, "400: no such unit"))
                place.refused.add(n)
                continue
            place.take(n, record.id, record.data)
            answers.append(None)
        if place.dice.random() < 0.002:
            raise ConnectionError("cut after the last byte: the answer is lost")
        return answers if poisoned else None


@dataclass
class Place:
    """What one target has, and when it is away. Outlives the program."""

    name: str
    clock: FieldClock
    weather: Weather
    away: Link
    dice: random.Random
    got: bytearray = field(default_factory=bytearray)
    ids: dict[int, str] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    attempts: int = 0
    resent: int = 0
    doubled: int = 0
    altered: int = 0

    def take(self, n: int, name: str, data: dict[str, Any]) -> None:
        """One record, as a database with the record's id as the key takes it."""
        while n >= len(self.got):
            self.got.extend(bytes(1 << 16))
        if self.got[n]:
            self.resent += 1
            self.doubled += self.ids.get(n, name) != name
            return
        self.got[n] = 1
        self.ids[n] = name
        if len(self.ids) > 20_000:
            for old in list(itertools.islice(self.ids, 10_000)):
                del self.ids[old]
        self.altered += data != reading(n)


def _ended(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:
        threading.__excepthook__(args)


class Field:
    """One machine, its program, its two targets and its weather.

    Args:
        root: a folder for it.
        days, seed: of the weather.
        loss_window: of the exporter.
        bundle: seconds of readings that are handed over at once while nothing waits and the link is up. Nothing is
            written then in any case; it spares most of the time that a year takes.
    """

    def __init__(
        self, root: Path, days: float, seed: int = 1, loss_window: float = 300.0, bundle: float = 60.0
    ) -> None:
        self.card = Card(root)
        self.root = self.card.place
        self.window = loss_window
        self.bundle = bundle
        self.clock = FieldClock()
        self.weather = Weather.of(days, seed)
        self.figures = Figures(days)
        away = {"cloud": self.weather.outages, "plant": [self.weather.dead]}
        self.places = [
            Place(name, self.clock, self.weather, Link(spans), random.Random(f"{seed} {name}"))
            for name, spans in away.items()
        ]
        self.full = Link(self.weather.full)
        self.dice = random.Random(seed)
        self.next = 0
        self.recent: list[tuple[float, int]] = []  # when which reading was accepted, as far back as the window reaches
        self.taken_by_cuts: set[int] = set()
        self.ours = 0  # bytes that this program wrote, and not the exporter
        self.pool: ExporterPool | None = None

    # -- the program ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """The program starts, as its supervisor has it."""
        members = [Far(place, name=place.name, clock=self.clock) for place in self.places]
        self.pool = ExporterPool(
            members, name="field", directory=self.root / "queue", clock=self.clock, linger=0,
            loss_window=self.window, min_free_disk="64 MB",
        )  # fmt: skip
        self.clock.engines.append(self.pool._open())
        self.clock.rest()

    def end(self, how: str) -> None:
        """Kill it; or cut the power: then what is in memory goes, and the clock is wrong when it starts again."""
        assert self.pool is not None
        self.figures.ends[how] += 1
        running = self.pool._open()
        self.clock.rest()
        queue = self.root / "queue"
        self.card.sync()
        before = self.card.written()
        files = {path: path.read_bytes() for path in queue.rglob("*") if path.is_file()}
        self.clock.kill(running)
        running.closed = True
        running.place.abandon()
        engine._LIVE.discard(running)
        self.pool = None
        del running
        gc.collect()  # a killed program has no memory any more
        # Closing the connection folded the log in, which nobody does at a kill: back to what it was.
        for path in list(queue.rglob("*")):
            if path.is_file() and path not in files:
                path.unlink()
        for path, raw in files.items():
            path.write_bytes(raw)
        self.card.sync()
        self.ours += self.card.written() - before
        if how == "cut":
            ring = ring_path(queue)
            assert ring is not None
            ring.unlink()
            at = self.clock.seconds
            self.taken_by_cuts.update(n for when, n in self.recent if when > at - self.window)
            self.clock.reboot(off=self.dice.uniform(20, 600), wrong=self.dice.uniform(0, 3 * DAY))
        self.start()

    # -- the year ------------------------------------------------------------------------------------------------

    def run(self) -> Figures:
        """Let it all happen."""
        # Nobody takes the cable out here, and a look every two seconds is most of what happens in a year.
        usual, dispatcher._LINK_EVERY = dispatcher._LINK_EVERY, DAY
        # A killed thread ends by SystemExit. A hook that keeps it keeps its engine, and with that all of its memory.
        hook, threading.excepthook = threading.excepthook, _ended
        log = logging.getLogger(
            "resilient_exporters"
        )  # a year's lines would be kept by whoever shows them at a failure
        propagated, log.propagate = log.propagate, False
        try:
            return self._run()
        finally:
            log.propagate = propagated
            dispatcher._LINK_EVERY = usual
            threading.excepthook = hook
            os.statvfs = _STATVFS
            self.card.eject()

    def _run(self) -> Figures:
        figures, clock, length = self.figures, self.clock, self.weather.days * DAY
        began, cpu, before = time.monotonic(), time.process_time(), self.card.written()
        self.start()
        happenings = sorted([*self.weather.ends, *((at, "burst") for at in self.weather.bursts)])
        looked = 0.0
        while clock.seconds < length:
            quiet = self._is_quiet()
            until = clock.seconds + (self.bundle if quiet else EVERY)
            if happenings and happenings[0][0] <= until:
                at, what = happenings.pop(0)
                clock.go_to(max(at, clock.seconds))
                self._burst() if what == "burst" else self.end(what)
                clock.step(self.dice.uniform(-5, 5) if what == "burst" else self.dice.uniform(0, 3 * DAY))
                continue
            clock.go_to(until)
            self._send(int(self.bundle // EVERY) if quiet else 1)
            if clock.seconds - looked >= self.weather.days / 365 * 6 * HOUR:
                looked = clock.seconds
                self._look()
        figures.link_up = 1 - self.places[0].away.total(length) / length
        self._drain()
        self.card.sync()
        figures.written = self.card.written() - before - self.ours
        figures.seconds, figures.cpu = time.monotonic() - began, time.process_time() - cpu
        return figures

    def _is_quiet(self) -> bool:
        at = self.clock.seconds
        away = any(place.away.holds(at) or place.away.holds(at + self.bundle) for place in self.places)
        assert self.pool is not None
        return not away and not self.pool._open().pending()

    def _send(self, count: int) -> None:
        assert self.pool is not None
        os.statvfs = _full if self.full.holds(self.clock.seconds) else _STATVFS
        at = self.clock.seconds
        for n in range(self.next, self.next + count):
            self.pool.send(reading(n))
            self.recent.append((at, n))
        self.next += count
        if len(self.recent) > 50_000:
            del self.recent[:25_000]
        self.clock.rest()

    def _burst(self) -> None:
        for _ in range(10):
            self._send(BURST // 10)
            self.clock.go_to(self.clock.seconds + 1.0)

    def _look(self) -> None:
        assert self.pool is not None
        stats, figures = self.pool.stats(), self.figures
        for one in stats.targets.values():
            settled = one.delivered + sum(one.dropped.values()) + one.dead
            figures.unlawful += one.accepted != settled + one.pending or min(one.pending, one.dead, one.delivered) < 0
        figures.most_backlog = max(figures.most_backlog, stats.pending)
        figures.most_disk = max(figures.most_disk, stats.disk_bytes)
        rss = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        figures.samples.append(
            Sample(
                self.clock.seconds / DAY,
                [stats.targets[place.name].pending for place in self.places],
                [stats.targets[place.name].state for place in self.places],
                self.card.written() - self.ours,
                stats.disk_bytes,
                rss,
            )
        )

    def _drain(self) -> None:
        """The link is up again for good: what waits leaves, and then it is counted."""
        assert self.pool is not None
        os.statvfs = _STATVFS
        for place in self.places:
            place.away = Link([])
        running = self.pool._open()
        for _ in range(10_000):
            if not running.pending():
                break
            self.clock.go_to(self.clock.seconds + 60)
        self._look()
        stats, figures = self.pool.stats(), self.figures
        figures.sent = self.next
        figures.payload = sum(len(engine_bytes(n)) for n in range(0, self.next, 997)) * 997
        figures.rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        for place in self.places:
            missing = {n for n in range(self.next) if n >= len(place.got) or not place.got[n]} - place.refused
            dropped = stats.targets[place.name].dropped
            counted = sum(dropped.values())
            figures.in_window += len(missing & self.taken_by_cuts)
            figures.lost += max(0, len(missing - self.taken_by_cuts) - counted)
            figures.dropped.update(dropped)
            figures.dead += stats.targets[place.name].dead
            figures.doubled += place.doubled
            figures.resent += place.resent
            figures.altered += place.altered
        self.clock.engines.remove(running)
        self.clock.go_on(self.pool)
        self.pool = None


def engine_bytes(n: int) -> bytes:
    """A reading as it is kept."""
    from resilient_exporters import codec

    return codec.encode(reading(n))


_STATVFS = os.statvfs


def _full(path: Any) -> os.statvfs_result:
    figures = list(_STATVFS(path))
    figures[3] = figures[4] = 0
    return os.statvfs_result(figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=365)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--loss-window", type=float, default=300)
    parser.add_argument("--bundle", type=float, default=60)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="field-"))
    try:
        figures = Field(root, given.days, given.seed, given.loss_window, given.bundle).run()
    finally:
        shutil.rmtree(root)
    print(figures)
    if given.plot:
        draw(figures, given.plot)


if __name__ == "__main__":
    main()
