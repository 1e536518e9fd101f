"""The ExporterPool: one send, many targets, one queue."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from resilient_exporters import ExporterPool, ExportResult, InvalidConfigError, RejectedError
from tests.targets import PATIENCE, SOON, Target, balanced, numbers


def test_every_member_gets_every_record() -> None:
    # Given
    members = [Target(name=f"t{n}") for n in range(3)]
    pool = ExporterPool(members)

    # When
    pool.send({"metric": 2})
    pool.send(numbers(4))
    assert pool.flush(PATIENCE).complete

    # Then
    assert [member.taken for member in members] == [[{"metric": 2}, *numbers(4)]] * 3
    assert len({tuple(member.ids) for member in members}) == 1


def test_it_reads_as_a_collection_of_its_members() -> None:
    # Given
    a, b = Target(name="a"), Target(name="b")

    # When
    pool = ExporterPool([a])
    pool.add_exporter(b)

    # Then
    assert len(pool) == 2
    assert list(pool) == [a, b]
    assert dict(pool.exporters) == {"a": a, "b": b}
    assert len(ExporterPool(None)) == 0
    assert ExporterPool()


def test_a_receipt_iterates_over_the_members_in_order() -> None:
    # Given
    a, b = Target(name="a"), Target(ConnectionError("down"), name="b", retry=3600)
    pool = ExporterPool([a, b])

    # When
    receipt = pool.send({"n": 1})

    # Then
    assert list(receipt) == [ExportResult(None, True), ExportResult(None, False)]
    assert len(receipt) == 2
    assert receipt[0].successful
    assert not receipt.successful
    assert receipt.targets == {"a": ExportResult(None, True), "b": ExportResult(None, False)}
    assert not receipt.done()
    b.answer = None
    pool.flush(PATIENCE)
    assert receipt.result(PATIENCE) == ExportResult([None, None], True)


def test_members_of_one_name_are_told_apart() -> None:
    # Given
    a, b = Target(), Target(ConnectionError("down"), retry=3600)
    pool = ExporterPool([a, b])

    # When
    receipt = pool.send({"n": 1})

    # Then
    assert list(receipt) == [ExportResult(None, True), ExportResult(None, False)]
    assert sorted(pool.stats().targets) == ["target", "target#2"]
    assert pool.stats().targets["target"].delivered == 1
    assert pool.stats().targets["target#2"].pending == 1


def test_the_pools_transform_supersedes_the_members() -> None:
    # Given
    member = Target(name="a", transform=lambda data: {**data, "member": True})
    pool = ExporterPool([member], transform=lambda data: {**data, "pool": True})

    # When
    pool.send({"n": 1}).result(PATIENCE)

    # Then
    assert member.taken == [{"n": 1, "pool": True}]


def test_a_members_own_transform_runs_once_for_that_member() -> None:
    # Given: the member with a transform is down at first
    failing = iter([ConnectionError("1"), ConnectionError("2")])
    double = Target(lambda _: next(failing, None), name="double", transform=lambda data: {"m": data["m"] * 2})
    plain = Target(name="plain")
    pool = ExporterPool([double, plain])

    # When
    pool.send({"m": 1}).result(PATIENCE)

    # Then
    assert double.taken == [{"m": 2}]
    assert plain.taken == [{"m": 1}]


def test_a_members_transform_that_fails_makes_a_dead_letter_of_that_member() -> None:
    # Given
    a, b = Target(name="a", transform=lambda data: data["nothing there"]), Target(name="b")
    pool = ExporterPool([a, b])

    # When
    receipt = pool.send({"n": 1})

    # Then
    assert not receipt.result(PATIENCE).successful
    assert b.taken == numbers(1, 1)
    assert [letter.target for letter in pool.dead_letters()] == ["a"]
    assert balanced(pool).targets["a"].dead == 1


def test_pools_in_pools_are_one_queue_of_leaves() -> None:
    # Given
    leaves = [Target(name=f"t{n}") for n in range(4)]
    inner, other = ExporterPool(leaves[:2]), ExporterPool([leaves[2]])
    pool = ExporterPool([inner, other, leaves[3]])

    # When
    receipt = pool.send({"n": 0})

    # Then
    assert len(pool) == 3
    assert list(receipt) == [ExportResult(None, True)] * 4
    assert [leaf.taken for leaf in leaves] == [numbers(1)] * 4
    assert inner.stats().accepted == 0


def test_an_inner_pools_transform_is_applied_at_delivery() -> None:
    # Given
    inside, outside = Target(name="inside", transform=lambda _: {"own": 1}), Target(name="outside")
    pool = ExporterPool([ExporterPool([inside], transform=lambda data: {"inner": data["n"]}), outside])

    # When
    pool.send({"n": 1}).result(PATIENCE)

    # Then: the inner pool's supersedes its member's
    assert inside.taken == [{"inner": 1}]
    assert outside.taken == [{"n": 1}]


def test_two_inner_pools_with_members_of_one_name() -> None:
    # Given
    a, b = Target(name="same"), Target(name="same")
    pool = ExporterPool([ExporterPool([a]), ExporterPool([b])])

    # When
    pool.send({"n": 1}).result(PATIENCE)

    # Then
    assert a.taken == b.taken == [{"n": 1}]


def test_a_pool_is_not_its_own_member() -> None:
    inner = ExporterPool()
    pool = ExporterPool([inner])
    with pytest.raises(InvalidConfigError, match="own member"):
        pool.add_exporter(pool)
    with pytest.raises(InvalidConfigError, match="own member"):
        inner.add_exporter(pool)


def test_a_member_that_joins_later_gets_what_is_sent_from_then_on() -> None:
    # Given
    a, b = Target(ConnectionError("down"), name="a", retry=3600), Target(name="b")
    pool = ExporterPool([a])
    pool.send(numbers(2))

    # When
    pool.add_exporter(b)
    pool.send({"n": 2})
    a.answer = None
    assert pool.flush(PATIENCE).complete

    # Then
    assert a.taken == numbers(3)
    assert b.taken == numbers(1, 2)
    stats = balanced(pool)
    assert (stats.targets["a"].accepted, stats.targets["b"].accepted) == (3, 1)


def test_a_member_that_joins_an_inner_pool_later_is_served_too() -> None:
    # Given
    inner = ExporterPool([Target(name="a")])
    pool = ExporterPool([inner])
    pool.send({"n": 0}).result(PATIENCE)

    # When
    late = Target(name="late")
    inner.add_exporter(late)
    pool.send({"n": 1}).result(PATIENCE)

    # Then
    assert late.taken == numbers(1, 1)


def test_a_pool_without_members_takes_records_and_drops_none_of_a_later_member() -> None:
    # Given
    pool = ExporterPool()

    # When
    receipt = pool.send({"n": 0})

    # Then
    assert receipt.done()
    assert list(receipt) == []
    late = Target(name="late")
    pool.add_exporter(late)
    pool.send({"n": 1}).result(PATIENCE)
    assert late.taken == numbers(1, 1)


def test_a_member_is_known_by_its_name_across_restarts_not_by_its_place() -> None:
    # Given: a took everything, b nothing
    a, b = Target(name="a"), Target(ConnectionError("down"), name="b")
    pool = ExporterPool([a, b], name="pool")
    pool.send(numbers(3))
    pool.flush(PATIENCE)
    pool.close(0)

    # When: the other way round
    a, b = Target(name="a"), Target(name="b")
    pool = ExporterPool([b, a], name="pool")
    assert pool.flush(PATIENCE).complete

    # Then
    assert (a.taken, b.taken) == ([], numbers(3))


def test_a_member_that_is_away_keeps_its_backlog_and_gets_nothing_of_the_time_between() -> None:
    # Given
    pool = ExporterPool([Target(name="a"), Target(ConnectionError("down"), name="b")], name="pool")
    pool.send(numbers(2))
    pool.flush(PATIENCE)
    pool.close(0)

    # When
    a = Target(name="a")
    pool = ExporterPool([a], name="pool")
    pool.send(numbers(2, 2))
    assert pool.flush(PATIENCE).complete
    pool.close()
    b = Target(name="b")
    pool = ExporterPool([Target(name="a"), b], name="pool")
    pool.send({"n": 4})
    assert pool.flush(PATIENCE).complete

    # Then
    assert a.taken == numbers(2, 2)
    assert b.taken == [*numbers(2), {"n": 4}]
    assert balanced(pool).targets["b"].accepted == 3


def test_wait_for_result_false_waits_for_nothing() -> None:
    # Given: a member that hangs
    member = Target(name="a", timeout=0)
    member.gate.clear()
    pool = ExporterPool([member], wait_for_result=False, timeout=0)

    # When
    began = time.monotonic()
    results = list(pool.send({"n": 0}))
    seconds = time.monotonic() - began

    # Then: it is not a success, and not lost
    assert seconds < SOON
    assert results == [ExportResult(None, False)]
    assert pool.has_unsent_data()
    member.gate.set()
    assert pool.flush(PATIENCE).complete
    assert member.taken == numbers(1)


def test_num_threads_are_there_with_the_first_batch() -> None:
    # Given
    pool = ExporterPool([Target(name="a")], num_threads=3, name="threads")

    # When
    pool.send({"n": 0}).result(PATIENCE)

    # Then
    assert sum(thread.name.startswith("threads-worker") for thread in threading.enumerate()) == 3


def test_anything_with_send_and_has_unsent_data_is_a_member() -> None:
    # Given
    class Foreign:
        def __init__(self) -> None:
            self.got: list[Any] = []

        def send(self, data: Any, **options: Any) -> tuple[str, bool]:
            self.got.append((data, options))
            return ("id", len(self.got) > 1)

        def has_unsent_data(self) -> bool:
            return False

    foreign = Foreign()
    pool = ExporterPool([foreign], retry=0)

    # When: its first answer is "not successful"
    receipt = pool.send({"n": 1}, urgent=True)

    # Then
    assert receipt.result(PATIENCE) == ExportResult("id", True)
    assert foreign.got == [({"n": 1}, {"urgent": True})] * 2


@pytest.mark.parametrize("strange", [5, "text", object(), None])
def test_anything_else_is_no_member(strange: Any) -> None:
    with pytest.raises(InvalidConfigError, match="no exporter"):
        ExporterPool([strange])


def test_options_of_the_pool_hold_for_members_that_were_not_given_them() -> None:
    # Given
    a = Target(name="a", batch_records=2)
    b = Target(name="b")
    pool = ExporterPool([a, b], batch_records=5)
    a.gate.clear()
    b.gate.clear()
    pool.send("first")
    a.entered()
    b.entered()
    pool.send(numbers(20))

    # When
    a.gate.set()
    b.gate.set()
    assert pool.flush(PATIENCE).complete

    # Then
    assert max(map(len, a.batches)) == 2
    assert max(map(len, b.batches)) == 5


def test_a_rejecting_member_says_so_in_the_receipt_only_for_itself() -> None:
    # Given
    a, b = Target(RejectedError("no such column"), name="a"), Target(name="b")
    pool = ExporterPool([a, b])

    # When
    receipt = pool.send({"n": 1})

    # Then
    assert not receipt.result(PATIENCE).successful
    assert receipt.targets == {"a": ExportResult(None, False), "b": ExportResult(None, True)}
    assert "no such column" in receipt.reason
