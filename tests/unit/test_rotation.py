from __future__ import annotations

import gzip
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import zstandard

from resilient_exporters.delivery.outcome import Batch, Record
from resilient_exporters.errors import InvalidConfigError, MissingModuleError
from resilient_exporters.exporters.file import FileExporter

RUN = "0123456789abcdef"


def batch(*data: Any, first: int = 0, redelivered: bool = False) -> Batch:
    return Batch([Record(RUN, first + at, item, {}) for at, item in enumerate(data)], redelivered=redelivered)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_a_file_is_set_aside_before_it_passes_the_size(tmp_path: Path) -> None:
    # Given a limit of three lines of ten bytes
    exporter = FileExporter(tmp_path / "log", rotate_bytes=30)

    # When one batch brings seven
    answer = exporter.export(batch(*[f"line {at:04}" for at in range(7)]))

    # Then no file is larger, and no line is lost
    assert answer is None
    assert names(tmp_path) == ["log", "log.000001", "log.000002"]
    assert (tmp_path / "log.000001").read_text() == "line 0000\nline 0001\nline 0002\n"
    assert (tmp_path / "log.000002").read_text() == "line 0003\nline 0004\nline 0005\n"
    assert (tmp_path / "log").read_text() == "line 0006\n"


def test_a_line_larger_than_the_size_has_a_file_of_its_own(tmp_path: Path) -> None:
    exporter = FileExporter(tmp_path / "log", rotate_bytes="0.01 kB")

    exporter.export(batch("short", "x" * 50, "short"))

    assert (tmp_path / "log.000002").read_text() == "x" * 50 + "\n"
    assert (tmp_path / "log").read_text() == "short\n"


@pytest.mark.parametrize(
    ("every", "age", "rotates"),
    [
        (3600, 3601, True),
        (timedelta(days=1), 86401, True),
        ("hourly", 3601, True),
        ("daily", 86401, True),
        ("monthly", 32 * 86400, True),
        (3600, -7200, False),  # written "in the future": the clock was set back
        ("monthly", 0, False),
    ],
)
def test_a_file_of_an_earlier_period_is_set_aside(tmp_path: Path, every: Any, age: float, rotates: bool) -> None:
    # Given a file last written some time ago
    target = tmp_path / "log"
    target.write_text("old\n")
    written = time.time() - age
    os.utime(target, (written, written))

    # When
    FileExporter(target, rotate_every=every).export(batch("new"))

    # Then
    assert target.read_text() == ("new\n" if rotates else "old\nnew\n")
    assert names(tmp_path) == (["log", "log.000001"] if rotates else ["log"])


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    exporter = FileExporter(tmp_path / "log", rotate_bytes=2, keep=2)

    for at in range(6):
        exporter.export(batch(str(at), first=at))

    assert names(tmp_path) == ["log", "log.000004", "log.000005"]
    assert (tmp_path / "log.000005").read_text() == "4\n"


@pytest.mark.parametrize(("compress", "suffix"), [("gzip", ".gz"), ("zstd", ".zst")])
def test_files_set_aside_are_packed(tmp_path: Path, compress: str, suffix: str) -> None:
    # Given
    exporter = FileExporter(tmp_path / "log", rotate_bytes=2, compress=compress, keep=2)

    # When
    for at in range(4):
        exporter.export(batch(str(at), first=at))

    # Then
    assert names(tmp_path) == ["log", f"log.000002{suffix}", f"log.000003{suffix}"]
    packed = (tmp_path / f"log.000003{suffix}").read_bytes()
    unpacked = (
        gzip.decompress(packed) if compress == "gzip" else zstandard.ZstdDecompressor().stream_reader(packed).read()
    )
    assert unpacked == b"2\n"


def test_what_a_kill_left_half_packed_is_finished_at_the_next_start(tmp_path: Path) -> None:
    # Given one file not packed, one packed but still there plain, and a draft
    (tmp_path / "log.000001").write_text("one\n")
    (tmp_path / "log.000002").write_text("two\n")
    (tmp_path / "log.000002.gz").write_bytes(gzip.compress(b"two\n"))
    (tmp_path / ".log.000001.gz.draft").write_bytes(b"half")

    # When
    FileExporter(tmp_path / "log", rotate_bytes=100, compress="gzip").export(batch("three"))

    # Then every line is in one file
    assert names(tmp_path) == ["log", "log.000001.gz", "log.000002.gz"]
    assert gzip.decompress((tmp_path / "log.000001.gz").read_bytes()) == b"one\n"
    assert not (tmp_path / ".log.000001.gz.draft").exists()


def test_a_disk_that_refuses_the_packed_file_costs_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given
    exporter = FileExporter(tmp_path / "log", rotate_bytes=2, compress="gzip")
    exporter.export(batch("0"))

    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    # When packing fails
    with monkeypatch.context() as patch:
        patch.setattr("resilient_exporters.exporters.rotation.shutil.copyfileobj", refuse)
        assert exporter.export(batch("1", first=1)) is None

    # Then the plain file stays, the log says so, and the next rotation packs it
    assert names(tmp_path) == ["log", "log.000001"]
    assert "No space left on device" in caplog.text
    exporter.export(batch("2", first=2))
    assert names(tmp_path) == ["log", "log.000001.gz", "log.000002.gz"]


def test_a_failure_after_a_rotation_repeats_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a batch that needs two files, and a disk that fails at the second write
    exporter = FileExporter(tmp_path / "log", rotate_bytes=4, resume=False)
    real = os.write
    left = [1]

    def write(handle: int, data: Any) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(5, "Input/output error")
        return real(handle, data)

    # When
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        answer = exporter.export(batch("a", "b", "c"))

    # Then the first two are delivered, only the third waits
    assert answer is not None
    assert [item is None for item in answer] == [True, True, False]
    exporter.export(batch("c", first=2, redelivered=True))
    assert (tmp_path / "log.000001").read_text() + (tmp_path / "log").read_text() == "a\nb\nc\n"


def test_every_csv_file_has_the_header(tmp_path: Path) -> None:
    exporter = FileExporter(tmp_path / "log.csv", format="csv", rotate_bytes=8)

    exporter.export(batch({"a": 1, "b": 2}, {"a": 3, "b": 4}))

    assert (tmp_path / "log.csv.000001").read_text() == "a,b\n1,2\n"
    assert (tmp_path / "log.csv").read_text() == "a,b\n3,4\n"


def test_a_symbolic_link_goes_on_pointing(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "log").symlink_to(tmp_path / "real" / "log")
    exporter = FileExporter(tmp_path / "log", rotate_bytes=2)

    exporter.export(batch("0", "1"))

    assert (tmp_path / "log").is_symlink()
    assert names(tmp_path / "real") == ["log", "log.000001"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotate_bytes": 0}, "rotate_bytes=0"),
        ({"rotate_bytes": "ten"}, "rotate_bytes='ten'"),
        ({"rotate_bytes": True}, "rotate_bytes=True"),
        ({"rotate_every": "weakly"}, "rotate_every='weakly'"),
        ({"rotate_every": -1}, "rotate_every=-1"),
        ({"rotate_every": float("nan")}, "rotate_every=nan"),
        ({"keep": -1}, "keep=-1"),
        ({"compress": "rar"}, "compress='rar'"),
    ],
)
def test_impossible_options_are_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        FileExporter(tmp_path / "log", **options)


def test_zstd_without_its_module_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)

    with pytest.raises(MissingModuleError, match=r"resilient-exporters\[fast\]"):
        FileExporter(tmp_path / "log", rotate_bytes=10, compress="zstd")
