"""Law 1, conservation: accepted = delivered + dropped{reason} + dead + pending, at any moment and across restarts."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resilient_exporters import Batch, ExporterPool, QueueFullError, RejectedError
from resilient_exporters.delivery.spool import Spool
from tests.programs import PATIENCE as SECONDS
from tests.programs import start
from tests.targets import PATIENCE, FakeClock, Target, balanced

MOODS: dict[str, Any] = {
    "up": None,
    "down": ConnectionError("down"),
    "unclear": RuntimeError("?"),
    "rejects": RejectedError("no"),
    "odd": lambda batch: [RejectedError("odd") if record.data % 2 else None for record in batch],
    "poison": lambda batch: ValueError("7") if any(record.data % 7 == 3 for record in batch) else None,
}

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 30)),
        st.tuples(st.just("list"), st.integers(1, 30)),
        st.tuples(st.just("mood"), st.sampled_from(sorted(MOODS))),
        st.tuples(st.just("flush"), st.integers(0, 20)),
        st.tuples(st.just("save"), st.just(0)),
        st.tuples(st.just("replay"), st.just(0)),
        st.tuples(st.just("discard"), st.just(0)),
        st.tuples(st.just("age"), st.integers(1, 50)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    min_size=1,
    max_size=25,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(
    operations=OPERATIONS,
    policy=st.sampled_from(["drop_oldest", "drop_newest", "raise"]),
    most=st.sampled_from([None, 1, 10, 25]),
    max_age=st.sampled_from([None, 60.0]),
    max_dead=st.sampled_from([0, 3, 1000]),
)
def test_nothing_leaves_without_a_counter(  # noqa: PLR0912 - a branch for each operation
    operations: list[tuple[str, Any]], policy: str, most: int | None, max_age: float | None, max_dead: int
) -> None:
    # Given
    clock = FakeClock()
    name = uuid4().hex
    sent = refused = 0
    taken: list[Any] = []

    def opened(mood: Any) -> Target:
        target = Target(
            mood, name=name, clock=clock, max_records=most, on_full=policy, max_age=max_age, max_dead=max_dead,
            retry=10**6, batch_records=8,
        )  # fmt: skip
        target.taken = taken
        return target

    mood: Any = None
    exporter = opened(mood)

    # When
    for what, how in operations:
        if what == "send":
            for _ in range(how):
                try:
                    exporter.send(sent)
                    sent += 1
                except QueueFullError:
                    refused += 1
        elif what == "list":
            before = exporter.stats().accepted
            try:
                exporter.send(list(range(sent, sent + how)))
                sent += how
            except QueueFullError:
                sent += exporter.stats().accepted - before
        elif what == "mood":
            mood = exporter.answer = MOODS[how]
        elif what == "flush":
            exporter.flush(None, how or None)
        elif what == "save":
            exporter.save(None)
        elif what == "replay":
            exporter.replay()
        elif what == "discard":
            exporter.discard()
        elif what == "age":
            clock.advance(how)
        elif what == "restart":
            assert exporter.close(0).lost == 0
            exporter = opened(mood)
            exporter.has_unsent_data()

        # Then: at any moment
        if exporter._engine is not None:
            assert balanced(exporter).accepted == sent

    # Then: at the end
    exporter.answer = None
    while not exporter.flush(None).complete:
        pass
    exporter.close(0)
    stats = balanced(exporter)
    if stats.targets:
        assert stats.accepted == sent
        assert stats.pending == 0
        # What was in flight at a close or a drop may have arrived all the same: it counts once, or as dropped.
        assert stats.targets[name].delivered <= len(set(taken))
        assert refused == 0 or policy == "raise"


def test_a_pool_keeps_a_count_for_each_member() -> None:
    # Given
    def poison(batch: Batch) -> Any:
        return [RejectedError("odd") if record.data["n"] % 2 else None for record in batch]

    name = uuid4().hex
    pool = ExporterPool(
        [Target(name="up"), Target(ConnectionError("down"), name="down", retry=3600), Target(poison, name="odd")],
        name=name, max_records=20,
    )  # fmt: skip

    # When
    for n in range(100):
        pool.send({"n": n})
        pool.flush(PATIENCE)
        stats = balanced(pool)
        assert {target.accepted for target in stats.targets.values()} == {n + 1}
    pool.close(0)

    # Then
    pool = ExporterPool([Target(name="up"), Target(name="down"), Target(poison, name="odd")], name=name, max_records=20)
    assert pool.flush(PATIENCE).complete
    targets = balanced(pool).targets
    assert targets["up"].delivered == 100
    assert targets["odd"].dead == 50
    assert targets["down"].dropped["overflow"] + targets["down"].delivered == 100


PROGRAM = """
import random, sys
from pathlib import Path
from resilient_exporters import Delivered, Exporter, Reject

