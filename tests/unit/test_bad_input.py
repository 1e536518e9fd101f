"""Bad input: each a clear error of the tree or a counted refusal; never a hang, never a lost record."""

from __future__ import annotations

import errno
import os
import sqlite3
import struct
import zlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from resilient_exporters import (
    ClosedError,
    EncodingError,
    Exporter,
    ExporterPool,
    InvalidConfigError,
    Listener,
    ResilientExporterException,
    TransformError,
)
from resilient_exporters.delivery.ring import ring_path
from resilient_exporters.delivery.sealed import seal, unseal
from tests.targets import PATIENCE, Target, balanced, numbers

WRONG: list[tuple[str, Any]] = [
    ("transform", 5), ("transform", "name"),
    ("timeout", -1), ("timeout", "soon"), ("timeout", None), ("timeout", True), ("timeout", float("nan")),
    ("timeout", timedelta(seconds=-1)), ("use_memory", 1), ("use_memory", "yes"), ("manual_reexport", 0),
    ("name", ""), ("name", "  "), ("name", 7), ("directory", ""), ("directory", 5), ("directory", b"x"),
    ("directory", "/dev/null"), ("directory", "/dev/null/below"),
    ("loss_window", -0.1), ("loss_window", "a while"), ("max_records", 0), ("max_records", -5), ("max_records", 1.5),
    ("max_memory", "16 MX"), ("max_memory", -1), ("max_memory", 10), ("max_memory", None), ("max_memory", "big"),
    ("max_memory", 1 << 63),
    ("max_disk", "1 XB"), ("max_disk", 0), ("min_free_disk", "-1 MB"), ("min_free_disk", None),
    ("max_age", 0), ("max_age", -1), ("max_age", "old"), ("on_full", "explode"), ("on_full", None),
    ("full_timeout", -1),
    ("batch_records", 0), ("batch_records", 10**9), ("batch_records", "many"),
    ("batch_bytes", -1), ("batch_bytes", "x"),
    ("linger", -0.1), ("linger", None), ("concurrency", 0), ("concurrency", "lots"), ("concurrency", True),
    ("concurrency", 1.5), ("retry", "often"), ("retry", -1), ("drain", "sideways"), ("drain_rate", 0),
    ("drain_rate", "fast"), ("drain_rate", -1), ("max_dead", -1), ("max_dead", "x"), ("listeners", 5),
    ("listeners", [5]), ("save_unsent_data", None), ("test_url", 5), ("clock", 5), ("retries", 3), ("max_sise", 1),
]  # fmt: skip


@pytest.mark.parametrize(("option", "value"), WRONG, ids=lambda value: str(value)[:20])
def test_an_option_that_cannot_be_is_named_with_its_value(option: str, value: Any) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        Target(**{option: value})
    text = str(caught.value)
    assert option in text
    assert isinstance(caught.value, ResilientExporterException)
    assert isinstance(caught.value, ValueError)


def test_a_misspelt_option_is_answered_with_the_right_one() -> None:
    with pytest.raises(InvalidConfigError, match=r"max_memry; did you mean max_memory"):
        Target(max_memry="1 MB")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ExporterPool(5), "exporters"),  # type: ignore[arg-type] # the mistake that is tested
        (lambda: ExporterPool([5]), "no exporter"),
        (lambda: ExporterPool("ab"), "no exporter"),
        (lambda: ExporterPool(num_threads=0), "num_threads"),
        (lambda: ExporterPool(num_threads="x"), "num_threads"),  # type: ignore[arg-type] # the mistake that is tested
        (lambda: ExporterPool(wait_for_result=None), "wait_for_result"),  # type: ignore[arg-type] # wrong on purpose
        (lambda: ExporterPool(nope=1), "nope"),
    ],
)
def test_a_pool_that_cannot_be(make: Callable[[], object], text: str) -> None:
    with pytest.raises(InvalidConfigError, match=text):
        make()


