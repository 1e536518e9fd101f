from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from resilient_exporters import codec
from resilient_exporters.delivery.deadletters import DeadLetters, Letter, read_letters
from resilient_exporters.delivery.frame import OPTIONS
from resilient_exporters.delivery.guard import ResourceGuard
from resilient_exporters.delivery.keeper import Keeper
from resilient_exporters.delivery.listener import Listener
from resilient_exporters.delivery.spool import LETTERS, Spool, SpoolUnavailable, disk_bytes
from tests.queues import StillClock, make_queue


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path, 8 << 20)
    yield made
    made.close()


def letter(offset: int, target: str = "t", data: Any = None) -> Letter:
    return Letter(b"run-8byt", offset, target, "refused", 3, 1.5, 0, codec.encode(data or {"n": offset}))


def made(spool: Spool, most: int = 100) -> tuple[DeadLetters, list[Letter]]:
    dropped: list[Letter] = []
    return DeadLetters(spool, most, dropped.extend), dropped


def offsets(letters: DeadLetters) -> list[int]:
    return [one.offset for one in letters]


def restarted(spool: Spool, most: int = 100) -> DeadLetters:
    letters, _ = made(spool, most)
    letters.attach(spool.keys()[1])
    return letters


def test_a_letter_is_opened_as_it_was_sent() -> None:
    opened = letter(7, data={"t": (1, b"x")}).open()
    assert (opened.id, opened.data, opened.options) == (b"run-8byt".hex() + "-7", {"t": (1, b"x")}, {})
    assert (opened.target, opened.reason, opened.attempts, opened.time) == ("t", "refused", 3, 1.5)
    payload = codec.encode_with_options("record", {"table": "x"})
    with_options = Letter(b"run-8byt", 7, "t", "refused", 1, 0.0, OPTIONS, payload).open()
    assert (with_options.data, with_options.options) == ("record", {"table": "x"})


def test_letters_are_on_disk_oldest_first_and_survive(spool: Spool) -> None:
    letters, _ = made(spool)
    assert (len(letters), offsets(letters)) == (0, [])
    letters.add([letter(1), letter(2)])
    letters.add([letter(3)])
    assert offsets(letters) == [1, 2, 3]
    again = restarted(spool)
    again.add([letter(4, "other")])
    assert offsets(again) == offsets(restarted(spool)) == [1, 2, 3, 4]
    assert (len(again), again.count("t"), again.count("other"), again.count("none")) == (4, 3, 1, 0)
    assert min(spool.keys()[1]) < max(spool.keys()[1]) == LETTERS


def test_a_letter_that_is_there_after_a_crash_is_kept_once(spool: Spool) -> None:
    letters, _ = made(spool)
    letters.add([letter(1)])
    again = restarted(spool)
    again.add([letter(1)])
    again.add([letter(1), letter(2), letter(1, "other")])
    assert [(one.offset, one.target) for one in again] == [(1, "t"), (2, "t"), (1, "other")]


def test_beyond_the_bound_the_oldest_go_and_are_told(spool: Spool) -> None:
    letters, dropped = made(spool, 5)
    letters.add([letter(at) for at in range(4)])
    letters.add([letter(at) for at in range(4, 8)])
    assert offsets(letters) == [3, 4, 5, 6, 7]
    assert [one.offset for one in dropped] == [0, 1, 2]
    letters.add([letter(at) for at in range(8, 20)])
    assert offsets(letters) == offsets(restarted(spool)) == [15, 16, 17, 18, 19]
    assert len(dropped) == 15
    none, gone = made(Spool(spool.directory, 1), 0)
    assert len(none) == 0
    assert gone == []


def test_letters_are_taken_out_by_id_by_question_or_all(spool: Spool) -> None:
    letters, _ = made(spool)
    letters.add([letter(at) for at in range(5)])
    letters.add([letter(5), letter(1, "other")])
    letters.add([letter(6)])
    assert [one.offset for one in letters.remove({letter(1).id, letter(6).id, "unknown"})] == [1, 1, 6]
    assert offsets(letters) == [0, 2, 3, 4, 5]
    assert [one.offset for one in letters.take(lambda one: one.offset > 3)] == [4, 5]
    letters.remove_one(letter(2))
    letters.remove_one(letter(2))
    assert offsets(letters) == offsets(restarted(spool)) == [0, 3]
    assert [one.offset for one in letters.remove(None)] == [0, 3]
    assert (len(letters), spool.keys()[1]) == (0, [])
    # and keys are used again from the beginning
    letters.add([letter(9)])
    assert offsets(restarted(spool)) == [9]


def test_taking_one_of_many_out_reads_one_row(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    letters, _ = made(spool, 1000)
    for at in range(200):
        letters.add([letter(at)])
    read: list[int] = []
    real = spool.get

    def counted(key: int) -> bytes | None:
        read.append(key)
        return real(key)

    monkeypatch.setattr(spool, "get", counted)
    letters.remove_one(letter(150))
    letters.remove({letter(77).id})
    assert len(read) == 2


def test_a_disk_that_fails_keeps_the_letters_as_they_were(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    letters, _ = made(spool)
    letters.add([letter(1)])

    def fails(*_: object) -> None:
        raise SpoolUnavailable("disk I/O error")

    monkeypatch.setattr(spool, "write", fails)
    with pytest.raises(SpoolUnavailable):
        letters.add([letter(2)])
    with pytest.raises(SpoolUnavailable):
        letters.take(lambda one: True)
    monkeypatch.undo()
    assert offsets(letters) == [1]
    letters.add([letter(2)])
    assert offsets(letters) == [1, 2]


@pytest.mark.parametrize(
    "row", [b"", b"\xc1", b"junk", msgspec.msgpack.encode({"a": 1}), msgspec.msgpack.encode([[1, 2]])]
)
def test_rows_that_hold_no_letters(row: bytes, spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    assert read_letters(row) == []
    assert "cannot be read" in caplog.text
    assert read_letters(None) == []
    # In between others, such a row costs its own letters only
    letters, _ = made(spool, 3)
    letters.add([letter(1)])
    spool.write({LETTERS - 1: row})
    again = restarted(spool, 3)
    again.add([letter(2)])
    again.add([letter(3)])
    again.add([letter(4)])
    assert offsets(again) == [2, 3, 4]


def test_letters_stay_within_max_disk(tmp_path: Path) -> None:
    # Given a target that refuses large records, and a disk of 1 MB
    queue = make_queue()
    spool = Spool(tmp_path, 1 << 20)
    keeper = Keeper(queue, spool, ResourceGuard(tmp_path, 0), StillClock(), Listener(), "test")
    queue.join("t")
    keeper.start()
    for at in range(60):
        keeper.bury([letter(at, data=b"x" * 100_000)], list)
    keeper.call(lambda: None)
    keeper.stop(5)
    assert disk_bytes(tmp_path) <= 1 << 20
