"""Receipts: a future for what was sent."""

from __future__ import annotations

import asyncio
import builtins
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from resilient_exporters import Delivered, ExportResult, RejectedError, TimeoutError
from tests.targets import PATIENCE, SOON, Target, numbers


def test_it_is_done_once_the_target_has_answered() -> None:
    # Given
    exporter = Target()
    exporter.gate.clear()

    # When
    receipt = exporter.send({"n": 0})
    exporter.entered()

    # Then
    assert not receipt.done()
    exporter.gate.set()
    assert receipt.result(PATIENCE).successful
    assert receipt.done()


def test_result_gives_up_after_its_timeout_and_the_record_still_waits() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600)
    receipt = exporter.send({"n": 0})

    # When
    with pytest.raises(TimeoutError, match="still waits") as caught:
        receipt.result(0.05)

    # Then
    assert str(receipt.id) in str(caught.value)
    assert isinstance(caught.value, builtins.TimeoutError)
    exporter.answer = None
    exporter.flush(PATIENCE)
    assert receipt.result(0) == ExportResult(None, True)


def test_it_reads_like_the_originals_result() -> None:
    # Given
    exporter = Target(lambda batch: [Delivered("made")] * len(batch))

    # When
    receipt = exporter.send({"n": 0})
    returned, successful = receipt

    # Then
    assert (returned, successful) == ("made", True)
    assert (receipt.returned, receipt.successful) == ("made", True)
    assert (receipt[0], receipt[1], len(receipt)) == ("made", True, 2)
    assert receipt


def test_unpacking_waits_for_the_first_attempt_only() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600)

    # When
    returned, successful = exporter.send({"n": 0})

    # Then
    assert (returned, successful) == (None, False)
    assert exporter.batches == [numbers(1)]


def test_unpacking_waits_at_most_the_timeout_of_the_exporter() -> None:
    # Given
    exporter = Target(timeout=0.05)
    exporter.gate.clear()

    # When
    began = time.monotonic()
    successful = exporter.send({"n": 0}).successful

    # Then
    assert not successful
    assert time.monotonic() - began < SOON
    exporter.gate.set()


def test_while_the_target_is_away_unpacking_does_not_wait() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600)
    assert not exporter.send({"n": 0}).successful

    # When / Then
    began = time.monotonic()
    assert not exporter.send({"n": 1}).successful
    assert time.monotonic() - began < SOON
    assert len(exporter.batches) == 1


def test_a_list_has_one_receipt() -> None:
    # Given
    exporter = Target(lambda batch: [Delivered(record.data["n"]) for record in batch])

    # When
    receipt = exporter.send(numbers(700))

    # Then: over more than one batch
    assert receipt.result(PATIENCE) == ExportResult(list(range(700)), True)
    assert receipt.id == exporter.ids[0]


def test_a_list_is_successful_only_if_all_of_it_is() -> None:
    # Given
    def answer(batch: list[Any]) -> object:
        return RejectedError("odd") if any(record.data["n"] == 3 for record in batch) else None

    exporter = Target(answer)

    # When
    receipt = exporter.send(numbers(5))

    # Then
    assert not receipt.result(PATIENCE).successful
    assert receipt.reason == "RejectedError: odd"
    assert sorted(record["n"] for record in exporter.taken) == [0, 1, 2, 4]


def test_a_dropped_record_says_why() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600, max_records=2, on_full="drop_newest")
    kept = [exporter.send({"n": n}) for n in range(2)]

    # When
    receipt = exporter.send({"n": 2})

    # Then
    assert receipt.id is None
    assert receipt.done()
    assert receipt.result(0) == ExportResult(None, False)
    assert receipt.reason == "overflow"
    assert tuple(receipt) == (None, False)
    assert not any(one.done() for one in kept)


def test_the_oldest_that_is_dropped_says_why() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600, max_records=2)
    receipts = [exporter.send({"n": n}) for n in range(3)]

    # Then
    assert receipts[0].result(PATIENCE) == ExportResult(None, False)
    assert receipts[0].reason == "overflow"
    assert [receipt.done() for receipt in receipts[1:]] == [False, False]


