from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters import ExporterPool, Reject
from resilient_exporters.delivery.directory import DirectoryLock
from resilient_exporters.delivery.inspection import Inspection, TargetView, find_queues
from resilient_exporters.delivery.maintenance import Maintenance
from resilient_exporters.delivery.rescue import Rescue
from resilient_exporters.delivery.ring import ring_path
from resilient_exporters.delivery.snapshot import RowReader
from resilient_exporters.delivery.spool import Spool, SpoolDamaged, key_of
from resilient_exporters.testing import FlakyTarget, RecordingExporter

DOWN = ConnectionError("no link")

KILLED = """
    import os, signal
    from resilient_exporters.testing import FlakyTarget

    target = FlakyTarget([ConnectionError("no link")], name="t", directory={directory!r}, loss_window=None)
    for number in range({saved}):
        target.send({{"n": number}})
    if {saved}:
        target.save()
    for number in range({saved}, {total}):
        target.send({{"n": number}})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(directory: Path, *, saved: int = 0, total: int = 700) -> None:
    """A program that is killed while its target is down; the first records are on disk."""
    code = textwrap.dedent(KILLED).format(directory=str(directory), saved=saved, total=total)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def waiting(directory: Path, target: str | None = None) -> list[int]:
    with Inspection(directory) as found:
        return [record.data["n"] for record in found.records(target)]


def adds_up(target: TargetView) -> bool:
    return target.accepted == target.delivered + sum(target.dropped.values()) + target.dead + target.pending


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "q"


def test_what_a_killed_program_left_in_memory_and_on_disk_is_all_seen(directory: Path) -> None:
    # Given a program that was killed with records on disk and newer ones only in memory
    killed(directory, saved=300, total=700)

    # When
    with Inspection(directory) as found:
        view = found.view()
        numbers = [record.data["n"] for record in found.records()]

    # Then
    assert numbers == list(range(700))
    assert (view.waiting, view.in_memory, view.holder) == (700, 400, None)
    assert view.targets[0].pending == view.targets[0].accepted == 700
    assert view.ring is not None
    assert view.ring_bytes > 0


def test_what_is_in_memory_only_is_seen_although_there_is_no_database(directory: Path) -> None:
    killed(directory, total=50)

    assert not (directory / "cache.db").exists()
    assert waiting(directory) == list(range(50))


def test_looking_changes_nothing_and_locks_nothing(directory: Path) -> None:
    # Given
    with FlakyTarget([DOWN], name="t", directory=directory) as target:
        target.send([{"n": n} for n in range(10)])
    before = {entry.name: (entry.stat().st_mtime_ns, entry.stat().st_size) for entry in directory.iterdir()}
    ring = ring_path(directory)
    assert ring is not None
    content = ring.read_bytes()

    # When
    with Inspection(directory) as found:
        found.view()
        assert len(list(found.records())) == 10
        assert list(found.verify()) == []
        # Then a program that starts meanwhile is not kept out
        DirectoryLock(directory).release()

    # Then
    assert {entry.name: (entry.stat().st_mtime_ns, entry.stat().st_size) for entry in directory.iterdir()} == before
    assert ring.read_bytes() == content


def test_a_queue_in_use_is_read_with_what_is_in_memory_and_the_holder_is_named(directory: Path) -> None:
    # Given a program that is running
    target = FlakyTarget([DOWN], name="t", directory=directory)
    target.send([{"n": n} for n in range(20)])
    target.save()
    target.send({"n": 20})

    # When
    with Inspection(directory) as found:
        view = found.view()

        # Then
        assert found.live
        assert [record.data["n"] for record in found.records()] == list(range(21))
    assert str(os.getpid()) in str(view.holder)
    assert adds_up(view.targets[0])
    target.close(0)


def test_figures_add_up_while_a_program_writes_at_full_speed(directory: Path) -> None:
    # Given a program that sends without a pause, to a target that comes and goes
    code = f"""
        import itertools
        from resilient_exporters import ExporterPool
        from resilient_exporters.testing import FlakyTarget, RecordingExporter
        flaky = FlakyTarget(["ok", "ok", ConnectionError("no")], cycle=True, name="flaky", retry=0.001)
        pool = ExporterPool([flaky, RecordingExporter(name="well")], directory={str(directory)!r}, loss_window=0.05,
                            max_memory="200 kB", max_disk="2 MB")
        pool.send({{"n": -1}})
        print("ready", flush=True)
        for n in itertools.count():
            pool.send({{"n": n}})
            flaky.records.clear(), flaky.batches.clear()
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
            for _ in range(4):
                # When it is read
                with Inspection(directory) as found:
                    view = found.view()
                    numbers = [record.data["n"] for record in found.records()]
                    damage = [finding for finding in found.verify() if finding.damage]
                # Then the picture is of one moment
                assert all(map(adds_up, view.targets)), view
                assert numbers == sorted(set(numbers))
                assert damage == []
        finally:
            program.kill()