def test_two_names_of_one_option() -> None:
    with pytest.raises(InvalidConfigError, match="tmp_file"):
        Target(directory="a", tmp_file="b")
    with pytest.raises(InvalidConfigError, match="loss_window"):
        Target(use_memory=True, loss_window=2)


@pytest.mark.parametrize(
    "data", [None, [], [None], [[1]], [[]], {1, 2}, frozenset(), [{1}], object(), {"a": object()}, lambda: 1]
)
def test_what_is_no_record_is_refused_at_once(data: Any) -> None:
    exporter = Target()
    with pytest.raises(EncodingError):
        exporter.send(data)
    assert exporter.stats().accepted == 0
    exporter.send({"n": 0}).result(PATIENCE)
    assert exporter.taken == numbers(1)


def test_what_cannot_be_encoded_is_named_by_its_path() -> None:
    with pytest.raises(EncodingError, match=r"location\[2\]"):
        Target().send({"location": [1, 2, object()]})


def test_a_record_that_holds_itself_is_refused() -> None:
    record: dict[str, Any] = {}
    record["self"] = record
    exporter = Target()
    with pytest.raises(EncodingError):
        exporter.send(record)
    exporter.send({"n": 0}).result(PATIENCE)


@pytest.mark.parametrize(
    "call",
    [
        lambda exporter: exporter.flush(-1),
        lambda exporter: exporter.flush("soon"),
        lambda exporter: exporter.flush(1, -1),
        lambda exporter: exporter.flush(1, "many"),
        lambda exporter: exporter.save(-1),
        lambda exporter: exporter.save("soon"),
        lambda exporter: exporter.close(-1),
        lambda exporter: exporter.close("soon"),
        lambda exporter: exporter.send({"n": 1}).result("soon"),
        lambda exporter: setattr(exporter, "use_memory", "yes"),
    ],
)
def test_calls_with_what_cannot_be(call: Callable[[Exporter], object]) -> None:
    exporter = Target()
    with pytest.raises(InvalidConfigError):
        call(exporter)
    exporter.send({"n": 0}).result(PATIENCE)
    assert exporter.taken[-1] == {"n": 0}


def test_an_unknown_option_of_send() -> None:
    with pytest.raises(InvalidConfigError, match="no option colour"):
        Target().send({"n": 0}, colour="red")


@pytest.mark.parametrize("transform", [lambda _: None, lambda data: data["no"], lambda _: object()])
def test_a_transform_that_returns_nothing_of_use(transform: Any) -> None:
    exporter = Target(transform=transform)
    with pytest.raises((TransformError, EncodingError)):
        exporter.send({"n": 0})
    assert exporter.stats().accepted == 0


def test_a_transform_that_raises_keeps_its_cause() -> None:
    def transform(_: Any) -> Any:
        raise KeyError("metric")

    with pytest.raises(TransformError, match=r"KeyError.*metric") as caught:
        Target(transform=transform).send({"n": 0})
    assert isinstance(caught.value.__cause__, KeyError)


def test_send_after_close() -> None:
    exporter = Target()
    exporter.send({"n": 0})
    exporter.close()
    for data in ({"n": 1}, [{"n": 1}], "text", None):
        with pytest.raises(ClosedError):
            exporter.send(data)
    assert exporter.taken == numbers(1)


class Told(Listener):
    def __init__(self) -> None:
        self.disk: list[str | None] = []

    def disk_changed(self, trouble: str | None) -> None:
        self.disk.append(trouble)


def test_a_directory_that_cannot_be_made_is_said_and_records_still_flow() -> None:
    # Given: nobody can make a directory there, root neither
    told = Told()
    exporter = Target(directory="/proc/nowhere", listeners=[told])

    # When
    receipt = exporter.send({"n": 0})

    # Then
    assert receipt.result(PATIENCE).successful
    exporter.answer = ConnectionError("down")
    exporter.send({"n": 1})
    assert not exporter.save(0.2)
    assert "/proc/nowhere" in str(exporter.stats().disk_trouble)
    assert told.disk
    exporter.answer = None
    assert exporter.flush(PATIENCE).complete
    assert exporter.taken == numbers(2)


