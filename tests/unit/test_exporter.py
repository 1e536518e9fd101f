"""The Exporter: what a program calls, and what a subclass is given."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters import (
    ClosedError,
    Delivered,
    EncodingError,
    Exporter,
    ExportResult,
    InvalidConfigError,
    TransformError,
)
from resilient_exporters.testing import eventually
from tests.targets import PATIENCE, SOON, FakeClock, Target, balanced, numbers


def test_constructing_opens_nothing(own_queues: Path) -> None:
    # Given
    threads = threading.active_count()

    # When
    exporter = Target(name="quiet")

    # Then
    assert exporter.directory is not None
    assert exporter.directory.is_relative_to(own_queues)
    assert not own_queues.exists()
    assert threading.active_count() == threads
    assert exporter.stats().accepted == 0
    assert exporter.close().delivered == 0
    assert not own_queues.exists()


def test_what_is_sent_arrives() -> None:
    # Given
    exporter = Target()

    # When
    receipt = exporter.send({"metric": 2})

    # Then
    assert receipt.result(PATIENCE) == ExportResult(None, True)
    assert exporter.taken == [{"metric": 2}]
    assert exporter.ids == [receipt.id]


def test_send_does_not_wait_for_a_target_that_hangs() -> None:
    # Given: a target in the middle of an endless call
    exporter = Target()
    exporter.gate.clear()
    exporter.send("first")
    exporter.entered()

    # When
    began = time.monotonic()
    receipts = [exporter.send(record) for record in numbers(1000)]
    seconds = time.monotonic() - began

    # Then
    assert seconds < SOON  # the call of the target lasts until we let it end
    assert not any(receipt.done() for receipt in receipts)
    exporter.gate.set()
    receipts[-1].result(PATIENCE)
    assert exporter.taken == ["first", *numbers(1000)]


def test_the_record_is_copied_at_once() -> None:
    # Given
    exporter = Target()
    exporter.gate.clear()
    record: dict[str, Any] = {"list": [1, 2], "deep": {"n": 1}}

    # When
    receipt = exporter.send(record)
    record["list"].append(3)
    record["deep"]["n"] = 2
    exporter.gate.set()

    # Then
    receipt.result(PATIENCE)
    assert exporter.taken == [{"list": [1, 2], "deep": {"n": 1}}]


@pytest.mark.parametrize(
    "data",
    [
        "text",
        b"bytes",
        7,
        2.5,
        True,
        ("a", 1),
        {"when": datetime(2024, 1, 2, 3, 4, 5, 6, timezone.utc)},
        {},
        "",
        b"",
        {1: {2: 3}},
    ],
)
def test_one_record_of_any_kind(data: Any) -> None:
    # Given
    exporter = Target()

    # When
    exporter.send(data).result(PATIENCE)

    # Then
    assert exporter.taken == [data]
    assert type(exporter.taken[0]) is type(data)


def test_a_list_is_many_records_and_a_tuple_is_one() -> None:
    # Given
    exporter = Target()

    # When
    listed = exporter.send(["value1", "value2"])
    row = exporter.send(("value1", "value2"))
    listed.result(PATIENCE)
    row.result(PATIENCE)

    # Then
    assert exporter.taken == ["value1", "value2", ("value1", "value2")]
    assert exporter.stats().accepted == 3


def test_a_list_with_one_bad_record_is_not_accepted_at_all() -> None:
    # Given
    exporter = Target()

    # When
    with pytest.raises(EncodingError):
        exporter.send([{"n": 1}, {"n": object()}])

    # Then
    exporter.send({"n": 2}).result(PATIENCE)
    assert exporter.taken == [{"n": 2}]


def test_ids_grow_and_are_the_same_at_every_attempt() -> None:
    # Given: a target that fails once after it has seen the batch
    exporter = Target([ConnectionError("cut")])
    seen: list[str] = []

    def answer(batch: Any) -> Any:
        seen.extend(record.id for record in batch)
        return ConnectionError("cut") if len(seen) == 1 else None

    exporter.answer = answer

    # When
    receipts = [exporter.send(record) for record in numbers(3)]
    for receipt in receipts:
        receipt.result(PATIENCE)

    # Then
    ids = [receipt.id for receipt in receipts]
    assert exporter.ids == ids
    assert seen[0] == ids[0]
    runs, offsets = zip(*(one.split("-") for one in ids if one), strict=True)
    assert len(set(runs)) == 1
    assert len(runs[0]) == 16
    assert [int(offset) for offset in offsets] == [0, 1, 2]


def test_options_go_with_their_record() -> None:
    # Given
    exporter = Target()
    exporter.gate.clear()

    # When
    exporter.send({"n": 0})
    exporter.send({"n": 1}, table="a", urgent=True)
    exporter.send([{"n": 2}, {"n": 3}], table="b")
    exporter.gate.set()
    assert exporter.flush(PATIENCE).complete

    # Then
    options = {record.data["n"]: record.options for batch in exporter.seen for record in batch}
    assert options == {0: {}, 1: {"table": "a", "urgent": True}, 2: {"table": "b"}, 3: {"table": "b"}}


def test_an_unknown_option_of_send_is_named() -> None:
    exporter = Target()
    with pytest.raises(InvalidConfigError, match=r"colour.*table, urgent"):
        exporter.send({"n": 1}, colour="red")
    assert exporter.stats().accepted == 0


def test_the_transform_runs_once_on_a_copy_in_the_callers_thread() -> None:
    # Given: the document's own transform, and a target that fails first
    calls: list[threading.Thread] = []

    def transform(data: Any) -> Any:
        calls.append(threading.current_thread())
        data["metric"] = (data["metric"] / 2) * 0.5
        return data

    failing = iter([ConnectionError("1"), RuntimeError("2")])
    exporter = Target(lambda _: next(failing, None), transform=transform)
    mydata = {"metric": 2}

    # When
    exporter.send(mydata).result(PATIENCE)

    # Then
    assert mydata == {"metric": 2}
    assert exporter.taken == [{"metric": 0.5}]
    assert calls == [threading.current_thread()]


def test_a_transform_may_take_text_and_give_another_type() -> None:
    exporter = Target(transform=lambda text: {"text": text})
    exporter.send(["a", "b"])
    assert exporter.flush(PATIENCE).complete
    assert exporter.taken == [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize("transform", [lambda _: None, lambda data: data["nothing there"]])
def test_a_transform_that_fails_queues_nothing(transform: Any) -> None:
    exporter = Target(transform=transform)
    with pytest.raises(TransformError):
        exporter.send({"a": 1})
    assert exporter.stats().accepted == 0


def test_the_transform_cannot_be_reassigned() -> None:
    exporter = Target(transform=lambda data: data)
    with pytest.raises(AttributeError):
        exporter.transform = None  # type: ignore[misc,assignment] # that is the point


def test_names_say_what_and_where() -> None:
    class Thermometer(Exporter):
        def address(self) -> str:
            return "attic"

    class Nameless(Exporter): ...

    assert Thermometer().name == "Thermometer:attic"
    assert Nameless().name == "Nameless"
    assert Nameless(name="mine").name == "mine"
    assert Thermometer().directory == Thermometer().directory
    assert Thermometer().directory != Nameless().directory


def test_use_memory_reads_back_and_can_be_set() -> None:
    # Given
    exporter = Target(use_memory=True)
    assert exporter.use_memory
    exporter.answer = ConnectionError("down")
    exporter.send({"n": 1})

    # When
    exporter.use_memory = False

    # Then: from now on it is saved, what waited too
    assert not exporter.use_memory
    assert exporter.save(PATIENCE)
    assert exporter.stats().disk_bytes > 0
    assert not Target(loss_window=1.0).use_memory
    assert not Target(use_memory=False).use_memory


def test_two_exporters_of_one_name_share_no_directory() -> None:
    # Given
    first, second = Target(name="twin"), Target(name="twin")

    # When
    first.send("a").result(PATIENCE)
    second.send("b").result(PATIENCE)

    # Then
    assert first.directory != second.directory
    assert (first.taken, second.taken) == (["a"], ["b"])


def test_with_closes() -> None:
    with Target() as exporter:
        exporter.send({"n": 1})
    with pytest.raises(ClosedError):
        exporter.send({"n": 2})
    assert exporter.taken == [{"n": 1}]


def test_unsent_data_by_the_originals_names() -> None:
    # Given
    exporter = Target(ConnectionError("down"), retry=3600)
    assert not exporter.has_unsent_data()
    exporter.send(numbers(3))

    # When / Then: it is down, then it is up
    assert exporter.has_unsent_data()
    assert exporter.send_unsent_data() == [ExportResult(None, False)] * 3
    exporter.answer = None
    assert exporter.send_unsent_data() == [ExportResult(None, True)] * 3
    assert not exporter.has_unsent_data()
    assert exporter.send_unsent_data() == []
    assert exporter.taken == numbers(3)


def test_manual_reexport_waits_to_be_asked() -> None:
    # Given
    exporter = Target(ConnectionError("down"), manual_reexport=True)
    assert exporter.manual_reexport
    assert tuple(exporter.send({"n": 0})) == (None, False)

    # When: the target is back, nobody asks
    exporter.answer = None
    exporter.send({"n": 1})
    attempts = exporter.stats().targets["target"].attempts

    # Then
    assert attempts == 1
    assert exporter.taken == []
    assert exporter.flush(PATIENCE).complete
    assert exporter.taken == numbers(2)


def test_connect_comes_before_the_first_batch_and_after_a_failure() -> None:
    # Given
    failing = iter([None, ConnectionError("cut"), None])
    exporter = Target(lambda _: next(failing))
    assert exporter.connects == 0

    # When
    exporter.send({"n": 0}).result(PATIENCE)
    before = (exporter.connects, exporter.disconnects)
    exporter.send({"n": 1}).result(PATIENCE)

    # Then
    assert before == (1, 0)
    assert (exporter.connects, exporter.disconnects) == (2, 1)
    exporter.close()
    assert exporter.disconnects == 2


def test_a_connect_that_fails_is_an_outage() -> None:
    # Given
    class Late(Target):
        def connect(self) -> None:
            super().connect()
            if self.connects < 3:
                raise OSError("no route")

    exporter = Late()

    # When
    exporter.send({"n": 0}).result(PATIENCE)

    # Then
    assert exporter.connects == 3
    assert exporter.taken == numbers(1)
    assert exporter.batches == [numbers(1)]


def test_connect_export_and_disconnect_run_in_worker_threads() -> None:
    # Given
    threads: list[tuple[str, threading.Thread]] = []

    class Watched(Target):
        def connect(self) -> None:
            threads.append(("connect", threading.current_thread()))

        def disconnect(self) -> None:
            threads.append(("disconnect", threading.current_thread()))

    failing = iter([ConnectionError("cut")])
    exporter = Watched(lambda _: next(failing, None))

    # When
    exporter.send({"n": 0}).result(PATIENCE)

    # Then
    assert [what for what, _ in threads] == ["connect", "disconnect", "connect"]
    assert threading.current_thread() not in [thread for _, thread in threads]


def test_the_last_disconnect_runs_in_a_worker_thread_too() -> None:
    # Given
    threads: list[threading.Thread] = []

    class Watched(Target):
        def disconnect(self) -> None:
            threads.append(threading.current_thread())

    exporter = Watched()
    exporter.send({"n": 0}).result(PATIENCE)

    # When
    exporter.close()

    # Then
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_redelivered_says_whether_the_target_may_have_it() -> None:
    # Given: an attempt that fails, and a start after a close
    failing = iter([ConnectionError("cut")])
    exporter = Target(lambda _: next(failing, None), name="again")
    exporter.send({"n": 0}).result(PATIENCE)
    exporter.send({"n": 1}).result(PATIENCE)
    exporter.answer = ConnectionError("down")
    tuple(exporter.send({"n": 2}))
    exporter.close(0)

    # When
    later = Target(name="again")
    assert later.flush(PATIENCE).complete
    later.send({"n": 3}).result(PATIENCE)

    # Then
    assert [(batch[0].data["n"], batch.redelivered) for batch in exporter.seen[:3]] == [
        (0, False),
        (0, True),
        (1, False),
    ]
    assert [(batch[0].data["n"], batch.redelivered) for batch in later.seen] == [(2, True), (3, False)]


def test_the_deadline_of_a_batch_is_the_timeout() -> None:
    # Given
    exporter = Target(timeout=50.0)
    before = time.monotonic()

    # When
    exporter.send({"n": 0}).result(PATIENCE)

    # Then
    assert before + 50.0 <= exporter.seen[0].deadline <= time.monotonic() + 50.0
    without = Target(timeout=0, name="without")
    without.send({"n": 0}).result(PATIENCE)
    assert without.seen[0].deadline == float("inf")


def test_batches_keep_within_their_bounds() -> None:
    # Given: 100 records wait behind one that is being delivered
    exporter = Target(batch_records=30)
    exporter.gate.clear()
    exporter.send("first")
    exporter.entered()
    exporter.send(numbers(100))

    # When
    exporter.gate.set()
    assert exporter.flush(PATIENCE).complete

    # Then: full ones, not one by one
    sizes = [len(batch) for batch in exporter.batches]
    assert max(sizes) == 30
    assert len(sizes) <= 6
    assert exporter.taken == ["first", *numbers(100)]


def test_batches_keep_within_their_bytes() -> None:
    # Given
    exporter = Target(batch_bytes=5000)
    exporter.gate.clear()
    exporter.send("first")
    exporter.entered()
    exporter.send(["x" * 1000] * 40)

    # When
    exporter.gate.set()
    assert exporter.flush(PATIENCE).complete

    # Then
    sizes = [sum(map(len, batch)) for batch in exporter.batches]
    assert max(sizes) <= 6000
    assert len(exporter.taken) == 41


def test_a_restart_finds_what_waited_and_keeps_its_ids() -> None:
    # Given
    exporter = Target(ConnectionError("down"), name="restart")
    receipts = [exporter.send(record) for record in numbers(5)]
    report = exporter.close(0)
    assert (report.pending, report.saved, report.lost) == (5, 5, 0)

    # When
    later = Target(name="restart")
    assert later.has_unsent_data() or later.taken
    assert later.flush(PATIENCE).complete

    # Then
    assert later.taken == numbers(5)
    assert later.ids == [receipt.id for receipt in receipts]
    assert balanced(later).targets["restart"].delivered == 5


def test_what_a_target_returns_reaches_the_receipt() -> None:
    # Given
    exporter = Target(lambda batch: [Delivered(record.id) for record in batch])

    # When
    one, many = exporter.send({"n": 0}), exporter.send(numbers(2))

    # Then
    assert one.result(PATIENCE) == ExportResult(one.id, True)
    returned = many.result(PATIENCE).returned
    assert returned == exporter.ids[1:]


def test_several_batches_at_once_where_the_class_allows_it() -> None:
    # Given: a target that answers only when two attempts are inside
    both = threading.Barrier(2)

    class Wide(Target):
        concurrency = 2

    def answer(batch: Any) -> None:
        if len(batch) > 1:
            both.wait(PATIENCE)

    exporter = Wide(answer, batch_records=10)

    # When
    exporter.send(numbers(20))

    # Then
    assert exporter.flush(PATIENCE).complete
    assert sorted(record["n"] for record in exporter.taken) == list(range(20))


def test_auto_concurrency_grows_with_the_backlog() -> None:
    # Given
    inside, most = 0, 0
    lock = threading.Lock()

    def answer(_: Any) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        threading.Event().wait(0.002)  # the target takes its time
        with lock:
            inside -= 1

    # by this clock they all take the same time, however busy the machine is
    exporter = Target(answer, concurrency="auto", batch_records=10, clock=FakeClock())

    # When
    exporter.send(numbers(2000))
    assert exporter.flush(PATIENCE).complete

    # Then
    assert most > 1
    assert sorted(record["n"] for record in exporter.taken) == list(range(2000))


def test_no_thread_wakes_up_while_nothing_happens() -> None:
    # Given
    exporter = Target()
    exporter.send({"n": 0}).result(PATIENCE)
    exporter.flush(PATIENCE)
    waits: list[float | None] = []

    class Watching(type(exporter._clock)):  # type: ignore[misc] # the clock that it uses
        def wait(self, bell: Any, seconds: float | None) -> bool:
            waits.append(seconds)
            return bool(super().wait(bell, seconds))

    quiet = Target(name="quiet", clock=Watching())

    # When
    quiet.send({"n": 0}).result(PATIENCE)
    quiet.flush(PATIENCE)
    quiet._engine.dispatcher.ring()  # type: ignore[union-attr] # one look more, after which nothing is due
    quiet._engine.keeper.tidy_soon()  # type: ignore[union-attr] # it was opened above

    # Then: both threads wait for a ring, not for time
    eventually(lambda: waits[-2:] == [None, None])


def test_repr_names_it() -> None:
    assert repr(Target(name="x")) == "<Target x>"
