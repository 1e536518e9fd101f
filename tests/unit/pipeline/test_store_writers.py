"""Files in stores behind a network: FTP, SFTP, S3, and whatever fsspec knows."""

from __future__ import annotations

import ftplib
import gzip
import json
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters import MissingModuleError
from resilient_exporters.pipeline import (
    BaseRecord,
    ConfigurationError,
    InconsistentWriteState,
    Pipeline,
    PipelineError,
    PipelineReport,
)
from resilient_exporters.pipeline.groupers.base import BaseGrouper
from resilient_exporters.pipeline.writers import AzureFileWriter, FTPWriter, ObjectStoreWriter, S3Writer, SFTPWriter
from resilient_exporters.pipeline.writers.buffered import PackedFile
from tests.s3 import ACCOUNT, s3_server
from tests.unit.pipeline.azure_files import azure_file_share
from tests.unit.pipeline.stores import PASSWORD, USER, ftp_server, sftp_server

BUCKET = "readings"


class ByPlace(BaseGrouper):
    def group_batch(self, batch: Iterable[BaseRecord]) -> Iterator[BaseRecord]:
        for record in batch:
            record.group_membership = (record["place"],)
            yield record


def run(writer: Any, count: int = 30) -> PipelineReport:
    records = [{"n": number, "place": f"g{number % 2}"} for number in range(count)]
    return Pipeline(records, ByPlace(), writer=writer, disable_retries=True).run()


def rows(files: dict[str, bytes]) -> dict[str, list[int]]:
    return {
        name: [json.loads(line)["n"] for line in gzip.decompress(data).splitlines()]
        for name, data in sorted(files.items())
        if name.endswith(".gz")
    }


EXPECTED = {
    "day/g0/x_0000.jl.gz": list(range(0, 20, 2)),
    "day/g0/x_0001.jl.gz": list(range(20, 30, 2)),
    "day/g1/x_0000.jl.gz": list(range(1, 20, 2)),
    "day/g1/x_0001.jl.gz": list(range(21, 30, 2)),
}
OPTIONS: dict[str, Any] = {
    "filebase": "day/{groups[0]}/x_", "items_per_buffer_write": 10, "check_consistency": True, "generate_md5": True,
}  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


# -- FTP ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ftp(home: Path) -> Iterator[dict[str, Any]]:
    with ftp_server(home) as port:
        yield {"host": "127.0.0.1", "port": port, "ftp_user": USER, "ftp_password": PASSWORD}


def test_files_go_to_an_ftp_server(home: Path, ftp: dict[str, Any]) -> None:
    run(FTPWriter(**OPTIONS, **ftp))
    found = files(home)
    assert rows(found) == EXPECTED
    assert set(found) - set(EXPECTED) == {"day/md5checksum.md5"}
    run(FTPWriter(**OPTIONS, **ftp))  # over those of an earlier run
    assert rows(files(home)) == EXPECTED


def test_an_ftp_server_that_went_away_is_connected_to_again(home: Path, ftp: dict[str, Any]) -> None:
    class Cut(FTPWriter):
        cuts = 0

        def put(self, path: Path, name: str, packed: PackedFile | None) -> None:
            if self.cuts < 2:
                self.cuts += 1
                assert self._ftp is not None
                assert self._ftp.sock is not None
                self._ftp.sock.shutdown(socket.SHUT_RDWR)
            super().put(path, name, packed)

    writer = Cut(**OPTIONS, **ftp)
    waits: list[float] = []
    writer.sleep = waits.append
    records = [{"n": number, "place": f"g{number % 2}"} for number in range(30)]
    Pipeline(records, ByPlace(), writer=writer).run()
    assert rows(files(home)) == EXPECTED
    assert waits == [10, 20]


def test_a_wrong_password_is_said_before_anything_is_read(home: Path, ftp: dict[str, Any]) -> None:
    with pytest.raises(PipelineError, match=f"refuses {USER}") as caught:
        run(FTPWriter(**OPTIONS, **{**ftp, "ftp_password": "wrong-word"}))
    assert "wrong-word" not in str(caught.value)
    assert isinstance(caught.value.__cause__, ftplib.error_perm)


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(PipelineError, match=r"reaching ftp://127.0.0.1:1/.* failed: ConnectionRefusedError"):
        run(FTPWriter(**OPTIONS, host="127.0.0.1", port=1, ftp_user="u", ftp_password="p"))