def test_a_directory_that_is_not_ours_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given: as a user without the right to write there
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with pytest.raises(InvalidConfigError, match="directory"):
        Target(directory=tmp_path / "theirs")


def test_a_directory_on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given: every write of the database says that there is no space
    from resilient_exporters.delivery import spool

    real = spool.Spool.write

    def full(*_: Any, **__: Any) -> None:
        raise spool.SpoolUnavailable(os.strerror(errno.ENOSPC))

    monkeypatch.setattr(spool.Spool, "write", full)
    exporter = Target(ConnectionError("down"), retry=3600, name="full")
    receipts = [exporter.send(record) for record in numbers(10)]

    # When / Then: said, and kept in memory
    assert not exporter.save(PATIENCE)
    assert "No space left" in str(exporter.stats().disk_trouble)
    assert balanced(exporter).pending == 10
    report = exporter.close(0)
    assert (report.pending, report.lost) == (10, 0)

    # When: there is room again at the next start
    monkeypatch.setattr(spool.Spool, "write", real)
    later = Target(name="full")
    assert later.flush(PATIENCE).complete
    assert later.ids == [receipt.id for receipt in receipts]


def test_commit_on_a_full_disk_says_so_and_keeps_the_record() -> None:
    # Given
    import random

    from resilient_exporters import QueueFullError

    exporter = Target(ConnectionError("down"), retry=3600, loss_window=0, min_free_disk="100000 TB", full_timeout=2)

    # When / Then
    with pytest.raises(QueueFullError, match="could not be saved"):
        exporter.send(random.Random(1).randbytes(100_000))
    assert balanced(exporter).pending == 1


def test_a_queue_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    # Given: a queue that a later version of this package wrote
    place = tmp_path / "queue"
    exporter = Target(ConnectionError("down"), retry=3600, directory=place)
    exporter.send(numbers(3))
    exporter.save(PATIENCE)
    exporter.close(0)
    ring = ring_path(place)
    assert ring is not None
    ring.unlink()
    with sqlite3.connect(place / "cache.db") as database:
        [(rowid, value)] = database.execute("SELECT rowid, value FROM Cache WHERE key = -1").fetchall()
        first, *others = (part or b"" for part in unseal(value))
        state = msgspec.msgpack.decode(first)
        newer = seal([msgspec.msgpack.encode([state[0] + 1, *state[1:], "something new"]), *others])
        database.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (newer, rowid))
        before = database.execute("SELECT key, value FROM Cache ORDER BY key").fetchall()
    database.close()

    # When
    later = Target(directory=place)
    for _ in range(2):
        with pytest.raises(ResilientExporterException, match="newer"):
            later.send({"n": 3})

    # Then: nothing is held open, and the version that wrote it finds everything
    held = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    assert [name for name in held if str(place) in name] == []
    with sqlite3.connect(place / "cache.db") as database:
        after = database.execute("SELECT key, value FROM Cache ORDER BY key").fetchall()
    database.close()
    assert after == before


def test_a_ring_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    # Given: all that waits is in memory
    place = tmp_path / "queue"
    exporter = Target(ConnectionError("down"), retry=3600, directory=place, loss_window=None)
    exporter.send(numbers(3))
    exporter.close(0)
    ring = ring_path(place)
    assert ring is not None
    raw = bytearray(ring.read_bytes())
    struct.pack_into("<I", raw, 8, 2)
    struct.pack_into("<I", raw, 44, zlib.crc32(bytes(raw[:44])))
    ring.write_bytes(raw)

    # When
    with pytest.raises(ResilientExporterException, match="newer"):
        Target(directory=place).send({"n": 3})

    # Then
    assert ring.read_bytes() == bytes(raw)
    assert not list(ring.parent.glob(f"{ring.stem}.*.damaged"))


def test_errors_are_of_one_tree_and_say_who() -> None:
    exporter = Target(name="attic")
    with pytest.raises(ResilientExporterException, match="Target attic: "):
        exporter.send(None)
