"""Writers of files, shown at the one that writes into a directory."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import resource
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.pipeline import (
    BadRecordError,
    BaseRecord,
    ConfigurationError,
    InconsistentWriteState,
    Pipeline,
    PipelineError,
    PipelineReport,
    StateError,
    UnsupportedCompressionFormat,
)
from resilient_exporters.pipeline.formatters.base import BaseFormatter
from resilient_exporters.pipeline.formatters.json import JsonExportFormatter
from resilient_exporters.pipeline.groupers.base import BaseGrouper
from resilient_exporters.pipeline.readers.iterable import IterableReader
from resilient_exporters.pipeline.writers import FSWriter
from resilient_exporters.pipeline.writers.buffered import BaseBufferedWriter, PackedFile


class ByPlace(BaseGrouper):
    def group_batch(self, batch: Iterable[BaseRecord]) -> Iterator[BaseRecord]:
        for record in batch:
            record.group_membership = (record["place"],)
            yield record


def run(
    records: Iterable[dict[str, Any]], writer: Any, *stages: Any, batch: int = 10, **options: Any
) -> PipelineReport:
    return Pipeline(IterableReader(records, batch_size=batch), *stages, writer=writer, **options).run()


def numbers(count: int, place: Callable[[int], str] = str) -> list[dict[str, Any]]:
    return [{"n": number, "place": place(number)} for number in range(count)]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(folder: Path) -> dict[str, list[int]]:
    return {
        name: [json.loads(line)["n"] for line in gzip.decompress(data).splitlines()]
        for name, data in sorted(files(folder).items())
        if name.endswith(".gz")
    }


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "out_0000.jl.gz"),
        ({"compression": "none"}, "out_0000.jl"),
        ({"start_file_count": 7}, "out_0007.jl.gz"),
        ({"compression": "bz2"}, "out_0000.jl.bz2"),
        ({"compression": "zip"}, "out_0000.jl.zip"),
    ],
)
def test_names_and_compressions_of_the_old_system(tmp_path: Path, options: dict[str, Any], name: str) -> None:
    report = run(numbers(3), FSWriter(filebase=f"{tmp_path}/a/out_", **options))
    ((found, data),) = files(tmp_path / "a").items()
    assert found == name
    unpack: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.decompress, "bz2": bz2.decompress, "jl": bytes,
        "zip": lambda packed: zipfile.ZipFile(io.BytesIO(packed)).read("out_0000.jl"),
    }  # fmt: skip
    assert [json.loads(line)["n"] for line in unpack[name.rpartition(".")[2]](data).splitlines()] == [0, 1, 2]
    assert report.written == 3
    assert report.figures["writer"]["effective_filebase"] == f"{tmp_path}/a/out_"
    (written,) = report.figures["writer"]["files_written"]
    assert written["filename"] == f"{tmp_path}/a/{name}"
    assert (written["number_of_records"], written["size"]) == (3, len(data))


def test_a_compression_that_there_is_not_is_refused() -> None:
    with pytest.raises(UnsupportedCompressionFormat, match=r"compression='rar' is none of gz, bz2, zip, none"):
        FSWriter(filebase="x", compression="rar")


@pytest.mark.parametrize(
    "options",
    [
        {"items_per_buffer_write": -1}, {"size_per_buffer_write": -1}, {"start_file_count": -1},
        {"write_buffer": "exporters.write_buffers.Other"}, {"write_buffer": "json.JSONDecoder"},
        {"write_buffer": "no.such.thing"}, {"write_buffer_options": {"x": 1}},
        {"write_buffer": "ReservoirSamplingWriteBuffer", "write_buffer_options": {"sample_size": 0}},
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        FSWriter(filebase="x", **options)
    assert next(iter(options)).partition("_options")[0] in str(caught.value) or "sample_size" in str(caught.value)


def test_a_writer_is_made_without_touching_anything(tmp_path: Path) -> None:
    FSWriter(filebase=f"{tmp_path}/a/out_", generate_md5=True)
    assert not list(tmp_path.iterdir())


def test_nothing_to_write_writes_nothing(tmp_path: Path) -> None:
    report = run([], FSWriter(filebase=f"{tmp_path}/a/out_", generate_md5=True))
    assert not (tmp_path / "a").exists()
    assert report.figures["writer"]["files_written"] == []


def test_full_buffers_are_written_as_they_fill(tmp_path: Path) -> None:
    run(numbers(25), FSWriter(filebase=f"{tmp_path}/a/", items_per_buffer_write=10))
    assert [len(found) for found in rows(tmp_path / "a").values()] == [10, 10, 5]


def test_bytes_fill_a_buffer_too(tmp_path: Path) -> None:
    run(numbers(25), FSWriter(filebase=f"{tmp_path}/a/", size_per_buffer_write=200, compression="none"))
    found = files(tmp_path / "a")
    assert len(found) > 2
    assert all(200 <= len(data) < 240 for name, data in found.items() if name != max(found))


def test_a_limit_of_the_run_ends_it(tmp_path: Path) -> None:
    report = run(numbers(25), FSWriter(filebase=f"{tmp_path}/a/", items_limit=12, items_per_buffer_write=5))
    assert [len(found) for found in rows(tmp_path / "a").values()] == [5, 5, 2]
    assert report.written == 12


def test_groups_have_files_of_their_own(tmp_path: Path) -> None:
    """Fault 5 of the old system: 100 records written, 10 on disk."""
    run(
        numbers(100, lambda n: f"g{n % 2}"),
        FSWriter(filebase=f"{tmp_path}/a/{{groups[0]}}/{{groups[0]}}", items_per_buffer_write=10),
        ByPlace(),
    )
    found = rows(tmp_path / "a")
    assert list(found) == [f"g{g}/g{g}{end}.jl.gz" for g in (0, 1) for end in ("-0001", "-0002", "-0003", "-0004", "")]
    assert sorted(n for some in found.values() for n in some) == list(range(100))


@pytest.mark.parametrize("group", ["../../x", "/etc/x", "..", "a\0b", "a/../../../b"])
def test_no_group_leaves_the_directory(tmp_path: Path, group: str) -> None:
    """Fault 6 of the old system."""
    run(
        [{"n": 1, "place": group}],
        FSWriter(filebase=f"{tmp_path}/a/b/{{groups[0]}}/x_{{groups[0]}}", generate_md5=True),
        ByPlace(),
    )
    found = files(tmp_path)
    assert len([name for name in found if name.startswith("a/b/") and name.endswith(".jl.gz")]) == 1
    assert {Path(name).parts[0] for name in found} <= {"a", "queues"}


def test_the_md5_file_has_a_line_for_each(tmp_path: Path) -> None:
    import hashlib

    run(numbers(25), FSWriter(filebase=f"{tmp_path}/a/", items_per_buffer_write=10, generate_md5=True))
    found = files(tmp_path / "a")
    lines = found.pop("md5checksum.md5").decode().splitlines()
    assert lines == [f"{hashlib.md5(found[name]).hexdigest()} {tmp_path}/a/{name}" for name in sorted(found)]


def test_what_does_not_arrive_is_noticed(tmp_path: Path) -> None:
    class Thief(FSWriter):
        def put(self, path: Path, name: str, packed: PackedFile | None) -> None:
            super().put(path, name, packed)
            Path(name).unlink()
            Path(name).write_bytes(b"other")

    run(numbers(3), Thief(filebase=f"{tmp_path}/unseen/"))
    with pytest.raises(InconsistentWriteState, match="has 5 bytes and should have"):
        run(numbers(3), Thief(filebase=f"{tmp_path}/a/", check_consistency=True))


def test_a_directory_that_cannot_be_is_said_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    read: list[int] = []

    def source() -> Iterator[dict[str, Any]]:
        read.append(1)
        yield {"n": 1}

    with pytest.raises(PipelineError, match="is no directory"):
        run(source(), FSWriter(filebase=f"{tmp_path}/file/x_"), disable_retries=True)
    assert not read


def test_files_have_the_rights_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        run(numbers(3), FSWriter(filebase=f"{tmp_path}/a/", generate_md5=True))
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").iterdir()} == {0o640}
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o750


def test_another_file_system_is_copied_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    run(numbers(3), FSWriter(filebase=f"{tmp_path}/a/"))
    assert rows(tmp_path / "a") == {"0000.jl.gz": [0, 1, 2]}


def test_many_groups_need_few_open_files(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 20, hard))
    try:
        writer = FSWriter(filebase=f"{tmp_path}/a/{{groups[0]}}_")
        run(numbers(1000, lambda n: f"g{n % 400}"), writer, ByPlace(), batch=300)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    found = rows(tmp_path / "a")
    assert len(found) == 400
    assert Counter(n for some in found.values() for n in some) == Counter(range(1000))


def test_a_failed_run_goes_on_where_it_was_committed(tmp_path: Path) -> None:
    # Given: a run that fails in its third batch, with files written and buffers open
    class Failing(JsonExportFormatter):
        def format(self, item: dict[str, Any]) -> bytes:
            if item["n"] == 25:
                raise KeyboardInterrupt
            return super().format(item)

    def parts() -> dict[str, Any]:
        return {
            "writer": FSWriter(filebase=f"{tmp_path}/a/%Y_{{groups[0]}}_", items_per_buffer_write=4),
            "work_dir": tmp_path / "work",
        }

    first = Pipeline(
        IterableReader(numbers(50, lambda n: "../x" if n % 3 else "plain"), batch_size=10), ByPlace(),
        formatter=Failing(), **parts(),
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        first.run()
    # When it is resumed
    again = Pipeline(
        IterableReader(numbers(50, lambda n: "../x" if n % 3 else "plain"), batch_size=10), ByPlace(),
        resume=first.persistence.job, formatter=JsonExportFormatter(), configuration=first.configuration, **parts(),
    )  # fmt: skip
    report = again.run()
    # Then each record is there once, with one token for the unsafe group, no buffer left
    found = rows(tmp_path / "a")
    assert Counter(n for some in found.values() for n in some) == Counter(range(50))
    assert len({name.split("_")[1] for name in found}) == 2
    assert report.written == 50
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize("compression", ["gz", "bz2", "zip", "none"])
def test_large_files_are_packed_while_they_grow_and_again_after_a_crash(tmp_path: Path, compression: str) -> None:
    # Given: a run with two large groups and a small one, that fails in its middle
    records = [{"n": n, "place": f"g{n % 2 if n % 50 else 2}", "text": "x" * 1000} for n in range(6000)]

    def source(count: int) -> Iterator[dict[str, Any]]:
        yield from records[:count]
        if count < len(records):
            raise KeyboardInterrupt

    def pipeline(count: int, **options: Any) -> Pipeline:
        writer = FSWriter(filebase=f"{tmp_path}/a/", compression=compression, size_per_buffer_write=2_000_000)
        reader = IterableReader(source(count), batch_size=500)
        return Pipeline(reader, ByPlace(), writer=writer, work_dir=tmp_path / "work", **options)

    first = pipeline(3300)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    begun = {path.name for path in (tmp_path / "work").glob("*/finished/*")}
    assert len(begun) == (2 if compression in ("gz", "bz2") else 0)  # of the two that are large
    # When
    pipeline(6000, resume=first.persistence.job).run()
    # Then
    unpack: dict[str, Callable[[Path], bytes]] = {
        "gz": lambda path: gzip.decompress(path.read_bytes()), "bz2": lambda path: bz2.decompress(path.read_bytes()),
        "none": Path.read_bytes, "zip": lambda path: zipfile.ZipFile(path).read(path.name.removesuffix(".zip")),
    }  # fmt: skip
    there: list[int] = []
    for path in sorted((tmp_path / "a").iterdir()):
        found = [json.loads(line)["n"] for line in unpack[compression](path).splitlines()]
        assert found == sorted(found)
        there += found
    assert sorted(there) == list(range(6000))


def test_a_full_disk_while_packing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("resilient_exporters.pipeline.writers.packing.Packing.write", full)
    records = [{"n": n, "text": "x" * 10_000} for n in range(1000)]
    with pytest.raises(OSError, match="No space left"):
        run(records, FSWriter(filebase=f"{tmp_path}/a/"), batch=100)
    assert not (tmp_path / "a").exists()


def test_a_workplace_that_somebody_emptied_is_said(tmp_path: Path) -> None:
    class Refusing(FSWriter):
        def put(self, path: Path, name: str, packed: PackedFile | None) -> None:
            raise PipelineError(None, "no")

    def pipeline(**options: Any) -> Pipeline:
        writer = Refusing(filebase=f"{tmp_path}/a/", items_per_buffer_write=5)
        return Pipeline(IterableReader(numbers(20), batch_size=6), writer=writer, work_dir=tmp_path / "work", **options)

    first = pipeline()
    with pytest.raises(PipelineError, match="no"):
        first.run()
    (finished,) = (tmp_path / "work").glob("*/finished/*")
    finished.unlink()
    with pytest.raises(StateError, match="to be delivered: begin the job anew"):
        pipeline(resume=first.persistence.job).run()


def test_a_record_that_cannot_be_formatted_is_a_bad_one(tmp_path: Path) -> None:
    class Picky(JsonExportFormatter):
        def format(self, item: dict[str, Any]) -> bytes:
            return super().format({"n": 10 // (item["n"] - 3)} | item)

    with pytest.raises(BadRecordError, match="ZeroDivisionError"):
        run(numbers(5), FSWriter(filebase=f"{tmp_path}/a/"), formatter=Picky())
    report = run(numbers(5), FSWriter(filebase=f"{tmp_path}/b/"), formatter=Picky(), on_bad_record="skip")
    assert rows(tmp_path / "b") == {"0000.jl.gz": [0, 1, 2, 4]}
    assert (report.written, report.bad) == (4, {"writer": 1})


def test_headers_and_footers_stand_in_every_file(tmp_path: Path) -> None:
    run(
        numbers(25), FSWriter(filebase=f"{tmp_path}/a/", items_per_buffer_write=10, compression="none"), batch=4,
        formatter=JsonExportFormatter(jsonlines=False),
    )  # fmt: skip
    assert [len(json.loads(data)) for _, data in sorted(files(tmp_path / "a").items())] == [10, 10, 5]


def test_a_format_that_is_written_whole(tmp_path: Path) -> None:
    class Sorted(BaseFormatter):
        whole = True
        file_extension = "txt"
        separator = b"\n"

        def format(self, item: dict[str, Any]) -> bytes:
            return b"%03d" % item["n"]

        def assemble(self, source: Any, target: Any) -> None:
            target.write(b"|".join(sorted(source.read().split(b"\n"), reverse=True)))

    run(numbers(5), FSWriter(filebase=f"{tmp_path}/a/", compression="none"), formatter=Sorted(), batch=2)
    assert files(tmp_path / "a") == {"0000.txt": b"004|003|002|001|000"}


def test_a_writer_of_an_old_user_gets_finished_files(tmp_path: Path) -> None:
    # Given: a subclass in the old style
    got: list[tuple[str, Any, list[int]]] = []

    class Mine(BaseBufferedWriter):
        def write(self, dump_path: str, group_key: Any = None) -> None:
            with gzip.open(dump_path) as file:
                found = [json.loads(line)["n"] for line in file]
            assert self.write_buffer.get_metadata_of(dump_path, "number_of_records") == len(found)
            got.append((dump_path, group_key, found))

    # When
    run(numbers(6, lambda n: f"g{n % 2}"), Mine(items_per_buffer_write=2), ByPlace())
    # Then
    assert [(group, found) for _, group, found in got] == [
        (("g0",), [0, 2]), (("g1",), [1, 3]), (("g0",), [4]), (("g1",), [5]),
    ]  # fmt: skip
    assert not any(Path(path).exists() for path, _, _ in got)


def test_a_writer_can_be_used_without_a_pipeline(tmp_path: Path) -> None:
    writer = FSWriter(filebase=f"{tmp_path}/a/", items_per_buffer_write=2)
    writer.write_batch([BaseRecord(n=1), BaseRecord(n=2), BaseRecord(n=3)])
    writer.flush()
    writer.finish_writing()
    place = writer.workplace.path
    writer.close()
    assert rows(tmp_path / "a") == {"0000.jl.gz": [1, 2], "0001.jl.gz": [3]}
    assert not place.exists()


def test_a_sample_is_written_at_the_end_and_is_fair(tmp_path: Path) -> None:
    options = {"write_buffer": "exporters.write_buffers.reservoir_sampling_buffer.ReservoirSamplingWriteBuffer"}
    there: Counter[int] = Counter()
    for number in range(100):
        writer = FSWriter(
            filebase=f"{tmp_path}/{number}/", items_per_buffer_write=3, write_buffer_options={"sample_size": 20},
            **options,
        )  # fmt: skip
        writer.write_buffer.random.seed(number)  # type: ignore[attr-defined] # it is the one with the sample
        writer.write_batch(map(BaseRecord, numbers(100)))
        writer.flush()
        writer.finish_writing()
        writer.close()
        ((name, sample),) = rows(tmp_path / str(number)).items()
        assert (name, len(set(sample))) == ("0000.jl.gz", 20)
        there.update(sample)
    # A record is in a sample with probability 1/5: 20 of 100 expected, standard deviation 4
    assert all(2 <= there[n] <= 40 for n in range(100))
    assert 350 <= sum(there[n] for n in range(20)) <= 450
