"""Law 8, once: an id fixed at acceptance; with it a resend leaves one copy."""

from __future__ import annotations

import random
from typing import Any
from uuid import uuid4

from resilient_exporters import Batch, ExporterPool, RejectedError
from tests.targets import PATIENCE, Target, balanced


class Table:
    """A target that keeps one row per id, and often fails after it has taken the batch."""

    def __init__(self, seed: int) -> None:
        self.rows: dict[str, Any] = {}
        self.again = 0
        self.dice = random.Random(seed)

    def __call__(self, batch: Batch) -> Any:
        taken = batch[: self.dice.randrange(len(batch) + 1)] if self.dice.random() < 0.5 else batch[:]
        for record in taken:
            if record.id in self.rows:
                assert self.rows[record.id] == record.data, "one id, two records"
                assert batch.redelivered, "given again without being told"
                self.again += 1
            self.rows[record.id] = record.data
        return ConnectionError("the answer was lost") if len(taken) < len(batch) or self.dice.random() < 0.3 else None


def test_resends_after_failures_and_restarts_leave_one_copy() -> None:
    # Given
    table, name, sent = Table(1), uuid4().hex, 0

    # When
    for _ in range(10):
        exporter = Target(table, name=name, batch_records=20)
        for _ in range(100):
            exporter.send({"n": sent})
            sent += 1
        exporter.flush(PATIENCE)
        exporter.close(0)
    exporter = Target(table, name=name)
    while not exporter.flush(PATIENCE).complete:
        pass

    # Then
    assert table.again > 100
    assert sorted(row["n"] for row in table.rows.values()) == list(range(sent))
    assert balanced(exporter).targets[name].delivered == sent


def test_resends_with_several_batches_in_flight() -> None:
    # Given
    import threading

    table, lock = Table(2), threading.Lock()

    def locked(batch: Batch) -> Any:
        with lock:
            return table(batch)

    exporter = Target(locked, concurrency=4, batch_records=10)

    # When
    for n in range(2000):
        exporter.send({"n": n})
    while not exporter.flush(PATIENCE).complete:
        pass

    # Then
    assert sorted(row["n"] for row in table.rows.values()) == list(range(2000))


def test_the_id_is_one_for_all_members() -> None:
    # Given
    tables = [Table(n) for n in range(3)]
    pool = ExporterPool([Target(table, name=f"t{n}") for n, table in enumerate(tables)])

    # When
    receipts = [pool.send({"n": n}) for n in range(200)]
    while not pool.flush(PATIENCE).complete:
        pass

    # Then
    expected = {receipt.id: {"n": n} for n, receipt in enumerate(receipts)}
    assert all(table.rows == expected for table in tables)


def test_the_id_outlives_death_and_replay() -> None:
    # Given
    exporter = Target(RejectedError("no"), name="replay")
    receipt = exporter.send({"n": 0})
    receipt.result(PATIENCE)
    exporter.close()

    # When
    later = Target(name="replay")
    later.replay()
    assert later.flush(PATIENCE).complete

    # Then
    assert later.ids == [receipt.id]


def test_ids_of_different_lives_and_queues_never_meet() -> None:
    # Given
    ids: list[str] = []

    # When: with everything lost in between, and in other queues
    for n in range(20):
        exporter = Target(name=f"life{n % 4}", use_memory=bool(n % 2))
        exporter.send(["a", "b"]).result(PATIENCE)
        ids += exporter.ids
        exporter.close()
        if n % 3 == 0:
            from resilient_exporters.delivery.ring import ring_path

            assert exporter.directory is not None
            ring = ring_path(exporter.directory)
            if ring is not None:
                ring.unlink()

    # Then
    assert len(set(ids)) == 40