def test_a_directory_in_the_place_of_a_file_is_told_from_a_file_that_is_not_there(
    home: Path, ftp: dict[str, Any]
) -> None:
    (home / "x_0000-g0.jl.gz").mkdir()
    with pytest.raises(PipelineError, match=r"writing ftp://.*x_0000-g0\.jl\.gz failed") as caught:
        run(FTPWriter(**{**OPTIONS, "filebase": "x_"}, **ftp))
    assert "No such file" not in str(caught.value)
    assert (home / "x_0000-g0.jl.gz").is_dir()


# -- SFTP --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sftp(home: Path) -> Iterator[dict[str, Any]]:
    pytest.importorskip("paramiko")
    with sftp_server(home) as (port, known):
        yield {
            "host": "127.0.0.1", "port": port, "sftp_user": USER, "sftp_password": PASSWORD, "known_hosts": str(known),
        }  # fmt: skip


def test_files_go_to_an_sftp_server(home: Path, sftp: dict[str, Any]) -> None:
    run(SFTPWriter(**OPTIONS, **sftp))
    found = files(home)
    assert rows(found) == EXPECTED
    assert set(found) - set(EXPECTED) == {"day/md5checksum.md5"}
    run(SFTPWriter(**OPTIONS, **sftp))
    assert rows(files(home)) == EXPECTED


def test_a_host_with_another_key_is_refused(home: Path, sftp: dict[str, Any], tmp_path: Path) -> None:
    import asyncssh

    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    Path(sftp["known_hosts"]).write_text(f"[127.0.0.1]:{sftp['port']} {other}")
    with pytest.raises(PipelineError, match="key"):
        run(SFTPWriter(**OPTIONS, **sftp))
    assert not files(home)


def test_a_wrong_sftp_password_is_said(home: Path, sftp: dict[str, Any]) -> None:
    with pytest.raises(PipelineError, match=USER) as caught:
        run(SFTPWriter(**OPTIONS, **{**sftp, "sftp_password": "wrong-word"}))
    assert "wrong-word" not in str(caught.value)


def test_neither_password_nor_key_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXPORTERS_SFTP_PASSWORD", raising=False)
    with pytest.raises(ConfigurationError, match=r"sftp_password is missing .*EXPORTERS_SFTP_PASSWORD.*key_file"):
        SFTPWriter(**OPTIONS, host="h", sftp_user="u")


# -- S3 ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3() -> Iterator[tuple[str, Any]]:
    pytest.importorskip("s3fs")
    with s3_server(BUCKET) as one:
        yield one


def s3_options(s3: tuple[str, Any], **more: Any) -> dict[str, Any]:
    return {
        **OPTIONS, "bucket": BUCKET, "host": s3[0], **ACCOUNT, **more,
    }  # fmt: skip


def objects(s3: tuple[str, Any], prefix: str) -> dict[str, bytes]:
    client = s3[1]
    found = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    return {entry["Key"]: client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read() for entry in found}


def test_files_go_to_s3(s3: tuple[str, Any]) -> None:
    report = run(S3Writer(**s3_options(s3, save_pointer="last")))
    found = objects(s3, "day/")
    assert rows(found) == EXPECTED
    assert set(found) - set(EXPECTED) == {"day/md5checksum.md5"}
    head = s3[1].head_object(Bucket=BUCKET, Key="day/g0/x_0001.jl.gz")
    written = {one["filename"]: one for one in report.figures["writer"]["files_written"]}
    assert head["Metadata"] == {"total": "5", "md5": written["s3://readings/day/g0/x_0001.jl.gz"]["hash"]}
    assert objects(s3, "last") == {"last": b"day/"}


def test_metadata_can_be_left_out(s3: tuple[str, Any]) -> None:
    run(S3Writer(**s3_options(s3, save_metadata=False, filebase="plain/")))
    assert s3[1].head_object(Bucket=BUCKET, Key="plain/0000-g0.jl.gz")["Metadata"] == {}


