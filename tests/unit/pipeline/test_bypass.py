"""Data that goes straight from source to target: when, that it arrives as it is, and that a resume goes on."""

from __future__ import annotations

import gzip
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from resilient_exporters.pipeline import InconsistentWriteState, Pipeline, retries
from resilient_exporters.pipeline.bypass import CASES, BaseBypass, RequisitesNotMet, S3Bypass, StreamBypass
from resilient_exporters.pipeline.formatters import CSVExportFormatter
from resilient_exporters.pipeline.notifications import BaseNotifier
from resilient_exporters.pipeline.readers import FSReader, S3Reader
from resilient_exporters.pipeline.writers import BaseWriter, FSWriter, ObjectStoreWriter, S3Writer
from tests.s3 import ACCOUNT, s3_server

S3 = {
    "reader": {"name": "exporters.readers.s3_reader.S3Reader", "options": {"bucket": "from"}},
    "writer": {"name": "exporters.writers.s3_writer.S3Writer", "options": {"bucket": "to", "filebase": "x/"}},
}
NEUTRAL = {
    "filter": {"name": "exporters.filters.no_filter.NoFilter"},
    "filter_after": {"name": "NoFilter"},
    "transform": {"name": "NoTransform", "options": {}},
    "grouper": {"name": "NoGrouper"},
    "persistence": {"name": "PicklePersistence"},
    "exporter_options": {"formatter": {"name": "JsonExportFormatter"}, "prevent_bypass": False},
}


def with_writer(**options: Any) -> dict[str, Any]:
    return {"writer": {"name": "S3Writer", "options": {"bucket": "to", "filebase": "x/", **options}}}


@pytest.mark.parametrize(
    "change",
    [
        {}, NEUTRAL, with_writer(items_limit=0, compression="none", write_buffer="exporters.write_buffers.WriteBuffer"),
    ],
)  # fmt: skip
def test_what_is_copied_by_s3(change: dict[str, Any]) -> None:
    assert S3Bypass.meets_conditions({**S3, **change})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"exporter_options": {"prevent_bypass": True}}, "prevent_bypass"),
        ({"filter": {"name": "DupeFilter"}}, "DupeFilter"),
        ({"filter_before": {"name": "exporters.filters.KeyValueFilter"}}, "filter_before: KeyValueFilter"),
        ({"filter_after": {"name": "DupeFilter"}}, "filter_after"),
        ({"transform": {"name": "JQTransform"}}, "transform"),
        ({"grouper": {"name": "FileKeyGrouper"}}, "grouper"),
        ({"decompressor": {"name": "ZLibDecompressor"}}, "decompressor"),
        ({"deserializer": {"name": "CSVDeserializer"}}, "deserializer"),
        ({"exporter_options": {"formatter": {"name": "CSVExportFormatter"}}}, "formatter"),
        ({"exporter_options": {"formatter": {"name": "JsonExportFormatter", "options": {"jsonlines": False}}}}, "form"),
        (with_writer(items_limit=5), "items_limit"),
        (with_writer(items_per_buffer_write=5), "items_per_buffer_write"),
        (with_writer(size_per_buffer_write=5), "size_per_buffer_write"),
        (with_writer(write_buffer="ReservoirSamplingWriteBuffer"), "ReservoirSamplingWriteBuffer"),
        (with_writer(filebase="x/{groups[0]}/"), "groups"),
        ({"reader": {"name": "RandomReader"}}, "the reader is no S3Reader"),
        ({"writer": {"name": "FSWriter", "options": {"filebase": "x"}}}, "the writer is no S3Writer"),
        ({"stage_0": {"name": "CallableStage"}}, "CallableStage"),
    ],
)
def test_what_has_to_see_the_records(change: dict[str, Any], why: str) -> None:
    assert not S3Bypass.meets_conditions({**S3, **change})
    with pytest.raises(RequisitesNotMet, match=why):
        S3Bypass.check({**S3, **change})


