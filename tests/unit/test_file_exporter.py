from __future__ import annotations

import fcntl
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.delivery.outcome import Batch, Full, Record, Reject
from resilient_exporters.errors import HoldError, InvalidConfigError, TimeoutError
from resilient_exporters.exporters.file import FileExporter

RUN = "0123456789abcdef"


def batch(*data: Any, first: int = 0, run: str = RUN, **options: Any) -> Batch:
    return Batch([Record(run, first + at, item, {}) for at, item in enumerate(data)], **options)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "data.txt"


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """A full disk: no file may grow beyond so many bytes. Lifted at once: pytest's own output may go to a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_constructing_touches_nothing(tmp_path: Path) -> None:
    exporter = FileExporter(tmp_path / "made" / "later.txt")

    assert list(tmp_path.iterdir()) == []
    assert exporter.address() == str(tmp_path / "made" / "later.txt")


def test_positional_arguments_are_in_the_original_order(target: Path) -> None:
    exporter = FileExporter(str(target), 7, False)

    assert exporter.max_lines == 7
    target.write_text("old\n")
    exporter.export(batch("new"))
    assert target.read_text() == "new\n"


def test_a_missing_directory_is_made_and_lines_are_visible_at_once(tmp_path: Path) -> None:
    # Given
    exporter = FileExporter(tmp_path / "a" / "b" / "data.jsonl")

    # When
    assert exporter.export(batch("value1", {"field": "é"})) is None

    # Then another reader sees them while the exporter has the file open
    assert (tmp_path / "a" / "b" / "data.jsonl").read_text("utf-8") == 'value1\n{"field":"é"}\n'


def test_a_batch_is_one_write(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = FileExporter(target)
    exporter.connect()
    calls: list[str] = []
    for name in ("write", "pwrite"):
        real = getattr(os, name)

        def noted(*args: Any, name: str = name, real: Any = real) -> Any:
            calls.append(name)
            return real(*args)

        monkeypatch.setattr(os, name, noted)

    exporter.export(batch(*({"n": n} for n in range(500))))

    assert calls == ["pwrite", "write"]  # the resume record, then the lines


def test_append_false_empties_the_file_once(target: Path) -> None:
    # Given
    target.write_text("old\n")
    exporter = FileExporter(target, append=False)
    assert target.read_text() == "old\n"

    # When it is opened, lost and opened again
    exporter.connect()
    assert target.read_text() == ""
    exporter.export(batch("1"))
    exporter.disconnect()
    exporter.connect()
    exporter.export(batch("2", first=1))

    # Then
    assert target.read_text() == "1\n2\n"


def test_append_false_forgets_what_was_written_to_the_lines_that_are_gone(target: Path) -> None:
    FileExporter(target).export(batch("1", "2"))

    FileExporter(target, append=False).export(batch("1", "2", redelivered=True))

    assert target.read_text() == "1\n2\n"


# --- max_lines ---


def test_lines_that_were_there_count(target: Path) -> None:
    # Given five lines and a bound of six
    target.write_text("old\n" * 5)
    exporter = FileExporter(target, max_lines=6)
    assert exporter.remaining_lines == 1

    # When
    answer = exporter.export(batch("fits", "does not"))

    # Then the second is answered as full: unsuccessful, not pending, no dead letter
    assert answer is not None
    assert answer[0] is None
    assert isinstance(answer[1], Full)
    assert "holds 6 lines" in answer[1].reason
    assert target.read_text() == "old\n" * 5 + "fits\n"
    assert exporter.remaining_lines == 0


def test_remaining_lines_without_a_bound_or_a_file(target: Path) -> None:
    assert FileExporter(target).remaining_lines == 0
    assert FileExporter(target, max_lines=3).remaining_lines == 3
    assert not target.exists()


def test_what_is_counted_is_what_is_written(target: Path) -> None:
    exporter = FileExporter(target, max_lines=3)

    answer = exporter.export(batch("two\nlines", "again\ntwo", "one"))

    assert [isinstance(item, Full) for item in answer or ()] == [False, True, False]
    assert target.read_text() == "two\nlines\none\n"
    assert exporter.remaining_lines == 0


def test_lines_of_others_are_counted_too(target: Path) -> None:
    exporter = FileExporter(target, max_lines=4)
    exporter.export(batch("1"))

    with target.open("a") as other:
        other.write("foreign\nhalf")

    assert exporter.remaining_lines == 1
    assert [isinstance(item, Full) for item in exporter.export(batch("2", "3", first=1)) or ()] == [False, True]
    target.write_text("")
    assert exporter.remaining_lines == 4


@pytest.mark.parametrize("count", [1, 4, 5, 6, 12])
def test_the_oldest_make_room(target: Path, count: int) -> None:
    # Given a full file of five lines
    target.write_text("".join(f"old{n}\n" for n in range(5)))
    exporter = FileExporter(target, max_lines=5, keep_new_data=True)

    # When
    answer = exporter.export(batch(*(f"new{n}" for n in range(count))))

    # Then it holds the newest five; only what never was in the file is not delivered
    every = [f"old{n}" for n in range(5)] + [f"new{n}" for n in range(count)]
    assert target.read_text().splitlines() == every[-5:]
    assert sum(isinstance(item, Full) for item in answer or ()) == max(0, count - 5)
    assert exporter.remaining_lines == 0


def test_the_example_of_the_readme(tmp_path: Path) -> None:
    exporter = FileExporter(target_file=str(tmp_path / "mydata.txt"), max_lines=1000, keep_new_data=True)

    for at in range(0, 1500, 2):
        exporter.export(batch(f"value{at}", f"value{at + 1}", first=at))

    assert (tmp_path / "mydata.txt").read_text().splitlines() == [f"value{at}" for at in range(500, 1500)]


def test_a_large_file_is_cut_by_a_tenth_at_a_time(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    exporter = FileExporter(target, max_lines=1000, keep_new_data=True)
    exporter.export(batch(*("x" * 100 for _ in range(1000))))
    rewritten: list[Path] = []
    real = Path.replace

    def noted(path: Path, to: Path) -> Path:
        rewritten.append(path)
        return real(path, to)

    monkeypatch.setattr(Path, "replace", noted)

    # When three hundred lines come one by one
    for at in range(300):
        exporter.export(batch(f"{at:0100}", first=1000 + at))

    # Then it is rewritten three times, and holds the newest without a gap
    assert len(rewritten) == 3
    lines = target.read_text().splitlines()
    assert 900 <= len(lines) <= 1000
    assert lines[-300:] == [f"{at:0100}" for at in range(300)]


def test_a_csv_file_keeps_its_header_and_whole_rows_when_the_oldest_make_room(target: Path) -> None:
    exporter = FileExporter(target, max_lines=5, keep_new_data=True, format="csv")

    exporter.export(batch({"a": "two\nlines"}, {"a": 1}, {"a": 2}))
    exporter.export(batch({"a": 3}, first=3))

    assert target.read_text() == "a\n1\n2\n3\n"


def test_replacing_keeps_permissions_and_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("1\n2\n")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")

    FileExporter(tmp_path / "link", max_lines=2, keep_new_data=True).export(batch("3"))

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "2\n3\n"
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o640


# --- the original's methods ---


def test_write_lines_and_remove_lines(target: Path) -> None:
    exporter = FileExporter(target, max_lines=4)

    assert exporter.write_lines("one") == 1
    assert exporter.write_lines(["two", {"three": 3}, "four", "five"]) == 3
    assert exporter.remove_lines() == 1
    assert target.read_text() == 'two\n{"three":3}\nfour\n'
    assert exporter.remove_lines([-1, 0, 17]) == 2
    assert target.read_text() == '{"three":3}\n'
    assert exporter.remove_lines(5) == 0
    assert exporter.remaining_lines == 3


def test_a_stopped_exporter_holds(target: Path) -> None:
    # Given
    exporter = FileExporter(target)
    exporter.export(batch("1"))

    # When
    exporter.stop()

    # Then
    with pytest.raises(HoldError, match=r"stopped; call start\(\)"):
        exporter.export(batch("2", first=1))
    with pytest.raises(HoldError):
        exporter.write_lines("2")

    # When started again
    exporter.start()
    exporter.connect()
    exporter.export(batch("2", first=1, redelivered=True))
    assert target.read_text() == "1\n2\n"

    # When started anew
    exporter.stop()
    exporter.start(append=False)
    exporter.export(batch("3", first=2))
    assert target.read_text() == "3\n"


# --- what others do to the file ---


def test_a_renamed_file_is_opened_anew(target: Path, tmp_path: Path) -> None:
    exporter = FileExporter(target)
    exporter.export(batch("1"))

    target.rename(tmp_path / "data.txt.1")
    exporter.export(batch("2", first=1))

    assert (tmp_path / "data.txt.1").read_text() == "1\n"
    assert target.read_text() == "2\n"


def test_a_file_renamed_and_made_by_logrotate_keeps_the_new_ones_permissions(target: Path, tmp_path: Path) -> None:
    exporter = FileExporter(target)
    exporter.export(batch("1"))

    target.rename(tmp_path / "data.txt.1")
    target.touch(0o600)
    exporter.export(batch("2", first=1))

    assert target.read_text() == "2\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_file_truncated_in_place_leaves_no_hole(target: Path) -> None:
    exporter = FileExporter(target, max_lines=3)
    exporter.export(batch("1", "2", "3"))

    os.truncate(target, 0)
    exporter.export(batch("4", first=3))

    assert target.read_bytes() == b"4\n"
    assert exporter.remaining_lines == 2


def test_a_deleted_directory_is_made_again(tmp_path: Path) -> None:
    exporter = FileExporter(tmp_path / "d" / "data.txt", resume=False)
    exporter.export(batch("1"))
    (tmp_path / "d" / "data.txt").unlink()
    (tmp_path / "d").rmdir()

    exporter.export(batch("2", first=1))

    assert (tmp_path / "d" / "data.txt").read_text() == "2\n"


def test_a_half_line_of_another_program_is_ended(target: Path) -> None:
    target.write_text("whole\nhalf")
    exporter = FileExporter(target)

    exporter.export(batch("1"))
    with target.open("a") as other:
        other.write("half again")
    exporter.export(batch("2", first=1))

    assert target.read_text() == "whole\nhalf\n1\nhalf again\n2\n"


def test_two_exporters_write_to_one_file(target: Path) -> None:
    # Given two that rotate and make room at each other's expense
    many = [FileExporter(target, rotate_bytes=200, name=f"e{n}") for n in range(4)]

    def work(number: int) -> None:
        for at in range(50):
            many[number].export(batch({"run": number, "at": at}, first=at, run=f"{number:016}"))

    # When
    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # Then every line is there once and whole
    lines = [line for path in target.parent.glob("data.txt*") for line in path.read_text().splitlines()]
    assert sorted(lines) == sorted(f'{{"run":{run},"at":{at}}}' for run in range(4) for at in range(50))


def test_a_lock_held_by_others_ends_with_the_deadline(target: Path) -> None:
    exporter = FileExporter(target)
    exporter.connect()

    with target.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError, match="another program holds the lock"):
            exporter.export(batch("1", deadline=time.monotonic()))

    exporter.export(batch("1", redelivered=True))
    assert target.read_text() == "1\n"


def test_an_attempt_that_was_given_up_does_not_meet_the_next(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an attempt whose write hangs
    exporter = FileExporter(target)
    exporter.connect()
    entered, release = threading.Event(), threading.Event()
    real = os.write

    def slow(handle: int, data: Any) -> int:
        entered.set()
        release.wait()
        return real(handle, data)

    monkeypatch.setattr(os, "write", slow)
    first = threading.Thread(target=lambda: exporter.export(batch("1")))
    first.start()
    entered.wait()

    # When it is given up and tried again
    exporter.disconnect()
    with pytest.raises(TimeoutError, match="an earlier attempt is still writing"):
        exporter.export(batch("1", redelivered=True, deadline=time.monotonic()))
    release.set()
    first.join()

    # Then the line is there once
    exporter.export(batch("1", redelivered=True))
    assert target.read_text() == "1\n"


def test_a_forked_child_has_descriptors_of_its_own(target: Path) -> None:
    # Given
    code = f"""
