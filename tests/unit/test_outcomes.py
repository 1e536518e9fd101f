"""Outcomes: what a target may answer, and what follows for the record, the batch and the target."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import tenacity

from resilient_exporters import (
    Batch,
    DataTypeError,
    Delivered,
    ExporterPool,
    ExportResult,
    Full,
    Hold,
    HoldError,
    InvalidConfigError,
    MissingConfigError,
    Reject,
    RejectedError,
    Retry,
    RetryableError,
    RetryPolicy,
    Split,
)
from resilient_exporters.delivery.bisection import ALONE
from tests.targets import PATIENCE, SOON, FakeClock, Target, balanced, numbers, until


def waits(event: threading.Event) -> None:
    """Hang until someone lets go."""
    event.wait()


def in_one_batch(exporter: Target, records: list[Any]) -> Any:
    """Send records so that they are given to the target as one batch, behind one that is delivered alone."""
    exporter.gate.clear()
    answer, exporter.answer = exporter.answer, None
    exporter.send("first")
    exporter.entered()
    receipt = exporter.send(records)
    exporter._open().queue.seal()

    def after_the_first(batch: Batch) -> Any:
        if batch[0].data == "first":
            return None
        return answer(batch) if callable(answer) else answer

    exporter.answer = after_the_first
    exporter.gate.set()
    return receipt


def poison(*bad: int, error: Callable[[], BaseException] = lambda: ValueError("bad value")) -> Callable[[Batch], Any]:
    """Fails whenever one of ``bad`` is in the batch."""
    return lambda batch: error() if any(record.data["n"] in bad for record in batch) else None


@pytest.mark.parametrize("where", [0, 1, 255, 256, 300])
def test_a_poison_record_is_found_in_logarithmic_calls(where: int) -> None:
    # Given
    exporter = Target(poison(where))

    # When
    receipt = in_one_batch(exporter, numbers(500))
    exporter.send({"n": 500})  # the proof, where the poison is the last of them

    # Then: the rest is delivered, in order, and each failing batch was half of the one before
    assert receipt.result(PATIENCE).successful is False
    assert exporter.flush(PATIENCE).complete
    assert exporter.taken == ["first", *(record for record in numbers(501) if record["n"] != where)]
    letters = list(exporter.dead_letters())
    assert [letter.data for letter in letters] == [{"n": where}]
    assert "bad value" in letters[0].reason
    failing = [len(batch) for batch in exporter.batches[1:] if {"n": where} in batch]
    assert failing[0] == 500
    assert failing.count(1) == 5
    assert len(failing) <= 1 + 9 + 5
    assert len(exporter.batches) <= 1 + 2 * 9 + 5 + 8
    assert balanced(exporter).targets["target"].dead == 1


def test_rejected_records_are_found_in_logarithmic_calls_and_die_at_once() -> None:
    # Given
    bad = (3, 77, 490)
    exporter = Target(poison(*bad, error=lambda: RejectedError("no such column")))

    # When
    receipt = in_one_batch(exporter, numbers(500))

    # Then
    assert receipt.result(PATIENCE).successful is False
    assert exporter.taken[1:] == [record for record in numbers(500) if record["n"] not in bad]
    assert sorted(letter.data["n"] for letter in exporter.dead_letters()) == list(bad)
    assert all(sum(batch == [{"n": n}] for batch in exporter.batches) == 1 for n in bad)
    assert len(exporter.batches) <= 1 + len(bad) * 2 * 10


def test_a_data_type_error_rejects_too() -> None:
    exporter = Target(DataTypeError("a text where a number belongs"))
    receipt = exporter.send({"n": "x"})
    assert receipt.result(PATIENCE) == ExportResult(None, False)
    assert receipt.reason == "DataTypeError: a text where a number belongs"
    assert len(exporter.batches) == 1


def test_split_halves_until_it_fits() -> None:
    # Given: a target that takes 60 records at most
    exporter = Target(lambda batch: Split() if len(batch) > 60 else None)

    # When
    receipt = in_one_batch(exporter, numbers(500))

    # Then
    assert receipt.result(PATIENCE).successful
    assert exporter.taken == ["first", *numbers(500)]
    sizes = [len(batch) for batch in exporter.batches[1:]]
    assert sizes[:4] == [500, 250, 125, 62]
    assert sum(size > 60 for size in sizes) < 12
    assert balanced(exporter).targets["target"].state == "closed"


def test_a_record_too_large_alone_is_a_dead_letter() -> None:
    # Given
    exporter = Target(lambda batch: Split("413") if any(record.data["n"] == 2 for record in batch) else None)

    # When
    receipt = in_one_batch(exporter, numbers(5))

    # Then
    assert receipt.result(PATIENCE).successful is False
    assert [(letter.data["n"], letter.reason) for letter in exporter.dead_letters()] == [(2, "413")]
    assert [record["n"] for record in exporter.taken[1:]] == [0, 1, 3, 4]


def test_one_record_too_large_does_not_make_all_later_batches_small() -> None:
    # Given: a body that is too large because of one record
    exporter = Target(lambda batch: Split("413") if any(record.data["n"] == 100 for record in batch) else None)

    # When
    in_one_batch(exporter, numbers(500)).result(PATIENCE)
    exporter.gate.clear()
    exporter.send({"n": 500})
    exporter.send(numbers(1500, 501))
    exporter.gate.set()
    assert exporter.flush(PATIENCE).complete

    # Then
    assert len(exporter.taken) == 2001
    assert len(exporter.batches) < 60


def test_one_outcome_for_each_record() -> None:
    # Given
    answers = {
        0: None,
        1: Delivered("id-1"),
        2: Reject("too old"),
        3: Full("no room"),
        4: RejectedError("by class"),
        5: None,
    }
    exporter = Target(lambda batch: [answers[record.data["n"]] for record in batch])

    # When
    receipt = in_one_batch(exporter, numbers(6))

    # Then
    result = receipt.result(PATIENCE)
    assert result == ExportResult([None, "id-1", None, None, None, None], False)
    assert [record["n"] for record in exporter.taken[1:]] == [0, 1, 5]
    assert [(letter.data["n"], letter.reason) for letter in exporter.dead_letters()] == [
        (2, "too old"), (4, "RejectedError: by class")
    ]  # fmt: skip
    target = balanced(exporter).targets["target"]
    assert (target.delivered, target.dropped, target.dead) == (4, {"full": 1}, 2)
    assert len(exporter.batches) == 2


def test_retry_of_some_records_repeats_only_those() -> None:
    # Given
    seen: list[list[int]] = []

    def answer(batch: Batch) -> Any:
        seen.append([record.data["n"] for record in batch])
        return [Retry() if record.data["n"] % 2 and len(seen) == 1 else None for record in batch]

    exporter = Target(answer)

    # When
    receipt = in_one_batch(exporter, numbers(6))

    # Then
    assert receipt.result(PATIENCE).successful
    assert seen[0] == [0, 1, 2, 3, 4, 5]
    assert sorted(n for batch in seen[1:] for n in batch) == [1, 3, 5]
    assert sorted(exporter.ids) == sorted(set(exporter.ids))


def test_an_outage_with_unclear_errors_never_dead_letters() -> None:
    # Given: everything fails, with an error that says nothing, hundreds of times
    attempts = 0

    def answer(_: Batch) -> Any:
        nonlocal attempts
        attempts += 1
        return RuntimeError("something is wrong") if attempts < 300 else None

    exporter = Target(answer)

    # When
    receipt = exporter.send(numbers(20))

    # Then
    assert receipt.result(PATIENCE).successful
    assert attempts >= 300
    assert exporter.taken == numbers(20)
    assert list(exporter.dead_letters()) == []


def test_a_lone_record_with_unclear_errors_waits_for_proof() -> None:
    # Given: nothing else is there that the target could take
    attempts = threading.Semaphore(0)

    def answer(batch: Batch) -> Any:
        attempts.release()
        return ValueError("bad") if batch[0].data == {"n": 0} else None

    exporter = Target(answer, retry=0.001)
    receipt = exporter.send({"n": 0})
    for _ in range(12):
        assert attempts.acquire(timeout=PATIENCE)
    assert not receipt.done()

    # When: the target takes another
    proof = exporter.send({"n": 1})

    # Then
    assert proof.result(PATIENCE).successful
    assert receipt.result(PATIENCE).successful is False
    [letter] = exporter.dead_letters()
    assert letter.data == {"n": 0}
    assert letter.attempts >= 5


def test_poison_does_not_stop_those_behind_it() -> None:
    # Given: every tenth is poison
    exporter = Target(lambda batch: ValueError("bad") if any(record.data["n"] % 10 == 3 for record in batch) else None)

    # When
    in_one_batch(exporter, numbers(100)).result(PATIENCE)

    # Then
    assert [record["n"] for record in exporter.taken[1:]] != []
    assert sorted(record["n"] for record in exporter.taken[1:]) == [n for n in range(100) if n % 10 != 3]
    assert sorted(letter.data["n"] for letter in exporter.dead_letters()) == [n for n in range(100) if n % 10 == 3]


def test_poison_among_records_that_are_taken_does_not_cost_the_waits_of_an_outage() -> None:
    # Given a policy that writes down for which failure in a row it is asked
    asked: list[int] = []

    def wait(state: tenacity.RetryCallState) -> float:
        asked.append(state.attempt_number)
        return 0.0

    exporter = Target(
        lambda batch: ValueError("bad") if any(record.data["n"] == 60 for record in batch) else None,
        retry=RetryPolicy(wait),
    )

    # When
    in_one_batch(exporter, numbers(100)).result(PATIENCE)

    # Then each of its failures alone is followed by the shortest wait
    assert [letter.data["n"] for letter in exporter.dead_letters()] == [60]
    assert asked == [1] * (ALONE - 1)


def test_a_target_that_goes_in_the_middle_of_a_search_is_spared() -> None:
    # Given a target that takes the first half of a batch that failed, and then nothing more
    asked: list[int] = []

    def wait(state: tenacity.RetryCallState) -> float:
        asked.append(state.attempt_number)
        return 3600.0 if len(asked) == 3 * ALONE else 0.0

    halves = iter([ValueError("hiccup"), None])
    exporter = Target(lambda _: next(halves, ValueError("down")), retry=RetryPolicy(wait))

    # When
    in_one_batch(exporter, numbers(8))
    until(exporter, lambda _: len(asked) == 3 * ALONE)

    # Then a few quick attempts are made, and from then on the waits grow
    assert asked[: ALONE - 1] == [1] * (ALONE - 1)
    assert asked[ALONE - 1 :] == sorted(asked[ALONE - 1 :])
    assert asked[-1] > ALONE, asked
    assert list(exporter.dead_letters()) == []


@pytest.mark.parametrize(
    "answer",
    [
        Hold("wrong password"),
        HoldError("wrong password"),
        MissingConfigError("wrong password"),
        InvalidConfigError("wrong password"),
    ],
)
def test_hold_waits_for_someone_and_loses_nothing(answer: Any) -> None:
    # Given
    clock = FakeClock()
    exporter = Target(answer, clock=clock)
    receipt = exporter.send(numbers(3))
    tuple(receipt)

    # Then: said, and not hammered
    target = exporter.stats().targets["target"]
    assert target.state == "held"
    assert "wrong password" in target.last_error
    exporter.entered()
    clock.advance(59)
    assert not exporter.inside.acquire(timeout=0.1)

    # When: someone mends it
    exporter.answer = None
    clock.advance(2)

    # Then
    assert receipt.result(None).successful
    assert exporter.taken == numbers(3)


@pytest.mark.parametrize(
    "answer", [OSError("no route"), ConnectionError("refused"), TimeoutError("slow"), RetryableError("429"), Retry()]
)
def test_an_outage_waits_and_goes_on_where_it_stood(answer: Any) -> None:
    # Given
    exporter = Target(answer, retry=3600)
    receipt = exporter.send(numbers(3))
    assert not receipt.successful
    assert exporter.stats().targets["target"].state == "open"

    # When
    exporter.send(numbers(2, 3))
    exporter.answer = None
    assert exporter.flush(PATIENCE).complete

    # Then
    assert exporter.taken == numbers(5)
    target = balanced(exporter).targets["target"]
    assert (target.state, target.dead) == ("closed", 0)
    assert target.retries >= 1


def test_one_probe_after_an_outage_then_full_batches() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600, batch_records=100)
    exporter.send(numbers(100))
    for n in range(5):
        exporter.send(numbers(100, 100 * (n + 1)))
        exporter.flush()

    # When
    before = len(exporter.batches)
    exporter.answer = None
    assert exporter.flush(PATIENCE).complete

    # Then: small at first, and growing back
    sizes = [len(batch) for batch in exporter.batches[before:]]
    assert sizes[0] < 100
    assert sizes[-2] >= 50
    assert exporter.taken == numbers(600)


def test_the_policys_stop_makes_dead_letters() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=RetryPolicy(wait=0, stop=4))

    # When
    receipt = exporter.send(numbers(2))

    # Then
    assert receipt.result(PATIENCE).successful is False
    assert "given up after 4 attempts" in receipt.reason
    assert [letter.attempts for letter in exporter.dead_letters()] == [4, 4]
    assert 4 <= len(exporter.batches) <= 8


@pytest.mark.parametrize("answer", ["text", 5, [None] * 3, [7, 7], {"a": 1}, (None, None, None)])
def test_an_answer_that_is_none_is_unclear(answer: Any) -> None:
    # Given: two records
    exporter = Target(retry=3600)
    exporter.export = lambda _: answer  # type: ignore[method-assign,assignment] # one answer each

    # When
    receipt = exporter.send(numbers(2))

    # Then: nothing is taken for delivered
    assert not receipt.successful
    assert balanced(exporter).targets["target"].delivered == 0
    assert exporter.flush(PATIENCE).pending == 2


def test_an_export_that_is_not_there_says_so() -> None:
    # Given
    from resilient_exporters import Exporter

    exporter = Exporter(name="bare", retry=3600)

    # When
    assert not exporter.send({"n": 0}).successful

    # Then
    assert "must define export" in exporter.stats().targets["bare"].last_error


# -- timeouts ------------------------------------------------------------------------------------------------------


def test_a_call_that_hangs_is_abandoned_and_counted() -> None:
    # Given: the first call hangs
    clock, stuck = FakeClock(), threading.Event()
    calls = 0

    def answer(_: Batch) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            stuck.wait()

    exporter = Target(answer, timeout=5, linger=0, clock=clock)

    # When
    receipt = exporter.send({"n": 0})
    exporter.entered()
    clock.advance(5)

    # Then
    assert receipt.result(None).successful
    target = exporter.stats().targets["target"]
    assert (target.hung, target.delivered) == (1, 1)
    assert "no answer within 5 s" in target.last_error
    assert exporter.seen[1].redelivered

    # When: it comes back, it changes nothing
    stuck.set()
    exporter.send({"n": 1}).result(None)
    assert balanced(exporter).targets["target"].delivered == 2


def test_hanging_calls_are_bounded_in_number() -> None:
    # Given
    clock, stuck = FakeClock(), threading.Event()
    exporter = Target(lambda _: waits(stuck), timeout=5, linger=0, clock=clock)
    threads = threading.active_count()

    # When: it hangs, and hangs
    exporter.send(numbers(3))
    for _ in range(4):
        exporter.entered()
        clock.advance(5)
    report = exporter.flush(None)

    # Then
    assert not report.complete
    target = balanced(exporter).targets["target"]
    assert target.hung == 4
    assert target.pending == 3
    assert threading.active_count() <= threads + 2 + 5
    assert not exporter.inside.acquire(timeout=0.1)

    # When: they come back
    stuck.set()

    # Then
    until(exporter, lambda stats: stats.targets["target"].hung == 0)
    assert exporter.flush(None).complete
    assert {record["n"] for record in exporter.taken} == {0, 1, 2}


def test_a_hanging_target_does_not_hold_up_the_others_or_the_end() -> None:
    # Given
    stuck, fine = Target(name="stuck", timeout=0), Target(name="fine")
    stuck.gate.clear()
    pool = ExporterPool([stuck, fine])

    # When
    for record in numbers(50):
        pool.send(record)
    stuck.entered()

    # Then
    until(pool, lambda stats: stats.targets["fine"].delivered == 50)
    assert fine.taken == numbers(50)
    began = time.monotonic()
    report = pool.close(0.1)
    assert time.monotonic() - began < SOON
    assert report.pending == 50
    stuck.gate.set()


def test_a_connect_that_hangs_is_abandoned_too() -> None:
    # Given
    clock, connecting, stuck = FakeClock(), threading.Event(), threading.Event()

    class Slow(Target):
        def connect(self) -> None:
            super().connect()
            if self.connects == 1:
                connecting.set()
                stuck.wait()

    exporter = Slow(timeout=5, linger=0, clock=clock)

    # When
    receipt = exporter.send({"n": 0})
    assert connecting.wait(PATIENCE)
    clock.advance(5)

    # Then
    assert receipt.result(None).successful
    assert exporter.connects == 2
    stuck.set()


def test_a_subclass_extends_the_tables() -> None:
    # Given
    class Busy(Exception): ...

    class Wrong(Exception): ...

    class Closed(Exception): ...

    class Own(Target):
        retryable = (*Target.retryable, Busy)
        rejected = (*Target.rejected, Wrong)
        held = (*Target.held, Closed)

    # When / Then
    for error, state in ((Busy(), "open"), (Closed(), "held")):
        exporter = Own(error, retry=3600)
        tuple(exporter.send({"n": 0}))
        assert exporter.stats().targets["target"].state == state
    exporter = Own(Wrong("no"), name="rejects")
    assert exporter.send({"n": 0}).result(PATIENCE).successful is False
    assert exporter.stats().targets["rejects"].dead == 1