class Moody(Exporter):
    kind = "moody"
    healthy = False
    def __init__(self):
        super().__init__(directory=Path(sys.argv[1]), max_memory="128 kB", max_disk="600 kB",
                         max_records=2000, max_dead=50,
                         retry=0, batch_records=50, loss_window=0.02)
    def export(self, batch):
        if not self.healthy or random.random() < 0.4:
            raise ConnectionError("cut")
        return [Reject("no") if random.random() < 0.05 else None for _ in batch]

e = Moody()
t = e._open().stats().targets["moody"]
ok = t.accepted == t.delivered + sum(t.dropped.values()) + t.dead + t.pending
ok = ok and min(t.delivered, t.dead, t.pending, *t.dropped.values(), 0) >= 0
letters = len(list(e.dead_letters()))
print(ok, t.accepted, letters, t.dead, t, flush=True)
e.healthy = True
n = 0
while True:
    e.send({"n": n, "pad": "x" * 100})
    n += 1
    if n % 500 == 0:
        s = e.stats().targets["moody"]
        if s.accepted != s.delivered + sum(s.dropped.values()) + s.dead + s.pending:
            print("UNBALANCED", s, flush=True)
"""


def test_the_counters_add_up_after_any_kill(tmp_path: Path) -> None:
    # Given / When: killed again and again, amid deliveries, drops and dead letters
    accepted = 0
    for _ in range(6):
        child = start(PROGRAM, tmp_path / "queue")
        assert child.stdout is not None
        line = child.stdout.readline()
        parts = line.split(" ", 4)

        # Then
        assert parts[0] == "True", line
        assert int(parts[1]) >= accepted, line
        assert parts[2] == parts[3], line  # as many letters as are counted
        accepted = int(parts[1])
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.4)
        child.send_signal(signal.SIGKILL)
        out, err = child.communicate(timeout=SECONDS)
        assert "Traceback" not in err, err
        assert "UNBALANCED" not in out, out
    assert accepted > 1000


@pytest.mark.parametrize("reason", ["overflow", "age", "full", "unsaved", "discarded", "dead_overflow"])
def test_every_reason_is_counted(reason: str) -> None:
    # Given
    from resilient_exporters import Full

    clock = FakeClock()
    options: dict[str, Any] = {"retry": 10**6, "clock": clock}
    down = ConnectionError("down")

    # When
    if reason == "overflow":
        exporter = Target(down, max_records=1, **options)
        exporter.send(1)
        exporter.send(2)
    elif reason == "age":
        exporter = Target(down, max_age=10, **options)
        receipt = exporter.send(1)
        tuple(receipt)
        clock.advance(100)
        receipt.result(None)
    elif reason == "full":
        exporter = Target(Full("no room"), **options)
        exporter.send(1).result(None)
    elif reason == "unsaved":
        exporter = Target(down, save_unsent_data=False, **options)
        exporter.send(1)
        exporter.close(0)
    else:
        exporter = Target(RejectedError("no"), max_dead=0 if reason == "dead_overflow" else 10, **options)
        exporter.send(1).result(None)
        exporter.discard()

    # Then
    assert balanced(exporter).targets["target"].dropped == {reason: 1}


@pytest.mark.parametrize("max_dead", [0, 5])
def test_a_record_dropped_on_its_way_to_the_letters(monkeypatch: pytest.MonkeyPatch, max_dead: int) -> None:
    # Given: a record was refused, and the disk takes its time with the letter
    gate, writing = threading.Event(), threading.Event()
    write = Spool.write

    def slow(self: Spool, *arguments: Any) -> None:
        writing.set()
        gate.wait()
        write(self, *arguments)

    monkeypatch.setattr(Spool, "write", slow)
    exporter = Target(
        RejectedError("no"), name="letters", max_records=1, max_dead=max_dead, retry=3600, loss_window=3600
    )
    exporter.send(0)
    exporter.entered()
    if max_dead:
        assert writing.wait(PATIENCE)

    # When: the next one makes it the oldest that has to go
    exporter.answer = ConnectionError("down")
    exporter.send(1)
    gate.set()
    exporter.flush(PATIENCE)
    list(exporter.dead_letters())

    # Then: it is one thing or the other
    before = balanced(exporter).targets["letters"]
    assert before.accepted == 2
    assert len(list(exporter.dead_letters())) == before.dead
    exporter.close(0)
    later = Target(name="letters", max_records=1, max_dead=max_dead)
    assert later.flush(PATIENCE).complete
    after = balanced(later).targets["letters"]
    assert (after.accepted, after.dead) == (2, before.dead)
    assert len(list(later.dead_letters())) == after.dead