import os
from resilient_exporters.exporters.file import FileExporter
from resilient_exporters.delivery.outcome import Batch, Record
exporter = FileExporter({str(target)!r})
exporter.export(Batch([Record("a" * 16, 0, "parent", {{}})]))
child = os.fork()
exporter.export(Batch([Record("b" * 16 if child else "c" * 16, 0, "one of two", {{}})]))
if child:
    assert os.waitpid(child, 0)[1] == 0
    exporter.export(Batch([Record("b" * 16, 0, "one of two", {{}})], redelivered=True))
"""

    # When
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])

    # Then
    assert target.read_text() == "parent\none of two\none of two\n"
    assert sorted(path.name for path in target.parent.glob(".*")) == [".data.txt.resume", ".data.txt.resume.1"]


# --- failing disks ---


def test_a_full_disk_leaves_no_half_line(target: Path) -> None:
    # Given room for a line and a half
    exporter = FileExporter(target, resume=False)
    exporter.export(batch("x" * 9))

    # When
    with full_disk(15), pytest.raises(OSError, match="File too large"):
        exporter.export(batch("y" * 9, first=1))

    # Then
    assert target.read_text() == "x" * 9 + "\n"
    exporter.export(batch("y" * 9, first=1, redelivered=True))
    assert target.read_text() == "x" * 9 + "\n" + "y" * 9 + "\n"


def test_a_short_write_is_gone_on_with(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, bytes(data)[:3]))

    FileExporter(target).export(batch("0123456789", "abc"))

    assert target.read_text() == "0123456789\nabc\n"


@pytest.mark.parametrize("resume", [True, False])
def test_what_cannot_be_cut_off_now_is_cut_off_later(
    target: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    # Given a disk that takes a line and a half, and then neither writes nor truncates
    exporter = FileExporter(target, resume=resume)
    exporter.connect()
    real = os.write
    state = {"left": 8}

    def write(handle: int, data: Any) -> int:
        part = bytes(data)[: state["left"]]
        state["left"] -= len(part)
        if not part:
            raise OSError(5, "Input/output error")
        return real(handle, part)

    def refuse(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        patch.setattr(os, "ftruncate", refuse)
        with pytest.raises(OSError, match="Input/output error"):
            exporter.export(batch("first", "second"))
    assert target.read_text() == "first\nse"

    # When it answers again
    exporter.export(batch("first", "second", redelivered=True))

    # Then with a resume record each line is there once; without, at least no line stands behind half a line
    assert target.read_text() == ("first\nsecond\n" if resume else "first\nse\nfirst\nsecond\n")


def test_a_failed_fsync_is_no_delivery(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = FileExporter(target, fsync="batch", resume=False)

    def refuse(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", refuse)
        with pytest.raises(OSError, match="Input/output error"):
            exporter.export(batch("1"))

    exporter.export(batch("1", redelivered=True))
    assert target.read_text() == "1\n"


# --- fsync ---


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)

        def noted(handle: int, real: Any = real) -> None:
            calls.append(os.fstat(handle).st_ino)
            real(handle)

        monkeypatch.setattr(os, name, noted)
    return calls


def test_fsync_never(target: Path, synced: list[int]) -> None:
    exporter = FileExporter(target)

    for at in range(3):
        exporter.export(batch("x", first=at))
    exporter.disconnect()

    assert synced == []


def test_fsync_batch(target: Path, synced: list[int]) -> None:
    exporter = FileExporter(target, fsync="batch")
    exporter.connect()
    names = set(synced)

    for at in range(3):
        exporter.export(batch("x", "y", first=at))

    assert target.parent.stat().st_ino in names  # the new name is on disk too
    record = (target.parent / ".data.txt.resume").stat().st_ino
    assert [inode for inode in synced if inode not in names - {record}] == [record, target.stat().st_ino] * 3


def test_fsync_some_seconds_later_once(target: Path, synced: list[int]) -> None:
    # Given
    exporter = FileExporter(target, fsync=0.05)

    # When two batches follow each other at once
    exporter.export(batch("x"))
    timer = exporter._timer
    exporter.export(batch("y", first=1))
    assert timer is not None
    timer.join()

    # Then one call covers both, and nothing runs while nothing is written
    assert synced.count(target.stat().st_ino) == 1
    assert exporter._timer is None
    exporter.export(batch("z", first=2))
    exporter.disconnect()
    assert synced.count(target.stat().st_ino) == 2


def test_an_fsync_that_fails_later_is_said(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = FileExporter(target, fsync=0.01)

    def refuse(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", refuse)
        exporter.export(batch("x"))
        timer = exporter._timer
        assert timer is not None
        timer.join()
    with pytest.raises(OSError, match="Input/output error"):
        exporter.export(batch("y", first=1))

    exporter.export(batch("y", first=1, redelivered=True))
    assert target.read_text() == "x\ny\n"
    exporter.stop()


# --- CSV files ---


def test_csv_columns_come_from_the_first_record_and_then_from_the_file(target: Path) -> None:
    # Given
    first = FileExporter(target, format="csv")
    first.export(batch({"t": 1, "v": 2.5}))
    first.disconnect()

    # When another goes on, with the keys in another order and one too many
    answer = FileExporter(target, format="csv").export(batch({"v": 3, "t": 2}, {"w": 1}, {"t": 3}, first=1))

    # Then
    assert target.read_text() == "t,v\n1,2.5\n2,3\n3,\n"
    assert answer is not None
    assert isinstance(answer[1], Reject)
    assert "no column for w" in answer[1].reason


def test_csv_columns_that_are_not_those_of_the_file_are_held(target: Path) -> None:
    target.write_text("a,b\n")

    with pytest.raises(HoldError, match="header=False"):
        FileExporter(target, format="csv", fields=["b", "a"]).export(batch({"a": 1}))

    FileExporter(target, format="csv", fields=["b", "a"], header=False).export(batch({"a": 1}))
    assert target.read_text() == "a,b\n,1\n"


def test_csv_header_after_truncation_by_others(target: Path) -> None:
    exporter = FileExporter(target, format="csv", max_lines=3)
    exporter.export(batch({"a": 1}))
    os.truncate(target, 0)

    answer = exporter.export(batch({"a": 2}, {"a": 3}, {"a": 4}, first=1))

    assert target.read_text() == "a\n2\n3\n"
    assert isinstance((answer or [])[2], Full)


# --- bad input ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_lines": -1}, "max_lines=-1 is not possible; give a whole number, 1 or more, or None"),
        ({"max_lines": 0}, "max_lines=0"),
        ({"max_lines": "5"}, "max_lines='5'"),
        ({"max_lines": True}, "max_lines=True"),
        ({"fsync": "always"}, "fsync='always'"),
        ({"fsync": 0}, "fsync=0"),
        ({"fsync": True}, "fsync=True"),
        ({"format": "yaml"}, "format='yaml'"),
        ({"maxlines": 5}, "no option maxlines"),
    ],
)
def test_impossible_options_are_named(target: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        FileExporter(target, **options)


@pytest.mark.parametrize("path", ["", None, 3.5, "a\0b", "folder/", "."])
def test_impossible_targets_are_named(path: Any) -> None:
    with pytest.raises(InvalidConfigError, match="target_file="):
        FileExporter(path)


def test_a_path_that_cannot_be_written_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HoldError, match="cannot write to"):
        FileExporter(tmp_path / "file" / "below").connect()

    later = FileExporter(tmp_path / "later")
    (tmp_path / "later").mkdir()
    with pytest.raises(HoldError, match="Is a directory"):
        later.connect()

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HoldError, match="neither a file nor a terminal"):
        FileExporter(tmp_path / "pipe").connect()

    def refuse(*_: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(HoldError, match="Permission denied"):
        FileExporter(tmp_path / "new").connect()


def test_a_device_takes_lines_and_nothing_else() -> None:
    exporter = FileExporter("/dev/null", max_lines=1, rotate_bytes=1)

    assert exporter.export(batch("1", "2", "3")) is None
    assert not Path("/dev/.null.resume").exists()


def test_sigxfsz_is_ignored_by_python() -> None:
    # Else a size limit would end the program, and no exporter could do anything about it.
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