@pytest.mark.parametrize(
    ("reader", "writer", "asked", "expected"),
    [
        ("FSReader", "GStorageWriter", False, True),
        ("S3Reader", "AzureBlobWriter", False, True),
        ("S3Reader", "AzureFileWriter", False, True),
        ("FSReader", "AzureBlobWriter", False, False),
        ("FSReader", "AzureBlobWriter", True, True),
        ("FSReader", "FSWriter", False, False),
        ("FSReader", "FSWriter", True, True),
        ("S3Reader", "FTPWriter", True, True),
        ("RandomReader", "GStorageWriter", True, False),
        ("FSReader", "ConsoleWriter", True, False),
    ],
)
def test_which_streams_are_copied(reader: str, writer: str, asked: bool, expected: bool) -> None:
    config = {"reader": {"name": reader}, "writer": {"name": writer}, "exporter_options": {"stream_bypass": asked}}
    assert StreamBypass.meets_conditions(config) is expected


# S3 to S3


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Any]]:
    with s3_server() as (url, client):
        yield url, client


@pytest.fixture
def buckets(server: tuple[str, Any], request: pytest.FixtureRequest) -> tuple[str, str]:
    """Two buckets of this test, the first with three objects."""
    _, client = server
    name = f"b{abs(hash(request.node.nodeid))}"
    for bucket in (f"{name}-from", f"{name}-to"):
        client.create_bucket(Bucket=bucket)
    for n in range(3):
        body = gzip.compress(b'{"n": %d}\n' % n)
        client.put_object(Bucket=f"{name}-from", Key=f"in/{n}.jl.gz", Body=body, Metadata={"total": "1"})
    return f"{name}-from", f"{name}-to"


class Told(BaseNotifier):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def notify_start_dump(self, receivers: Any = (), info: Any = None) -> None:
        self.told.append("start")

    def notify_complete_dump(self, receivers: Any = (), info: Any = None) -> None:
        self.told.append(f"complete, bypassed: {info['bypassed_pipeline']}")

    def notify_failed_job(self, msg: str, stack_trace: str, receivers: Any = (), info: Any = None) -> None:
        self.told.append(f"failed: {msg}")


def pipeline(server: tuple[str, Any], buckets: tuple[str, str], host: str | None = None, **options: Any) -> Pipeline:
    reader = S3Reader(bucket=buckets[0], prefix="in/", endpoint_url=server[0], **ACCOUNT)
    writer = S3Writer(
        bucket=buckets[1], filebase="out/of_", host=host or server[0], save_pointer="latest", **ACCOUNT
    )  # fmt: skip
    return Pipeline(reader, writer=writer, **options)


def objects(client: Any, bucket: str) -> dict[str, bytes]:
    listed = client.list_objects_v2(Bucket=bucket).get("Contents", [])
    return {one["Key"]: client.get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in listed}


def test_objects_are_copied_as_they_are(server: tuple[str, Any], buckets: tuple[str, str]) -> None:
    told = Told()
    one = pipeline(server, buckets, notifications=[told])
    report = one.run()
    source, target = (objects(server[1], bucket) for bucket in buckets)
    assert {key.replace("in/", "out/"): body for key, body in source.items()} == {
        key: body for key, body in target.items() if key != "latest"
    }
    assert target["latest"] == b"out/"
    assert server[1].head_object(Bucket=buckets[1], Key="out/0.jl.gz")["Metadata"] == {"total": "1"}
    assert (report.complete, report.bypassed, report.read, report.written) == (True, True, 0, 3)
    assert report.figures["bypass"] == {"files": 3, "bytes_copied": sum(map(len, source.values()))}
    assert one.metadata.bypassed_pipeline
    assert one.metadata.accurate_items_count
    assert told.told == ["start", "complete, bypassed: True"]


def test_keys_with_the_same_last_part_keep_more_of_it(server: tuple[str, Any], buckets: tuple[str, str]) -> None:
    """And nobody counted the records in one."""
    server[1].put_object(Bucket=buckets[0], Key="in/more/0.jl.gz", Body=b"other")
    one = pipeline(server, buckets)
    one.run()
    target = objects(server[1], buckets[1])
    assert target["out/more/0.jl.gz"] == b"other"
    assert len(target) == 4 + 1
    assert not one.metadata.accurate_items_count


def test_another_service_gets_what_is_read(server: tuple[str, Any], buckets: tuple[str, str]) -> None:
    """Under another name the server counts as another one."""
    report = pipeline(server, buckets, host=server[0].replace("127.0.0.1", "localhost")).run()
    source, target = (objects(server[1], bucket) for bucket in buckets)
    assert report.bypassed
    assert set(source.values()) <= set(target.values())