def test_each_target_has_its_own_backlog(directory: Path) -> None:
    # Given
    with ExporterPool(
        [RecordingExporter(name="up"), FlakyTarget([DOWN], name="down")], name="pool", directory=directory
    ) as pool:
        pool.send([{"n": n} for n in range(5)])
        pool.flush(60)

    # Then
    assert waiting(directory, "down") == [0, 1, 2, 3, 4]
    assert waiting(directory, "up") == []
    with Inspection(directory) as found:
        assert next(found.records()).targets == ["down"]


def test_options_ids_and_dead_letters_are_shown(directory: Path) -> None:
    # Given
    with FlakyTarget([Reject("no such column"), DOWN], name="t", directory=directory) as target:
        first = target.send({"n": 1})
        target.flush(60)
        second = target.send({"n": 2}, table="readings")

    # When
    with Inspection(directory) as found:
        (letter,) = found.letters()
        (record,) = found.records()

    # Then
    assert (letter.id, letter.data, letter.reason) == (first.id, {"n": 1}, "no such column")
    assert (record.id, record.options) == (second.id, {"table": "readings"})


def killed_with_rows_across(directory: Path) -> None:
    """Rows [0, 200) and [200, 700) on disk, more in memory, which the next start cuts at 500; "b" has 330 of it."""
    code = f"""
        import os, signal
        from resilient_exporters import ExporterPool
        from resilient_exporters.testing import FlakyTarget
        down = ConnectionError("no link")
        a = FlakyTarget([down], name="a")
        b = FlakyTarget(["ok", "ok", "ok", down], name="b", batch_records=130)
        pool = ExporterPool([a, b], name="pool", directory={str(directory)!r}, loss_window=None, linger=60)
        pool.send([{{"n": n}} for n in range(200)])
        pool.save()
        pool.send([{{"n": n}} for n in range(200, 700)])
        pool.save()
        b.wait_for(330)
        pool.send([{{"n": n}} for n in range(700, 900)])
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_a_backlog_is_shown_once_where_memory_and_disk_overlap(directory: Path) -> None:
    killed_with_rows_across(directory)

    assert waiting(directory) == list(range(900))
    assert waiting(directory, "b") == list(range(330, 900))


def test_a_restart_delivers_once_where_memory_and_disk_overlap(directory: Path) -> None:
    # For the engine (attempt.decode): what stood in the last row and in memory was given twice, in one batch.
    killed_with_rows_across(directory)

    again = RecordingExporter(name="b")
    with ExporterPool([RecordingExporter(name="a"), again], name="pool", directory=directory) as pool:
        pool.flush(60)

    assert [record["n"] for record in again.records] == list(range(330, 900))


def closed(directory: Path, count: int = 1000, **options: Any) -> None:
    with FlakyTarget([DOWN], name="t", directory=directory, **options) as target:
        target.send([{"n": n} for n in range(count)])


def test_verify_finds_a_flipped_bit_in_a_block(directory: Path) -> None:
    # Given
    closed(directory)
    flip_first_block(directory)

    # Then
    with Inspection(directory) as found:
        (finding,) = found.verify()
        assert finding.damage
        assert "records are intact" in finding.what
        numbers = [record.data["n"] for record in found.records()]
        assert 500 <= len(numbers) < 1000
        assert len(numbers) + found.unreadable == 1000


def flip_first_block(directory: Path) -> None:
    connection = sqlite3.connect(directory / "cache.db")
    key, value = connection.execute("SELECT key, value FROM Cache WHERE key >= 0 ORDER BY key LIMIT 1").fetchone()
    changed = bytearray(value)
    changed[len(changed) // 2] ^= 0xFF
    connection.execute("UPDATE Cache SET value = ? WHERE key = ?", (bytes(changed), key))
    connection.commit()
    connection.close()


def test_verify_says_so_if_the_database_is_none(directory: Path) -> None:
    closed(directory)
    (directory / "cache.db").write_bytes(b"no database at all" * 1000)

    with Inspection(directory) as found:
        findings = list(found.verify())
        assert "cannot be read" in found.view().trouble
    assert any(one.damage and one.where == "cache.db" for one in findings)


def test_verify_says_so_if_the_cursors_are_gone(directory: Path) -> None:
    # Given a reboot, and a row with the cursors that cannot be read
    closed(directory)
    forget_cursors(directory)

    # Then
    with Inspection(directory) as found:
        findings = list(found.verify())
        assert "it is not known which targets" in found.view().trouble
    assert {one.where for one in findings if one.damage} == {"cursors"}


def forget_cursors(directory: Path) -> None:
    ring = ring_path(directory)
    assert ring is not None
    ring.unlink()
    connection = sqlite3.connect(directory / "cache.db")
    connection.execute("UPDATE Cache SET value = ? WHERE key = -1", (b"\xc1",))
    connection.commit()
    connection.close()


def test_a_ring_that_is_not_ours_is_not_believed(directory: Path) -> None:
    closed(directory)
    ring = ring_path(directory)
    assert ring is not None
    ring.write_bytes(b"something else" * 10_000)

    with Inspection(directory) as found:
        assert "ring of another directory" in found.view().trouble
        assert len(list(found.records())) == 1000


def test_a_link_in_the_place_of_a_ring_is_not_followed(directory: Path, tmp_path: Path) -> None:
    closed(directory)
    ring = ring_path(directory)
    assert ring is not None
    moved = tmp_path / "elsewhere"
    moved.write_bytes(ring.read_bytes())
    ring.unlink()
    ring.symlink_to(moved)

    with Inspection(directory) as found:
        assert "memory cannot be read" in found.view().trouble


def test_a_directory_with_unusual_characters_is_read(tmp_path: Path) -> None:
    directory = tmp_path / "what? 100% #1"
    closed(directory, 3)

    assert waiting(directory) == [0, 1, 2]


def test_a_log_that_a_kill_left_is_read_from_a_directory_that_cannot_be_written(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a database whose newest rows are in its log
    killed(directory, saved=700, total=700)
    assert (directory / "cache.db-wal").stat().st_size > 0
    # and SQLite, which may not make an index of it (root may write everywhere, so it is simulated)
    real = sqlite3.connect

    def connect(place: str, **options: Any) -> sqlite3.Connection:
        if "mode=ro" in place:
            raise sqlite3.OperationalError("unable to open database file")
        return real(place, **options)

    monkeypatch.setattr(sqlite3, "connect", connect)

    # Then
    assert waiting(directory) == list(range(700))


def test_what_is_no_queue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no queue directory"):
        Inspection(tmp_path)


def test_queues_are_found_under_a_root(tmp_path: Path) -> None:
    closed(tmp_path / "root" / "a", 1)
    closed(tmp_path / "root" / "a.2", 1)
    (tmp_path / "root" / "other").mkdir()

    assert [place.name for place in find_queues(tmp_path / "root")] == ["a", "a.2"]
    assert find_queues(tmp_path / "root" / "a") == [tmp_path / "root" / "a"]
    assert find_queues(tmp_path / "nowhere") == []


def test_a_database_that_waits_for_its_rescue_is_shown(directory: Path) -> None:
    # Given a rescue that was interrupted before anything was read
    with FlakyTarget([DOWN], name="t", directory=directory) as target:
        for number in range(700):
            target.send({"n": number})
    with Inspection(directory) as found:
        before = found.view().waiting
    Rescue(Spool(directory, 1 << 30)).begin(SpoolDamaged("for this test"))

    # When
    with Inspection(directory) as found:
        trouble = found.view().trouble
        (first, *_) = found.verify()

    # Then it is said, and the next start has it all
    assert "salvage-1.db was damaged" in trouble
    assert (first.damage, first.where) == (True, "salvage-1.db")
    with Maintenance(directory) as opened:
        report = opened.repair()
    assert report.set_aside == "damaged-1.db"
    with Inspection(directory) as found:
        assert found.view().waiting == before > 0


def test_a_log_that_begins_while_the_database_is_read_is_no_damage(directory: Path) -> None:
    # Given a database without a log, that a program holds and is about to write to
    with FlakyTarget([DOWN], name="t", directory=directory) as target:
        target.send({"n": 0})
    assert not (directory / "cache.db-wal").exists()
    rows = RowReader(directory, live=True)
    before = len(rows.keys()[0])

    # When it is written to
    spool = Spool(directory, 1 << 30)
    spool.open()
    for at in range(200):
        spool.write({key_of(1_000_000 + at, 1): bytes(5000)})

    # Then that is seen, and nothing is called damaged
    assert len(rows.keys()[0]) == before + 200
    assert rows.check() == []
    rows.close()
    spool.close()
