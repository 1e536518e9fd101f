"""Many threads at once: nothing is lost, nothing is doubled, each thread's records stay in order."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from resilient_exporters import ClosedError, ExporterPool
from tests.targets import PATIENCE, Target, balanced, numbers


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    """Let threads change places as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def in_threads(count: int, work: Callable[[int], object]) -> None:
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert failures == []
    assert not any(thread.is_alive() for thread in threads)


def test_many_senders() -> None:
    # Given
    exporter = Target()

    # When
    in_threads(8, lambda thread: [exporter.send({"thread": thread, "n": n}) for n in range(500)])
    assert exporter.flush(PATIENCE).complete

    # Then
    assert len(exporter.taken) == 4000
    for thread in range(8):
        assert [record["n"] for record in exporter.taken if record["thread"] == thread] == list(range(500))
    assert exporter.ids == sorted(exporter.ids, key=lambda one: int(one.split("-")[1]))
    assert balanced(exporter).targets["target"].delivered == 4000


def test_many_senders_to_a_pool_with_a_flaky_member() -> None:
    # Given: the original's case, 4 threads x 200 sends x 20 members
    dice = random.Random(4)
    flaky = Target(lambda _: ConnectionError("cut") if dice.random() < 0.5 else None, name="flaky")
    members = [Target(name=f"t{n}") for n in range(19)]
    pool = ExporterPool([*members, flaky], num_threads=4)

    # When
    in_threads(4, lambda thread: [pool.send({"thread": thread, "n": n}) for n in range(200)])
    while not pool.flush(PATIENCE).complete:
        pass

    # Then
    for member in [*members, flaky]:
        assert len(member.taken) == 800
        for thread in range(4):
            assert [record["n"] for record in member.taken if record["thread"] == thread] == list(range(200))
    balanced(pool)


@pytest.mark.parametrize("loss_window", [0.0, 0.01])
def test_many_senders_with_saving(loss_window: float) -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600, loss_window=loss_window, name="saved")

    # When
    in_threads(6, lambda thread: [exporter.send({"thread": thread, "n": n}) for n in range(100)])

    # Then
    assert balanced(exporter).pending == 600
    if loss_window == 0:
        assert exporter.stats().written_bytes > 0
    exporter.close(0)
    later = Target(name="saved")
    assert later.flush(PATIENCE).complete
    assert len(later.taken) == 600


def test_senders_and_everything_else_at_once() -> None:
    # Given
    dice = random.Random(5)
    exporter = Target(
        lambda _: random.choice([None, None, ConnectionError("cut"), ValueError("?")]),
        max_memory="128 kB", max_disk="2 MB", on_full="block", batch_records=20, loss_window=0.01,
    )  # fmt: skip
    stop = threading.Event()

    def work(thread: int) -> None:
        if thread < 4:
            for n in range(300):
                exporter.send({"thread": thread, "n": n, "pad": "x" * dice.randrange(500)})
            if thread == 0:
                stop.set()
        while thread >= 4 and not stop.is_set():
            if thread == 4:
                balanced(exporter)
            elif thread == 5:
                exporter.flush(0.01)
            elif thread == 6:
                exporter.save(0.01)
            else:
                list(exporter.dead_letters())
                exporter.has_unsent_data()

    # When
    in_threads(8, work)
    exporter.answer = None
    assert exporter.flush(PATIENCE).complete

    # Then
    target = balanced(exporter).targets["target"]
    assert target.accepted == 1200
    assert target.delivered == len(exporter.taken)
    assert target.delivered + target.dead == 1200
    assert len(set(exporter.ids)) == len(exporter.ids)


def test_closing_while_others_send_loses_nothing_that_was_accepted() -> None:
    # Given
    exporter = Target(name="closing")
    accepted: list[list[int]] = [[] for _ in range(4)]
    started = threading.Barrier(5)

    def work(thread: int) -> None:
        started.wait(PATIENCE)
        try:
            for n in range(100_000):
                exporter.send({"thread": thread, "n": n})
                accepted[thread].append(n)
        except ClosedError:
            return

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()

    # When
    started.wait(PATIENCE)
    exporter.entered()
    report = exporter.close()
    for thread in threads:
        thread.join(PATIENCE)

    # Then
    assert report.lost == 0
    later = Target(name="closing")
    assert later.flush(PATIENCE).complete
    for number in range(4):
        got = [record["n"] for record in [*exporter.taken, *later.taken] if record["thread"] == number]
        assert got == accepted[number]


def test_members_join_while_others_send() -> None:
    # Given
    pool = ExporterPool([Target(name="first")])
    members = [Target(name=f"late{n}") for n in range(6)]

    def work(thread: int) -> None:
        if thread == 0:
            for member in members:
                pool.add_exporter(member)
        else:
            for n in range(300):
                pool.send({"n": n})

    # When
    in_threads(4, work)
    pool.send({"n": -1})
    assert pool.flush(PATIENCE).complete

    # Then
    stats = balanced(pool)
    assert stats.targets["first"].delivered == 901
    for member in members:
        assert member.taken[-1] == {"n": -1}
        assert stats.targets[member.name].delivered == len(member.taken)


def test_the_first_sends_of_many_threads_open_one_queue() -> None:
    # Given
    exporter = Target(name="one")
    barrier = threading.Barrier(10)

    def work(thread: int) -> None:
        barrier.wait(PATIENCE)
        exporter.send({"n": thread})

    # When
    in_threads(10, work)
    assert exporter.flush(PATIENCE).complete

    # Then
    assert sorted(record["n"] for record in exporter.taken) == list(range(10))
    assert exporter.directory is not None
    assert not exporter.directory.with_name(exporter.directory.name + ".2").exists()


def test_many_tasks_await_their_receipts() -> None:
    # Given
    exporter = Target()

    async def one(n: int) -> bool:
        result = await exporter.send({"n": n})
        return result.successful

    async def main() -> list[bool]:
        return await asyncio.gather(*(one(n) for n in range(500)))

    # When / Then
    assert asyncio.run(main()) == [True] * 500
    assert sorted(record["n"] for record in exporter.taken) == list(range(500))


def test_replaying_while_others_send() -> None:
    # Given
    from resilient_exporters import RejectedError

    exporter = Target(lambda batch: [RejectedError("odd") if record.data["n"] % 2 else None for record in batch])
    exporter.send(numbers(100))
    assert exporter.flush(PATIENCE).complete
    exporter.answer = None

    def work(thread: int) -> None:
        if thread:
            for n in range(100):
                exporter.send({"n": 1000 + n})
        else:
            exporter.replay()

    # When
    in_threads(4, work)
    assert exporter.flush(PATIENCE).complete

    # Then
    target = balanced(exporter).targets["target"]
    assert (target.delivered, target.dead) == (400, 0)
    assert len(set(exporter.ids)) == 400