def test_a_failed_bypass_is_told_and_resumed(
    server: tuple[str, Any], buckets: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 13: nobody was told."""
    # Given a bypass that fails with its third object
    told = Told()
    copied: list[str] = []
    once = S3Bypass._once

    def failing(self: S3Bypass, name: str, target: str) -> Any:
        if name == "in/2.jl.gz" and len(copied) == 2:
            copied.append("failed")
            raise PermissionError("no right")
        copied.append(name)
        return once(self, name, target)

    monkeypatch.setattr(S3Bypass, "_once", failing)
    first = pipeline(server, buckets, notifications=[told])
    with pytest.raises(PermissionError):
        first.run()
    assert told.told == ["start", "failed: no right"]

    # When it is resumed, then it goes on with that one
    report = pipeline(server, buckets, resume=first.persistence.job).run()
    assert copied == ["in/0.jl.gz", "in/1.jl.gz", "failed", "in/2.jl.gz"]
    assert (report.written, report.bypassed, report.figures["bypass"]["files"]) == (3, True, 3)
    assert len(objects(server[1], buckets[1])) == 4


def test_a_copy_that_differs_is_an_error(
    server: tuple[str, Any], buckets: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(self: S3Bypass, bucket: str, name: str, key: str, size: int, etag: str) -> bool:
        server[1].put_object(Bucket=buckets[1], Key=key, Body=b"x" * size)
        return True

    monkeypatch.setattr(S3Bypass, "_by_server", wrong)
    with pytest.raises(InconsistentWriteState, match="etag"):
        pipeline(server, buckets, disable_retries=True).run()


def test_prevented(server: tuple[str, Any], buckets: tuple[str, str]) -> None:
    report = pipeline(server, buckets, prevent_bypass=True).run()
    assert (report.bypassed, report.read, report.written) == (False, 3, 3)
    assert "out/of_0000.jl.gz" in objects(server[1], buckets[1])


# Streams


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "in"
    for name in ("a/1.jl", "b/1.jl", "b/2.bin"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(name.encode() * 100_000)
    return source


def test_files_are_copied_as_they_are(folder: Path, tmp_path: Path) -> None:
    config = {
        "reader": {"name": "FSReader", "options": {"input": {"dir": str(folder)}}},
        "writer": {"name": "FSWriter", "options": {"filebase": f"{tmp_path}/out/x_"}},
        "exporter_options": {"stream_bypass": True},
    }
    report = Pipeline.from_configuration(config).run()
    out = tmp_path / "out"
    assert {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()} == {
        name: name.encode() * 100_000 for name in ("a/1.jl", "b/1.jl", "b/2.bin")
    }
    assert report.bypassed
    assert report.figures["bypass"] == {"files": 3, "bytes_copied": 1_900_000}


def test_to_any_store_of_fsspec(folder: Path) -> None:
    store = fsspec.filesystem("memory")
    writer = ObjectStoreWriter(filebase="memory://bypass/out/")
    Pipeline(FSReader(input={"dir": str(folder / "b")}), writer=writer, stream_bypass=True).run()
    assert store.cat_file("/bypass/out/2.bin") == b"b/2.bin" * 100_000
    store.rm("/bypass", recursive=True)


def test_not_unless_asked_for(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.jl").write_text('{"n": 1}\n')
    writer = FSWriter(filebase=f"{tmp_path}/out_")
    report = Pipeline(FSReader(input=str(tmp_path / "in")), writer=writer).run()
    assert (report.bypassed, report.written) == (False, 1)


def test_not_past_a_formatter_or_a_function(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.jl").write_text('{"n": 1}\n')

    def run(*stages: Any, **options: Any) -> bool:
        writer = FSWriter(filebase=f"{tmp_path}/out_")
        reader = FSReader(input=str(tmp_path / "in"))
        return Pipeline(reader, *stages, writer=writer, stream_bypass=True, **options).run().bypassed

    assert run()
    assert not run(lambda record: True)
    assert not run(formatter=CSVExportFormatter(fields=["n"]))


class Streams(BaseWriter):
    """A writer of a user's own."""

    def __init__(self, stop_at: str = "") -> None:
        super().__init__()
        self.taken: dict[str, bytes] = {}
        self.stop_at = stop_at

    def write_stream(self, name: str, stream: Any) -> None:
        self.taken[name] = stream.read()
        if name == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_writer_of_ones_own_that_takes_streams(folder: Path) -> None:
    writer = Streams()
    assert Pipeline(FSReader(input=str(folder / "b")), writer=writer).run().bypassed
    assert {name: len(data) for name, data in writer.taken.items()} == {"1.jl": 600_000, "2.bin": 700_000}


def test_a_signal_stops_between_two_streams(folder: Path) -> None:
    first = Pipeline(FSReader(input=str(folder / "b")), writer=Streams(stop_at="1.jl"))
    report = first.run()
    assert (report.complete, report.bypassed) == (False, True)
    writer = Streams()
    assert Pipeline(FSReader(input=str(folder / "b")), writer=writer, resume=first.persistence.job).run().complete
    assert list(writer.taken) == ["2.bin"]


def test_a_job_that_began_with_records_goes_on_with_records(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Pipeline(FSReader(input=str(folder / "b")), writer=Streams(), prevent_bypass=True)
    with pytest.raises(Exception, match=r"1\.jl"):
        first.run()
    again = Pipeline(FSReader(input=str(folder / "b")), writer=Streams(), resume=first.persistence.job)
    with pytest.raises(Exception, match=r"1\.jl"):
        again.run()


def test_the_forms_of_the_old_documents(folder: Path) -> None:
    """``meets_conditions`` raises, and ``bypass`` does it."""

    class Refused(BaseBypass):
        @classmethod
        def meets_conditions(cls, config: Any) -> bool:
            raise RequisitesNotMet(None, "never")

    class Taken(BaseBypass):
        @classmethod
        def meets_conditions(cls, config: Any) -> None:  # type: ignore[override] # the old form has no result
            assert config["reader"]["name"] == "FSReader"

        def bypass(self) -> bool:
            ways.append("taken")
            return True

    class Ours(Pipeline):
        bypass_cases = (Refused, Taken, *CASES)

    ways: list[str] = []
    assert Ours(FSReader(input=str(folder)), writer=Streams()).run().bypassed
    assert ways == ["taken"]


def test_a_stream_that_breaks_is_copied_from_its_beginning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(FSReader):
        opened = 0

        def open_stream(self, stream: str) -> Any:
            Broken.opened += 1
            if Broken.opened == 1:
                return Breaking(b"half of it")
            return super().open_stream(stream)

    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            if not data:
                raise ConnectionResetError("broken")
            return data

    waits: list[float] = []
    monkeypatch.setitem(retries.retrying.__kwdefaults__ or {}, "sleep", waits.append)
    writer = ObjectStoreWriter(filebase="memory://broken/out/")
    Pipeline(Broken(input=str(folder / "a")), writer=writer, stream_bypass=True).run()
    store = fsspec.filesystem("memory")
    assert store.cat_file("/broken/out/1.jl") == b"a/1.jl" * 100_000
    assert waits == [10]
    store.rm("/broken", recursive=True)


# By itself


def test_it_can_be_asked_for(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.jl").write_text('{"n": 1}\n')

    def pipeline(**options: Any) -> Pipeline:
        writer = FSWriter(filebase=f"{tmp_path}/out/x_", **options)
        return Pipeline(FSReader(input=str(tmp_path / "in")), writer=writer, stream_bypass=True)

    # Given: what cannot go past the pipeline; generate_md5 is among it, as nobody sees what is copied
    for options in ({"items_per_buffer_write": 1}, {"generate_md5": True}):
        assert not pipeline(**options).bypass()
    assert not (tmp_path / "out").exists()

    # When: it can, then it is copied, and checked
    asked = pipeline(check_consistency=True)
    assert asked.bypass()
    assert asked.metadata.bypassed_pipeline
    assert (tmp_path / "out" / "1.jl").read_text() == '{"n": 1}\n'


def test_a_copy_that_is_not_whole_is_noticed(tmp_path: Path) -> None:
    class Short(FSWriter):
        def put(self, path: Path, name: str, packed: Any) -> None:
            path.write_bytes(b"")
            super().put(path, name, packed)
            path.unlink()
            path.write_bytes(b"whole")

    (tmp_path / "1.jl").write_text('{"n": 1}\n')
    writer = Short(filebase=f"{tmp_path}/out/x_", check_consistency=True)
    run = Pipeline(FSReader(input=str(tmp_path)), writer=writer, stream_bypass=True, disable_retries=True)
    with pytest.raises(InconsistentWriteState, match="has 0 bytes and should have"):
        run.run()