def test_many_threads_may_wait_for_one() -> None:
    # Given
    exporter = Target()
    exporter.gate.clear()
    receipt = exporter.send({"n": 0})
    results: list[ExportResult] = []
    threads = [threading.Thread(target=lambda: results.append(receipt.result(PATIENCE))) for _ in range(8)]
    for thread in threads:
        thread.start()

    # When
    exporter.gate.set()
    for thread in threads:
        thread.join(PATIENCE)

    # Then
    assert results == [ExportResult(None, True)] * 8


def test_it_can_be_awaited() -> None:
    # Given
    exporter = Target(lambda batch: [Delivered(record.data["n"]) for record in batch])

    async def main() -> list[ExportResult]:
        receipts = [exporter.send({"n": n}) for n in range(20)]
        return [await receipt for receipt in receipts]

    # When
    threads = threading.active_count()
    first = asyncio.run(main())
    second = asyncio.run(main())  # another loop

    # Then
    assert first == second == [ExportResult(n, True) for n in range(20)]
    assert threading.active_count() <= threads + 3


def test_awaiting_does_not_stop_the_loop() -> None:
    # Given
    exporter = Target()
    exporter.gate.clear()

    async def waits(receipt: object) -> ExportResult:
        return await receipt  # type: ignore[misc] # awaitable by design

    async def main() -> ExportResult:
        task = asyncio.ensure_future(waits(exporter.send({"n": 0})))
        await asyncio.sleep(0)
        assert not task.done()
        exporter.gate.set()
        return await asyncio.wait_for(task, PATIENCE)

    # When / Then
    assert asyncio.run(main()).successful


def test_an_await_can_be_cancelled() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600)

    async def waits(receipt: object) -> None:
        await receipt  # type: ignore[misc] # awaitable by design

    async def main() -> None:
        receipt = exporter.send({"n": 0})
        task = asyncio.ensure_future(waits(receipt))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    # When
    asyncio.run(main())

    # Then: nobody is told any more
    exporter.answer = None
    assert exporter.flush(PATIENCE).complete


def test_result_after_close_does_not_wait() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600)
    receipt = exporter.send({"n": 0})
    exporter.close(0)

    # When / Then
    with pytest.raises(TimeoutError):
        receipt.result(None)


def test_a_waiter_is_woken_by_close() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600)
    receipt = exporter.send({"n": 0})
    ended: list[str] = []

    def wait() -> None:
        with pytest.raises(TimeoutError):
            receipt.result(None)
        ended.append("ended")

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    tuple(receipt)

    # When
    exporter.close(0)

    # Then
    thread.join(PATIENCE)
    assert ended == ["ended"]


def test_an_awaiting_task_is_woken_by_close() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600)

    async def waits(receipt: object) -> str:
        try:
            await receipt  # type: ignore[misc] # awaitable by design
        except TimeoutError:
            return "told"
        return "settled"

    async def main() -> str:
        task = asyncio.ensure_future(waits(exporter.send({"n": 0})))
        await asyncio.sleep(0)
        await asyncio.to_thread(exporter.close, 0)
        done, _ = await asyncio.wait([task], timeout=3)
        if not done:
            task.cancel()
            return "hangs"
        return task.result()

    # When / Then
    assert asyncio.run(main()) == "told"


def test_a_receipt_nobody_looks_at_costs_no_thread_and_no_waiter() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600)
    tuple(exporter.send({"n": 0}))
    threads = threading.active_count()

    # When
    receipts = [exporter.send({"n": 1}) for _ in range(500)]

    # Then
    assert threading.active_count() == threads
    assert exporter._engine is not None
    assert exporter._engine.dispatcher._waiters == []
    assert not receipts[-1].done()


@pytest.mark.parametrize("ask", [lambda receipt: receipt.result(0), lambda receipt: receipt.result(-1)])
def test_result_without_patience(ask: Callable[..., object]) -> None:
    exporter = Target(ConnectionError("down"), retry=3600)
    with pytest.raises((TimeoutError, ValueError)):
        ask(exporter.send({"n": 0}))


def test_repr_names_the_record() -> None:
    exporter = Target()
    receipt = exporter.send({"n": 0})
    assert str(receipt.id) in repr(receipt)
    many = exporter.send(numbers(2))
    assert str(many.id) in repr(many)
