from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters import ExporterPool, QueueLockedError, Reject
from resilient_exporters.delivery.inspection import Inspection
from resilient_exporters.delivery.maintenance import Maintenance
from resilient_exporters.testing import FlakyTarget, RecordingExporter
from tests.unit.test_inspection import DOWN, adds_up, closed, flip_first_block, forget_cursors, killed, waiting


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "q"


def delivered(directory: Path) -> list[int]:
    """What a program with a healthy target gets from a queue."""
    target = RecordingExporter(name="t", directory=directory)
    target.flush(60)
    target.close()
    return [record["n"] for record in target.records]


def damage(directory: Path) -> list[str]:
    with Inspection(directory) as found:
        return [finding.what for finding in found.verify() if finding.damage]


def refused(directory: Path, *numbers: int) -> None:
    """A target that refuses records with the numbers given."""

    def judge(batch: Any) -> list[Any]:
        return [Reject("odd") if record.data["n"] in numbers else None for record in batch]

    with FlakyTarget([judge], name="t", directory=directory) as target:
        target.send([{"n": n} for n in range(10)])
        target.flush(60)


def test_repair_saves_what_is_whole_in_a_damaged_block_and_counts_the_rest(directory: Path) -> None:
    # Given
    closed(directory)
    flip_first_block(directory)

    # When
    with Maintenance(directory) as opened:
        report = opened.repair()

    # Then what was lost is said, counted, and nothing else is lost
    assert not report.sound
    assert report.blocks == 1
    with Inspection(directory) as found:
        (target,) = found.view().targets
        assert target.dropped == {"corrupt": report.lost["t"]}
        assert adds_up(target)
        assert found.view().quarantine
    assert damage(directory) == []
    numbers = delivered(directory)
    assert len(numbers) == 1000 - report.lost["t"]
    assert numbers == sorted(numbers)


def test_repair_of_a_sound_queue_changes_nothing_and_puts_memory_on_disk(directory: Path) -> None:
    # Given records in memory only
    killed(directory, saved=300, total=700)

    # When
    with Maintenance(directory) as opened:
        report = opened.repair()

    # Then
    assert report.sound
    assert report.saved == 400
    with Inspection(directory) as found:
        assert found.view().in_memory == 0
    assert waiting(directory) == list(range(700))
    assert delivered(directory) == list(range(700))


def test_repair_reads_what_it_can_out_of_a_broken_database(directory: Path) -> None:
    # Given a database with a page of its tree overwritten
    closed(directory, 5000)
    size = (directory / "cache.db").stat().st_size
    with (directory / "cache.db").open("r+b") as file:
        file.seek(0)
        file.write(b"\0" * 100)
    assert damage(directory)

    # When
    with Maintenance(directory) as opened:
        report = opened.repair()

    # Then
    assert report.set_aside == "damaged-1.db"
    assert (directory / report.set_aside).stat().st_size == size
    assert report.lost.get("t", 0) + len(waiting(directory)) == 5000
    assert damage(directory) == []


def test_repair_leaves_a_backlog_without_cursors_as_it_is(directory: Path) -> None:
    # Given nobody knows whom the records wait for
    closed(directory)
    forget_cursors(directory)
    before = (directory / "cache.db").read_bytes()

    # When
    with Maintenance(directory) as opened:
        report = opened.repair()

    # Then
    assert report.ownerless == 2
    assert not report.sound
    connection = sqlite3.connect(directory / "cache.db")
    rows = connection.execute("SELECT count(*) FROM Cache WHERE key >= 0").fetchone()[0]
    connection.close()
    assert rows == 2
    assert before


