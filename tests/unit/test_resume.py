from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.outcome import Batch, Record
from resilient_exporters.exporters.file import FileExporter
from resilient_exporters.exporters.intent import Intent
from resilient_exporters.exporters.resume import ResumeRecord, Written
from resilient_exporters.exporters.slots import FIRST_SLOT

RUN = "0123456789abcdef"
OTHER = "fedcba9876543210"


class Killed(BaseException):
    pass


def batch(*data: Any, first: int = 0, run: str = RUN, redelivered: bool = False) -> Batch:
    return Batch([Record(run, first + at, item, {}) for at, item in enumerate(data)], redelivered=redelivered)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Export a batch in a program that is killed once ``size`` bytes of it are written."""

    def export(exporter: FileExporter, records: Batch, size: int) -> None:
        real = os.write

        def write(handle: int, data: Any) -> int:
            real(handle, bytes(data)[:size])
            raise Killed

        exporter.connect()
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            with pytest.raises(Killed):
                exporter.export(records)
        die(exporter)

    return export


def die(exporter: FileExporter) -> None:
    """What a kill leaves: closed descriptors, nothing tidied."""
    exporter._file.close()
    if exporter._resume is not None:
        exporter._resume.close()


def reboot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "boot", lambda self: "another boot")


@pytest.mark.parametrize("size", range(19))
def test_a_torn_batch_is_completed(target: Path, killed: Any, size: int) -> None:
    killed(FileExporter(target), batch("first", "second", "third"), size)

    FileExporter(target).export(batch("first", "second", "third", "fourth", redelivered=True))

    assert target.read_text() == "first\nsecond\nthird\nfourth\n"


@pytest.mark.parametrize("size", range(13))
def test_a_record_of_several_lines_is_whole_or_not_there(target: Path, killed: Any, size: int) -> None:
    killed(FileExporter(target), batch("a\nb\nc", "d\ne\nf"), size)

    FileExporter(target).export(batch("a\nb\nc", "d\ne\nf", redelivered=True))

    assert target.read_text() == "a\nb\nc\nd\ne\nf\n"


def test_a_first_delivery_is_not_looked_up(target: Path) -> None:
    exporter = FileExporter(target)
    exporter.export(batch("1"))

    exporter.export(batch("1"))  # the engine says that the file cannot have it: then it has not

    assert target.read_text() == "1\n1\n"


def test_records_out_of_order_and_of_several_runs(target: Path) -> None:
    # Given the newest first, and a second queue in between
    first = FileExporter(target)
    first.export(batch("10", "11", first=10))
    first.export(batch("b0", run=OTHER))
    first.export(batch("2", "3", first=2))
    die(first)

    # When all of them are delivered again, with what was left out
    second = FileExporter(target)
    second.export(batch(*map(str, range(12)), redelivered=True))
    second.export(batch("b0", "b1", run=OTHER, redelivered=True))

    # Then
    assert target.read_text().split() == ["10", "11", "b0", "2", "3", "0", "1", *"456789", "b1"]


def test_a_file_renamed_after_the_kill_is_looked_for(target: Path, killed: Any) -> None:
    # Given a torn write, and logrotate before the restart
    killed(FileExporter(target), batch("first", "second", "third"), 15)
    target.rename(target.with_name("log-20240501"))

    # When
    FileExporter(target).export(batch("first", "second", "third", redelivered=True))

    # Then the torn line is cut off there, and written here
    assert target.with_name("log-20240501").read_text() == "first\nsecond\n"
    assert target.read_text() == "third\n"


def test_a_file_edited_after_the_kill_is_known_by_its_content(target: Path, killed: Any) -> None:
    killed(FileExporter(target), batch("first", "second"), 6)
    text = target.read_text()
    target.rename(target.with_name("backup"))
    target.with_name("backup").unlink()
    target.write_text(text)

    FileExporter(target).export(batch("first", "second", redelivered=True))

    assert target.read_text() == "first\nsecond\n"


@pytest.mark.parametrize("foreign", ["x\n", "a whole line of another program\n", "x\nhalf"])
def test_lines_of_others_behind_a_torn_write_are_never_cut_off(target: Path, killed: Any, foreign: str) -> None:
    # Given a program that was killed before its first byte, and another that wrote then
    killed(FileExporter(target), batch("first", "second"), 0)
    with target.open("a") as other:
        other.write(foreign)

    # When
    FileExporter(target).export(batch("first", "second", redelivered=True))

    # Then
    assert target.read_text() == foreign + ("" if foreign.endswith("\n") else "\n") + "first\nsecond\n"


@pytest.mark.parametrize("hole", [(0, 8), (3, 9), (8, 14), (14, 19), (6, 13)])
def test_a_write_that_a_power_cut_left_with_holes_is_made_again(
    target: Path, killed: Any, hole: tuple[int, int]
) -> None:
    # Given a file of which some sectors were on disk, others not (here a few bytes each)
    killed(FileExporter(target), batch("first", "second", "third"), 19)
    raw = bytearray(target.read_bytes())
    raw[slice(*hole)] = bytes(hole[1] - hole[0])
    target.write_bytes(raw)

    # When
    FileExporter(target).export(batch("first", "second", "third", redelivered=True))

    # Then
    assert target.read_text() == "first\nsecond\nthird\n"


def test_a_line_of_another_behind_a_hole_is_kept(target: Path, killed: Any) -> None:
    # Given a write of which only zeros were on disk, and another program that wrote behind them
    killed(FileExporter(target), batch("first", "second", "third"), 19)
    target.write_bytes(bytes(6) + b"of another\n")

    # When
    FileExporter(target).export(batch("first", "second", "third", redelivered=True))

    # Then
    assert target.read_bytes() == bytes(6) + b"of another\nfirst\nsecond\nthird\n"


def test_zeros_that_a_power_cut_left_are_cut_off(target: Path, killed: Any) -> None:
    # Given a file whose size was on disk before its content
    killed(FileExporter(target), batch("first", "second", "third"), 19)
    target.write_bytes(b"first\n" + bytes(13))

    # When
    FileExporter(target).export(batch("first", "second", "third", redelivered=True))

    # Then
    assert target.read_text() == "first\nsecond\nthird\n"


def test_lines_lost_in_a_power_cut_are_written_again(
    target: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given three batches, of which a power cut left one and a half on disk, but the whole resume record
    exporter = FileExporter(target)
    for at, text in enumerate(["first", "second", "third"]):
        exporter.export(batch(text, first=at))
    die(exporter)
    os.truncate(target, 9)
    reboot(monkeypatch)

    # When what the queue still has is delivered again
    FileExporter(target).export(batch("second", "third", first=1, redelivered=True))

    # Then rather a broken line too many than a record lost
    assert target.read_text() == "first\nsec\nsecond\nthird\n"
    assert "lost lines in a power cut" in caplog.text


def test_after_a_reboot_that_lost_nothing_no_line_is_doubled(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = FileExporter(target)
    exporter.export(batch("first"))
    exporter.export(batch("second", first=1))
    die(exporter)
    reboot(monkeypatch)

    FileExporter(target).export(batch("first", "second", redelivered=True))

    assert target.read_text() == "first\nsecond\n"


@pytest.mark.parametrize("fsync", ["never", "batch"])
def test_after_a_reboot_another_file_is_believed_only_if_lines_were_synced(
    target: Path, monkeypatch: pytest.MonkeyPatch, fsync: str
) -> None:
    # Given a file that was replaced, by a power cut that undid a rename or by logrotate
    exporter = FileExporter(target, fsync=fsync)
    exporter.export(batch("first"))
    exporter.export(batch("second", first=1))
    die(exporter)
    target.rename(target.with_name("log.1"))
    target.touch()
    reboot(monkeypatch)

    # When
    FileExporter(target, fsync=fsync).export(batch("first", "second", redelivered=True))

    # Then
    assert target.read_text() == ("" if fsync == "batch" else "first\nsecond\n")


def test_a_truncation_by_copytruncate_is_no_power_cut(target: Path) -> None:
    # Given a file that logrotate copied and emptied while the program was down
    exporter = FileExporter(target)
    exporter.export(batch("first"))
    exporter.export(batch("second", first=1))
    exporter.disconnect()
    os.truncate(target, 0)

    # When
    FileExporter(target).export(batch("first", "second", "third", redelivered=True))

    # Then what is in the copy is not written again
    assert target.read_text() == "third\n"


@pytest.mark.parametrize("slot", [0, 1])
def test_a_damaged_slot_leaves_the_other(target: Path, slot: int) -> None:
    # Given a record whose one slot is torn
    exporter = FileExporter(target)
    exporter.export(batch("first"))
    exporter.export(batch("second", first=1))
    die(exporter)
    record = target.with_name(".log.resume")
    content = bytearray(record.read_bytes())
    place = 16 + slot * FIRST_SLOT
    content[place + 20 : place + 30] = bytes(10)
    record.write_bytes(content)

    # When
    FileExporter(target).export(batch("first", "second", redelivered=True))

    # Then at most the last batch is doubled (it never is by a kill: the slot is written before the lines)
    lines = target.read_text().split()
    assert lines[:2] == ["first", "second"]
    assert lines[2:] in ([], ["second"])


@pytest.mark.parametrize("content", [b"", b"short", bytes(40_000), b"RXRESUME" + b"\xff" * 40_000])
def test_a_record_that_is_none_is_begun_anew(target: Path, content: bytes) -> None:
    target.with_name(".log.resume").write_bytes(content)

    first = FileExporter(target)
    first.export(batch("1"))
    die(first)
    FileExporter(target).export(batch("1", "2", redelivered=True))

    assert target.read_text() == "1\n2\n"


def test_the_record_is_ours_alone(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FileExporter(target).export(batch("1"))
    record = target.with_name(".log.resume")
    assert stat.S_IMODE(record.stat().st_mode) == 0o600

    # A record of another user, or a link to one, proves nothing: a numbered one is taken.
    record.unlink()
    record.symlink_to("/etc/hostname")
    with pytest.raises(OSError, match=r"\.log\.resume"):
        FileExporter(target).connect()
    record.unlink()
    record.touch()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(OSError, match="held by others"):
        FileExporter(target).connect()


def test_a_large_batch_grows_the_record(target: Path) -> None:
    exporter = FileExporter(target)

    exporter.export(batch("first"))
    exporter.export(batch(*(str(n) for n in range(1, 10_000)), first=1))
    die(exporter)
    FileExporter(target).export(batch(*(str(n) for n in range(10_001)), redelivered=True))

    assert target.read_text().split() == ["first", *(str(n) for n in range(1, 10_001))]
    assert target.with_name(".log.resume").stat().st_size < 1 << 20


def test_the_record_of_a_program_that_is_gone_is_taken_over(target: Path, killed: Any) -> None:
    # Given two programs that write to one file, the second killed in the middle of a batch
    one, two = FileExporter(target), FileExporter(target)
    one.export(batch("one"))
    killed(two, batch("first", "second", run=OTHER), 9)
    assert target.with_name(".log.resume.1").exists()
    die(one)

    # When one program comes back and has the backlog of both
    back = FileExporter(target)
    back.export(batch("one", redelivered=True))
    back.export(batch("first", "second", run=OTHER, redelivered=True))

    # Then
    assert target.read_text() == "one\nfirst\nsecond\n"
    assert not target.with_name(".log.resume.1").exists()
    die(back)
    third = FileExporter(target)
    third.export(batch("first", "second", run=OTHER, redelivered=True))
    assert target.read_text() == "one\nfirst\nsecond\n"


def test_where_no_record_can_be_made_lines_are_written_all_the_same(
    target: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a directory in which the file may be written but none made (as of root's /var/log)
    target.touch()
    real = os.open

    def refuse(path: Any, flags: int, *mode: int) -> int:
        if str(path).endswith(".resume"):
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", refuse)

    # When
    FileExporter(target).export(batch("1"))

    # Then
    assert target.read_text() == "1\n"
    assert "give resume=<path>" in caplog.text


def test_the_record_may_be_elsewhere_or_nowhere(target: Path, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    elsewhere = FileExporter(target, resume=tmp_path / "state" / "x")
    elsewhere.export(batch("1"))
    nowhere = FileExporter(target, resume=False)
    nowhere.export(batch("2", first=1))
    nowhere.disconnect()

    assert (tmp_path / "state" / "x").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "state"]


def test_what_is_known_is_bounded() -> None:
    # Given
    written = Written()

    # When a thousand ranges and a hundred runs are noted
    for at in range(1000):
        written.add([(RUN, 2 * at, 1)])
    assert sum(map(len, written.ranges().values())) == 512
    for at in range(100):
        written.add([(f"{at:016}", 0, 5)])

    # Then the newest are known
    assert ("0" * 14 + "99", 4) in written
    assert ("0" * 14 + "35", 4) not in written
    assert len(written.ranges()) == 64


def test_the_oldest_ranges_are_forgotten_first() -> None:
    written = Written()
    for at in range(600):
        written.add([(RUN, 2 * at, 1)])
    written.ranges()

    assert (RUN, 0) not in written
    assert (RUN, 1198) in written


pieces = st.lists(st.lists(st.binary(max_size=5).map(lambda line: line.replace(b"\n", b"")), min_size=1, max_size=3))


@given(pieces, st.data())
def test_an_intent_tells_exactly_what_stands_in_the_file(
    tmp_path_factory: pytest.TempPathFactory, records: Sequence[Sequence[bytes]], data: st.DataObject
) -> None:
    # Given records of one or more lines, of which a kill left some bytes behind others' lines
    before = b"others\n"
    encoded = [b"".join(line + b"\n" for line in record) for record in records]
    whole = b"".join(encoded)
    size = data.draw(st.integers(0, len(whole)))
    path = tmp_path_factory.mktemp("intent") / "file"
    path.write_bytes(before + whole[:size])
    handle = os.open(path, os.O_RDWR)

    # When
    intent = Intent.of([(RUN, 5, len(encoded))], encoded, inode=0, start=len(before))
    standing = intent.standing(handle)
    os.close(handle)

    # Then
    ends = [sum(map(len, encoded[: n + 1])) for n in range(len(encoded))]
    count = sum(end <= size for end in ends)
    assert standing.records == count
    assert standing.end == len(before) + (ends[count - 1] if count else 0)
    assert standing.torn == (len(before) + size > standing.end)
    assert intent.written(count) == ([(RUN, 5, count)] if count else [])


def test_a_record_is_let_go_and_taken_again(target: Path) -> None:
    record = ResumeRecord(target.with_name("r"), durable=False)
    record.open(target)
    record.close()

    assert not record.is_open
    record.open(target)
    assert record.is_open
    record.close()