def test_a_bucket_that_does_not_exist_is_said_before_anything_is_read(s3: tuple[str, Any]) -> None:
    with pytest.raises(PipelineError, match="bucket='nowhere': there is no such bucket"):
        run(S3Writer(**s3_options(s3, bucket="nowhere")))


def test_another_number_of_records_is_noticed(s3: tuple[str, Any]) -> None:
    class Thief(S3Writer):
        def arguments(self, packed: PackedFile | None) -> dict[str, Any]:
            return {**super().arguments(packed), "Metadata": {"total": "1"}}

    with pytest.raises(InconsistentWriteState, match="has total=1 and should have 10 records"):
        run(Thief(**s3_options(s3, filebase="thief/")))


def test_large_files_go_up_in_parts_and_what_a_killed_run_left_of_them_goes(
    s3: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: parts of a file, of a run that was killed while it uploaded them
    monkeypatch.setattr("resilient_exporters.pipeline.writers.s3_writer._PART", 5 << 20)  # the least that S3 takes
    s3[1].create_multipart_upload(Bucket=BUCKET, Key="large/0000.jl")
    s3[1].create_multipart_upload(Bucket=BUCKET, Key="large/0000.jl.other")
    records = [{"n": number, "text": "x" * 100_000} for number in range(120)]
    # When
    writer = S3Writer(**s3_options(s3, filebase="large/", compression="none", items_per_buffer_write=1000))
    Pipeline(records, writer=writer, disable_retries=True).run()
    # Then
    data = objects(s3, "large/0000")["large/0000.jl"]
    assert [json.loads(line)["n"] for line in data.splitlines()] == list(range(120))
    assert s3[1].head_object(Bucket=BUCKET, Key="large/0000.jl")["ETag"].strip('"').endswith("-3")  # three parts
    left = s3[1].list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    assert [upload["Key"] for upload in left] == ["large/0000.jl.other"]


def test_secrets_are_not_shown(s3: tuple[str, Any]) -> None:
    options = s3_options(s3, aws_secret_access_key="s3cret-word", storage_options={"token": "t0ken-word"})
    shown = repr(S3Writer(**options))
    assert "s3cret-word" not in shown
    assert "t0ken-word" not in shown


# -- Azure's file shares -----------------------------------------------------------------------------------------------


def test_files_go_to_a_file_share_of_azure() -> None:
    pytest.importorskip("azure.storage.fileshare")
    with azure_file_share() as (url, there):
        for _ in range(2):  # the second time over those of an earlier run
            run(AzureFileWriter(**OPTIONS, account_name="any", account_key="c2VjcmV0", share="data", account_url=url))
        found = {name.removeprefix("/data/"): bytes(data) for name, data in there.items()}
    assert rows(found) == EXPECTED
    assert set(found) - set(EXPECTED) == {"day/md5checksum.md5"}


# -- any store of fsspec -----------------------------------------------------------------------------------------------


def test_files_go_to_any_store_of_fsspec() -> None:
    import fsspec

    run(ObjectStoreWriter(**{**OPTIONS, "filebase": "memory://any/day/{groups[0]}/x_"}))
    store = fsspec.filesystem("memory")
    found = {name.removeprefix("/any/"): store.cat_file(name) for name in store.find("/any")}
    store.rm("/any", recursive=True)
    assert rows(found) == EXPECTED


def test_a_store_that_shows_what_is_not_whole_gets_a_temporary_name_first(tmp_path: Path) -> None:
    seen: list[str] = []

    class Watched(ObjectStoreWriter):
        @property
        def store(self) -> Any:
            one = super().store
            put = type(one).put_file

            def watched(path: str, target: str, **options: Any) -> None:
                seen.append(Path(target).name)
                put(one, path, target, **options)

            one.put_file = watched
            return one

    run(Watched(**{**OPTIONS, "filebase": f"file://{tmp_path}/out/day/{{groups[0]}}/x_"}))
    assert rows(files(tmp_path / "out")) == EXPECTED
    assert len(seen) == 5
    assert all(name.startswith(".") and name.endswith(".part") for name in seen)
    assert not [name for name in files(tmp_path / "out") if name.endswith(".part")]


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingModuleError, match=r"S3Writer needs s3fs: pip install 'resilient-exporters\[s3\]'"):
        S3Writer(filebase="x", bucket="b")
