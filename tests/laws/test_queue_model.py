"""Laws 1, 3 and 4 on the queue alone: a machine that appends, settles, saves, evicts, is killed and loses power.

No threads and no disk: the ring lies in a file of a temporary folder, the spool is a dict.
"""

from __future__ import annotations

import shutil
import tempfile
from array import array
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resilient_exporters.delivery.block import Block, pack, unpack
from resilient_exporters.delivery.cursor import DEAD, DELIVERED, EXCLUDED, Cursor
from resilient_exporters.delivery.frame import frame, scan
from resilient_exporters.delivery.interval import IntervalSet
from resilient_exporters.delivery.queue import Queue, Taken
from resilient_exporters.delivery.recovery import attach, decode_state, take_over
from resilient_exporters.delivery.ring import Ring
from resilient_exporters.delivery.settings import Settings
from resilient_exporters.delivery.spool import key_of, span_of
from tests.queues import SMALL, StillClock

TARGETS = ("a", "b", "c")
targets = st.sampled_from(TARGETS)
ORDERS = st.sampled_from(["fifo", "newest_first", "balanced"])


class Account:
    """What a target's figures should be."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.delivered = 0
        self.dead = 0
        self.dropped: dict[str, int] = {}

    def settle(self, start: int, stop: int, how: str) -> None:
        gone = {at for at in self.open if start <= at < stop}
        self.open -= gone
        if how == DELIVERED:
            self.delivered += len(gone)
        elif how == DEAD:
            self.dead += len(gone)
        elif how != EXCLUDED and gone:
            self.dropped[how] = self.dropped.get(how, 0) + len(gone)


class QueueMachine(RuleBasedStateMachine):
    @initialize(
        batch=st.integers(1, 8),
        bound=st.sampled_from([None, None, 12]),
        policy=st.sampled_from(["drop_oldest", "drop_newest"]),
    )
    def begin(self, batch: int, bound: int | None, policy: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="queue-model-"))
        self.options: dict[str, Any] = {
            "batch_records": batch, "max_records": bound, "on_full": policy, "max_memory": SMALL,
        }  # fmt: skip
        self.clock = StillClock()
        self.sent: dict[int, bytes] = {}
        self.rows: dict[int, bytes] = {}
        self.state: bytes | None = None
        self.accounts: dict[str, Account] = {}
        self.present: set[str] = set()
        self.opened(set(TARGETS[:2]))

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        try:
            self.drain()
        finally:
            shutil.rmtree(self.folder)

    # -- a process begins and ends -----------------------------------------------------------------------------------

    def opened(self, present: set[str]) -> None:
        ring = Ring(self.folder / "ring", SMALL, Path("/queue"))
        assert ring.durable
        self.queue = Queue(Settings.check(**self.options), ring, self.clock)
        take_over(self.queue)
        self.queue.on_drop = self.dropped
        self.queue.large = self.large
        attach(self.queue, array("q", sorted(self.rows)), decode_state(self.state))
        self.queue.settle_in()
        self.flying: dict[str, list[Taken]] = {}
        self.claimed = {name: IntervalSet() for name in TARGETS}
        self.saving: list[tuple[Block, int, int]] = []
        for name in sorted(present):
            self.queue.join(name)
            self.accounts.setdefault(name, Account())
        for name in sorted(set(self.queue.cursors) - present):
            self.queue.leave(name)
        for name in set(self.accounts) - set(self.queue.cursors):
            assert not self.accounts.pop(name).open
        self.present = present

    @rule(present=st.sets(targets, min_size=1))
    def kill(self, present: set[str]) -> None:
        following = self.queue.following
        run = self.queue.ring.run
        self.opened(present)
        assert (self.queue.following, self.queue.ring.run) == (following, run)

    @rule(present=st.sets(targets, min_size=1))
    def lose_power(self, present: set[str]) -> None:
        (self.folder / "ring").unlink()
        kept = decode_state(self.state)
        self.accounts = {}
        for cursor in map(Cursor.restore, kept.cursors if kept else []):
            account = self.accounts[cursor.identity] = Account()
            account.delivered, account.dead, account.dropped = cursor.delivered, cursor.dead, dict(cursor.dropped)
        # A queue that lost every cursor begins anew: this machine writes them with each row.
        assert kept is not None or not self.rows
        self.opened(present)
        following = self.queue.following
        self.sent = {at: payload for at, payload in self.sent.items() if at < following}
        on_disk = {at for key in self.rows for at in range(*span_of(key))}
        for name, cursor in self.queue.cursors.items():
            end = following if cursor.left is None else cursor.left
            self.accounts[name].open = {at for a, b in cursor.open(0, end) for at in range(a, b)}
        # Nothing that was on disk is missing; what was not is lost, and will be counted.
        self.lost = set(range(following)) - on_disk

    # -- records come ------------------------------------------------------------------------------------------------

    @rule(size=st.one_of(st.integers(10, 200), st.integers(1000, SMALL // 4), st.just(SMALL // 4)))
    def append(self, size: int) -> None:
        payload = (b"%d." % self.queue.following).ljust(size, b"x")
        self.clock.seconds += 0.1
        self.accept(self.queue.append(payload), payload)

    @rule(size=st.integers(SMALL // 4 + 1, SMALL), done=st.booleans())
    def append_large(self, size: int, done: bool) -> None:
        self.done = done
        payload = (b"%d." % self.queue.following).ljust(size, b"L")
        offset = self.queue.append(payload)
        if offset < 0 or done:
            self.accept(offset, payload)

    def large(self, payload: bytes, flags: int) -> int:
        offset = self.queue.reserve(1)
        if offset >= 0:
            if self.done:
                block = Block(offset, 1, self.queue.ring.run, -1, -1, 0.0, 0.0)
                self.rows[key_of(offset, 1)] = pack(block, frame(payload, offset, flags))
            self.queue.placed(offset, done=self.done)
            self.tidy()
        return offset

    def accept(self, offset: int, payload: bytes) -> None:
        for name in self.present:
            if offset < 0:
                dropped = self.accounts[name].dropped
                dropped["overflow"] = dropped.get("overflow", 0) + 1
            else:
                self.accounts[name].open.add(offset)
        if offset >= 0:
            assert offset not in self.sent
            self.sent[offset] = payload

    def dropped(self, start: int, stop: int, reason: str) -> None:
        for account in self.accounts.values():
            account.settle(start, stop, reason)

    @rule()
    def seal(self) -> None:
        self.queue.seal()

    # -- targets work ------------------------------------------------------------------------------------------------

    @rule(name=targets, most=st.integers(1, 10), order=ORDERS)
    def take(self, name: str, most: int, order: str) -> None:
        if name not in self.present:
            return
        cursor, claimed = self.queue.cursors[name], self.claimed[name]
        taken = self.queue.take(cursor, claimed, most, order, self.queue.following // 2)
        if taken is None:
            return
        assert taken.records == sum(stop - start for start, stop in taken.runs) <= most
        mine = self.accounts[name].open & {at for run in taken.runs for at in range(*run)}
        assert mine
        found = self.read(taken)
        assert {at: found[at] for at in mine} == {at: self.sent[at] for at in mine}
        if order == "fifo":
            # The oldest that nobody works on comes first.
            assert taken.start == min(at for at in self.accounts[name].open if at not in claimed)
        for start, stop in taken.runs:
            assert not claimed.meets(start, stop)
            claimed.add(start, stop)
        self.flying.setdefault(name, []).append(taken)

    def read(self, taken: Taken) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for piece in taken.pieces:
            frames = piece.frames
            if frames is None:
                frames = list(scan(memoryview(piece.data), 0, len(piece.data), piece.origin))
            found |= {item.offset + piece.shift: piece.data[item.start : item.stop] for item in frames}
        return found

    @rule(
        name=targets,
        which=st.integers(0, 9),
        how=st.sampled_from([*[DELIVERED] * 3, DEAD, "full"]),
        part=st.integers(0, 9),
    )
    def answer(self, name: str, which: int, how: str, part: int) -> None:
        flying = self.flying.get(name)
        if not flying:
            return
        taken = flying.pop(which % len(flying))
        for start, end in taken.runs:
            self.claimed[name].remove(start, end)
            stop = max(start, end - part % 3)
            self.queue.settle(self.queue.cursors[name], start, stop, how)
            self.accounts[name].settle(start, stop, how)

    @rule(first=st.integers(0, 30), count=st.integers(1, 10))
    def drop(self, first: int, count: int) -> None:
        start = self.queue.low() + first
        stop = min(start + count, self.queue.sealed)
        if start < stop:
            self.queue.drop(start, stop, "age")

    # -- the keeper works --------------------------------------------------------------------------------------------

    @rule(most=st.sampled_from([1, 5000, 1 << 30]))
    def gather(self, most: int) -> None:
        if not self.saving:
            self.queue.seal()
            self.saving = self.queue.gather(most, self.queue.following)

    @precondition(lambda self: self.saving)
    @rule(done=st.booleans(), killed=st.booleans())
    def save(self, done: bool, killed: bool) -> None:
        if done:
            for block, start, stop in self.saving:
                if block.start >= 0:
                    assert block.start == start
                    self.rows[key_of(block.first, block.count)] = pack(block, self.queue.ring.memory[start:stop])
                    for key in block.replaces:
                        self.rows.pop(key, None)
            self.tidy()
            if killed:
                # All of it is on disk, and nobody was told.
                self.kill(self.present)
                return
        self.queue.saved([block for block, _, _ in self.saving], done=done)
        self.saving = []

    @rule()
    def tidy(self) -> None:
        for key in self.queue.stock.freed:
            self.rows.pop(key, None)
        self.queue.stock.freed.clear()
        self.state = self.queue.state()

    @rule()
    def load(self) -> None:
        for key in list(self.queue.stock.wanted):
            row = self.rows.get(key)
            self.queue.put_loaded(key, None if row is None else unpack(row))

    @rule()
    def evict(self) -> None:
        self.queue.empty_ring()

    @rule()
    def drop_oldest_row(self) -> None:
        self.queue.drop_oldest_row()

    # -- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def figures_are_true(self) -> None:
        if not hasattr(self, "queue"):
            return
        following = self.queue.following
        assert set(self.queue.cursors) == set(self.accounts)
        for name, cursor in self.queue.cursors.items():
            account = self.accounts[name]
            dropped = {reason: number for reason, number in cursor.dropped.items() if number}
            assert (cursor.delivered, cursor.dead, dropped) == (account.delivered, account.dead, account.dropped), name
            pending = cursor.pending(following)
            assert pending == len(account.open), name
            assert cursor.accepted(following) == cursor.delivered + cursor.dead + sum(dropped.values()) + pending, name

    @invariant()
    def memory_is_bounded_and_in_order(self) -> None:
        if not hasattr(self, "queue"):
            return
        stock = self.queue.stock
        assert 0 <= self.queue.memory_bytes() <= self.queue.ring.capacity
        if self.options["max_records"] is not None:
            assert self.queue.following - self.queue.low() <= max(12, len(self.sent) - self.queue.low() + 12)
        spans = [(block.first, block.end) for block in stock.blocks]
        assert all(stop <= start for (_, stop), (start, _) in pairwise(spans))
        keys = list(stock.index)
        assert keys == sorted(keys)
        assert set(keys) <= set(self.rows)

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "queue"):
            return
        stock = self.queue.stock
        held = set(range(self.queue.sealed, self.queue.following))
        held.update(at for block in stock.blocks for at in range(block.first, block.end))
        held.update(at for key in stock.index for at in range(*span_of(key)))
        wanted = {at for account in self.accounts.values() for at in account.open}
        assert wanted - held <= getattr(self, "lost", set())

    @invariant()
    def no_row_is_forgotten(self) -> None:
        if not hasattr(self, "queue") or self.saving:
            return
        stock = self.queue.stock
        known = {*stock.index, *stock.freed, *(block.key for block in stock.blocks)}
        known.update(key for block in stock.blocks for key in block.replaces)
        assert set(self.rows) <= known

    def drain(self) -> None:
        """In the end every target gets everything that is its business, as it was sent."""
        self.flying = {}
        self.queue.seal()
        for name in self.present:
            cursor, account = self.queue.cursors[name], self.accounts[name]
            got: dict[int, bytes] = {}
            while cursor.pending(self.queue.following):
                taken = self.queue.take(cursor, IntervalSet(), 100, "fifo", 0)
                if taken is None:
                    assert self.queue.stock.wanted or not cursor.pending(self.queue.following)
                    self.load()
                    continue
                got |= {at: payload for at, payload in self.read(taken).items() if at in account.open}
                for start, stop in taken.runs:
                    account.settle(start, stop, DELIVERED)
                    self.queue.settle(cursor, start, stop, DELIVERED)
            assert all(self.sent[at] == payload for at, payload in got.items())
            assert list(got) == sorted(got)
            assert not account.open
            assert account.dropped.get("corrupt", 0) <= len(getattr(self, "lost", ()))
        self.figures_are_true()
        if not set(self.accounts) - self.present:
            assert (self.queue.stock.blocks, list(self.queue.stock.index)) == ([], [])


QueueMachine.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
TestQueue = QueueMachine.TestCase
