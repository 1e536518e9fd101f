"""Dead letters: durable, bounded, listed, replayed, discarded."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters import Batch, ExporterPool, Receipt, RejectedError
from resilient_exporters.delivery.spool import Spool, SpoolUnavailable
from tests.targets import PATIENCE, FakeClock, Target, balanced, numbers


def refused(exporter: Target | ExporterPool, count: int, **options: Any) -> list[Receipt]:
    receipts = [exporter.send(record, **options) for record in numbers(count)]
    for receipt in receipts:
        receipt.result(PATIENCE)
    return receipts


def test_a_letter_says_what_why_and_when() -> None:
    # Given
    clock = FakeClock(time=1.7e9)
    exporter = Target(RejectedError("no such column"), clock=clock)

    # When
    receipt = exporter.send({"n": 0}, table="readings")
    receipt.result(None)

    # Then
    [letter] = exporter.dead_letters()
    assert letter.id == receipt.id
    assert letter.data == {"n": 0}
    assert letter.options == {"table": "readings"}
    assert letter.target == "target"
    assert letter.reason == "RejectedError: no such column"
    assert letter.attempts == 1
    assert letter.time == 1.7e9


def test_letters_are_there_after_a_restart() -> None:
    # Given
    exporter = Target(RejectedError("no"), name="letters")
    receipts = refused(exporter, 3)
    exporter.close()

    # When
    later = Target(name="letters")

    # Then
    assert [letter.id for letter in later.dead_letters()] == [receipt.id for receipt in receipts]
    assert balanced(later).targets["letters"].dead == 3


def test_a_letter_that_is_damaged_on_disk_is_not_replayed_and_counts(tmp_path: Path) -> None:
    # Given three letters, of which a byte of one is changed on disk
    exporter = Target(RejectedError("no"), directory=tmp_path / "queue")
    refused(exporter, 3)
    exporter.close()
    with closing(sqlite3.connect(tmp_path / "queue" / "cache.db")) as database:
        rows = database.execute("SELECT rowid, value FROM Cache WHERE key <= -1000").fetchall()
        damaged = [(value.replace(b"\xa1n\x01", b"\xa1n\x09"), rowid) for rowid, value in rows]
        assert damaged != [(value, rowid) for rowid, value in rows]
        database.executemany("UPDATE Cache SET value = ? WHERE rowid = ?", damaged)
        database.commit()

    # When
    later = Target(directory=tmp_path / "queue")

    # Then
    assert [letter.data for letter in later.dead_letters()] == [{"n": 0}, {"n": 2}]
    figures = balanced(later).targets["target"]
    assert (figures.dead, figures.dropped) == (2, {"corrupt": 1})
    later.replay()
    assert later.flush(PATIENCE).complete
    assert later.taken == [{"n": 0}, {"n": 2}]


def test_letters_are_bounded_and_the_oldest_go() -> None:
    # Given
    exporter = Target(RejectedError("no"), max_dead=10)

    # When
    refused(exporter, 25)

    # Then
    assert [letter.data["n"] for letter in exporter.dead_letters()] == list(range(15, 25))
    target = balanced(exporter).targets["target"]
    assert (target.dead, target.dropped) == (10, {"dead_overflow": 15})


def test_no_letters_at_all() -> None:
    exporter = Target(RejectedError("no"), max_dead=0)
    refused(exporter, 3)
    assert list(exporter.dead_letters()) == []
    target = balanced(exporter).targets["target"]
    assert (target.dead, target.dropped) == (0, {"dead_overflow": 3})


def test_replay_sends_again_under_the_same_id() -> None:
    # Given
    exporter = Target(RejectedError("no"))
    receipts = refused(exporter, 3, table="t")
    exporter.answer = None
    exporter.seen.clear()

    # When
    count = exporter.replay()
    assert exporter.flush(PATIENCE).complete

    # Then
    assert count == 3
    assert exporter.ids == [receipt.id for receipt in receipts]
    assert exporter.taken == numbers(3)
    assert [record.options for batch in exporter.seen for record in batch] == [{"table": "t"}] * 3
    assert list(exporter.dead_letters()) == []
    target = balanced(exporter).targets["target"]
    assert (target.accepted, target.delivered, target.dead) == (3, 3, 0)


def test_replay_of_some_by_id() -> None:
    # Given
    exporter = Target(RejectedError("no"))
    receipts = refused(exporter, 4)
    exporter.answer = None

    # When
    count = exporter.replay(str(receipts[1].id), str(receipts[3].id), "no-such-id")
    assert exporter.flush(PATIENCE).complete

    # Then
    assert count == 2
    assert exporter.taken == [{"n": 1}, {"n": 3}]
    assert [letter.data["n"] for letter in exporter.dead_letters()] == [0, 2]


def test_what_is_refused_again_is_a_letter_again() -> None:
    # Given
    exporter = Target(RejectedError("no"))
    [receipt] = refused(exporter, 1)

    # When
    for _ in range(3):
        assert exporter.replay() == 1
        assert exporter.flush(PATIENCE).complete

    # Then
    [letter] = exporter.dead_letters()
    assert letter.id == receipt.id
    assert balanced(exporter).targets["target"].dead == 1


def test_replay_goes_only_to_the_target_that_refused() -> None:
    # Given
    a, b = Target(name="a"), Target(RejectedError("no"), name="b")
    pool = ExporterPool([a, b])
    refused(pool, 2)
    assert a.taken == numbers(2)
    b.answer = None

    # When
    assert pool.replay() == 2
    assert pool.flush(PATIENCE).complete

    # Then
    assert a.taken == numbers(2)
    assert b.taken == numbers(2)
    assert b.ids == a.ids
    stats = balanced(pool)
    assert (stats.targets["a"].accepted, stats.targets["b"].accepted) == (2, 2)


def test_a_record_refused_by_two_targets_is_two_letters() -> None:
    # Given
    a, b = Target(RejectedError("a says no"), name="a"), Target(RejectedError("b says no"), name="b")
    pool = ExporterPool([a, b])
    [receipt] = refused(pool, 1)

    # Then
    assert sorted((letter.id, letter.target) for letter in pool.dead_letters()) == [
        (receipt.id, "a"),
        (receipt.id, "b"),
    ]
    a.answer = None
    assert pool.replay() == 2
    assert pool.flush(PATIENCE).complete
    assert a.taken == numbers(1)
    assert [letter.target for letter in pool.dead_letters()] == ["b"]
    balanced(pool)


def test_a_replay_survives_a_restart() -> None:
    # Given
    exporter = Target(RejectedError("no"), name="replayed", retry=3600)
    receipts = refused(exporter, 2)
    exporter.answer = ConnectionError("down")
    assert exporter.replay() == 2
    exporter.flush()
    exporter.close(0)

    # When
    later = Target(name="replayed")
    assert later.flush(PATIENCE).complete

    # Then
    assert later.ids == [receipt.id for receipt in receipts]
    assert later.taken == numbers(2)
    balanced(later)


def test_a_power_cut_after_a_replay_takes_nothing(tmp_path: Path) -> None:
    # Given two letters, queued again for a target that is away, with a save a long time off
    exporter = Target(RejectedError("no"), retry=3600, loss_window=3600)
    receipts = refused(exporter, 2)
    exporter.answer = ConnectionError("down")
    assert exporter.replay() == 2

    # When what is on disk is opened elsewhere, without the memory
    assert exporter.directory is not None
    shutil.copytree(exporter.directory, tmp_path / "after the cut")
    later = Target(directory=tmp_path / "after the cut")
    assert later.flush(PATIENCE).complete

    # Then each is there once, as a record
    assert later.ids == [receipt.id for receipt in receipts]
    assert list(later.dead_letters()) == []
    balanced(later)


def test_a_replay_that_the_disk_refuses_leaves_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given two letters and a disk that fails
    exporter = Target(RejectedError("no"), retry=3600)
    receipts = refused(exporter, 2)
    exporter.answer = None
    write = Spool.write

    def failing(spool: Spool, puts: Mapping[int, bytes], deletes: Iterable[int] = ()) -> None:
        raise SpoolUnavailable("no space left")

    monkeypatch.setattr(Spool, "write", failing)

    # When
    with pytest.raises(SpoolUnavailable, match="dead letters cannot be queued again"):
        exporter.replay()

    # Then they are letters still
    monkeypatch.setattr(Spool, "write", write)
    assert [letter.id for letter in exporter.dead_letters()] == [receipt.id for receipt in receipts]
    target = balanced(exporter).targets["target"]
    assert (target.dead, target.pending, target.delivered) == (2, 0, 0)

    # And can be queued again once it works
    assert exporter.replay() == 2
    assert exporter.flush(PATIENCE).complete
    assert exporter.ids == [receipt.id for receipt in receipts]
    balanced(exporter)


def test_discarded_letters_count_as_dropped() -> None:
    # Given
    exporter = Target(RejectedError("no"))
    receipts = refused(exporter, 3)

    # When
    one = exporter.discard(str(receipts[0].id))
    rest = exporter.discard()

    # Then
    assert (one, rest) == (1, 2)
    assert list(exporter.dead_letters()) == []
    target = balanced(exporter).targets["target"]
    assert (target.dead, target.dropped) == (0, {"discarded": 3})


@pytest.mark.parametrize("policy", ["block", "raise", "drop_newest", "drop_oldest"])
def test_replay_into_a_full_queue_loses_nothing(policy: str) -> None:
    # Given: two letters, and no room
    exporter = Target(RejectedError("no"), retry=3600, max_records=2, on_full=policy, full_timeout=PATIENCE)
    refused(exporter, 2)
    exporter.answer = ConnectionError("down")
    exporter.send("a")
    tuple(exporter.send("b"))

    # When
    assert exporter.replay() == 2
    exporter.answer = None
    assert exporter.flush(PATIENCE).complete

    # Then
    target = balanced(exporter).targets["target"]
    assert target.accepted == 4
    if policy != "drop_oldest":
        assert target.dropped == {}
        assert sorted(map(str, exporter.taken)) == sorted(["a", "b", "{'n': 0}", "{'n': 1}"])


def test_letters_without_a_disk_wait_in_memory() -> None:
    # Given
    exporter = Target(RejectedError("no"), directory="/proc/nowhere")

    # When
    receipt = exporter.send({"n": 0})

    # Then: whatever becomes of it, it is not lost and nobody hangs
    exporter.flush(0.2)
    target = balanced(exporter).targets["target"]
    assert target.dead + target.pending == 1
    assert receipt.id is not None
    exporter.close(0)


def test_many_letters_of_one_batch() -> None:
    # Given
    def answer(batch: Batch) -> Any:
        return [RejectedError("odd") if record.data["n"] % 2 else None for record in batch]

    exporter = Target(answer)

    # When
    exporter.send(numbers(1000)).result(PATIENCE)

    # Then
    assert sorted(letter.data["n"] for letter in exporter.dead_letters()) == list(range(1, 1000, 2))
    assert balanced(exporter).targets["target"].dead == 500