def test_replayed_letters_wait_under_their_ids_for_their_target_alone(directory: Path) -> None:
    # Given a pool in which one target refused two records
    def judge(batch: Any) -> list[Any]:
        return [Reject("odd") if record.data["n"] in (3, 7) else None for record in batch]

    members = [FlakyTarget([judge], name="t"), RecordingExporter(name="other")]
    with ExporterPool(members, name="pool", directory=directory) as pool:
        pool.send([{"n": n} for n in range(10)])
        pool.flush(60)
    with Inspection(directory) as found:
        ids = [letter.id for letter in found.letters()]

    # When one of them is replayed
    with Maintenance(directory) as opened:
        assert opened.replay(ids={ids[1]}) == (1, 0)

    # Then
    with Inspection(directory) as found:
        (record,) = found.records()
        assert (record.id, record.targets, record.data) == (ids[1], ["t"], {"n": 7})
        assert [letter.id for letter in found.letters()] == ids[:1]
        assert all(map(adds_up, found.view().targets))
    again = [RecordingExporter(name="t"), RecordingExporter(name="other")]
    with ExporterPool(again, name="pool", directory=directory) as pool:
        pool.flush(60)
    assert (again[0].ids, again[1].ids) == ([ids[1]], [])


def test_letters_of_a_target_that_is_gone_are_not_replayed(directory: Path) -> None:
    refused(directory, 4)
    with RecordingExporter(name="another", directory=directory) as target:
        target.send({"n": 100})
        target.flush(60)

    with Maintenance(directory) as opened:
        assert opened.replay() == (0, 1)
    with Inspection(directory) as found:
        assert len(list(found.letters())) == 1


def test_discarded_letters_count_as_dropped(directory: Path) -> None:
    refused(directory, 2, 4, 6)
    with Inspection(directory) as found:
        ids = [letter.id for letter in found.letters()]

    with Maintenance(directory) as opened:
        assert opened.discard_letters(ids=ids[:1]) == 1
        assert opened.discard_letters(target="t") == 2

    with Inspection(directory) as found:
        (target,) = found.view().targets
        assert (target.dead, target.dropped, target.delivered) == (0, {"discarded": 3}, 7)
        assert list(found.letters()) == []


def test_a_discarded_backlog_counts_as_dropped_and_frees_the_disk(directory: Path) -> None:
    closed(directory)

    with Maintenance(directory) as opened:
        assert opened.discard_pending() == 1000

    with Inspection(directory) as found:
        (target,) = found.view().targets
        assert (target.pending, target.dropped) == (0, {"discarded": 1000})
        assert list(found.records()) == []
    assert delivered(directory) == []


def test_only_the_backlog_of_a_target_that_is_gone_is_discarded_and_it_is_forgotten(directory: Path) -> None:
    # Given a target that the program has no more, with a backlog
    members = [FlakyTarget([DOWN], name="old"), FlakyTarget([DOWN], name="kept")]
    with ExporterPool(members, name="pool", directory=directory) as pool:
        pool.send([{"n": n} for n in range(5)])
    with ExporterPool([FlakyTarget([DOWN], name="kept")], name="pool", directory=directory) as pool:
        pool.send({"n": 5})

    # When
    with Maintenance(directory) as opened:
        assert opened.discard_pending("old") == 5

    # Then
    with Inspection(directory) as found:
        assert found.targets == ["kept"]
    assert waiting(directory) == [0, 1, 2, 3, 4, 5]


def test_a_queue_in_use_is_refused_and_the_holder_named(directory: Path) -> None:
    with RecordingExporter(name="t", directory=directory) as target:
        target.send({"n": 0})
        with pytest.raises(QueueLockedError, match=str(os.getpid())):
            Maintenance(directory)
        target.flush(60)
    assert len(target.records) == 1


def test_a_queue_of_someone_else_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed(directory, 1)
    monkeypatch.setattr(os, "getuid", lambda: directory.stat().st_uid + 1)

    with pytest.raises(PermissionError, match="run this as that user"):
        Maintenance(directory)


def test_what_is_no_queue_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no queue directory"):
        Maintenance(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_large_letter_is_replayed_through_the_disk(directory: Path) -> None:
    # Given a record larger than a quarter of the memory tier
    text = "x" * 5_000_000
    with FlakyTarget([Reject("too large for me")], name="t", directory=directory) as target:
        target.send({"n": 0, "text": text})
        target.flush(60)

    # When
    with Maintenance(directory) as opened:
        assert opened.replay() == (1, 0)

    # Then
    again = RecordingExporter(name="t", directory=directory)
    again.flush(60)
    again.close()
    assert again.records == [{"n": 0, "text": text}]
