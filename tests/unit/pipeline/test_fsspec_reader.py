"""Files anywhere that fsspec reaches: in memory, and over HTTP from a real server."""

from __future__ import annotations

import functools
import gzip
import http.server
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from resilient_exporters import MissingModuleError
from resilient_exporters.pipeline.errors import BadRecordError, ConfigurationError
from resilient_exporters.pipeline.readers import FsspecReader
from tests.unit.pipeline.stores import PASSWORD, USER, ftp_server, sftp_server


@pytest.fixture
def memory() -> Iterator[str]:
    store = fsspec.filesystem("memory")
    for name in ("b/2.jl.gz", "b/1.jl", "a.jl", "notes.txt"):
        body = json.dumps({"name": name}).encode()
        store.pipe_file(f"/pread/{name}", gzip.compress(body) if name.endswith("gz") else body)
    yield "memory://pread"
    store.rm("/pread", recursive=True)


def names(reader: FsspecReader) -> list[str]:
    return [record["name"] for record in reader.get_next_batch()]


def test_directories_files_and_patterns(memory: str) -> None:
    assert names(FsspecReader(url=memory)) == ["a.jl", "b/1.jl", "b/2.jl.gz", "notes.txt"]
    assert names(FsspecReader(url=f"{memory}/b/1.jl")) == ["b/1.jl"]
    assert names(FsspecReader(url=f"{memory}/**/*.jl*")) == ["a.jl", "b/1.jl", "b/2.jl.gz"]
    assert names(FsspecReader(url=[f"{memory}/b", memory], pattern=r"\.(jl|gz)$")) == ["b/1.jl", "b/2.jl.gz", "a.jl"]
    assert names(FsspecReader(url=f"{memory}/*.nothing")) == []
    with pytest.raises(BadRecordError, match="there is no such file or object"):
        names(FsspecReader(url=f"{memory}/no.jl"))


def test_positions_name_urls(memory: str) -> None:
    reader = FsspecReader(url=memory, batch_size=2)
    assert names(reader) == ["a.jl", "b/1.jl"]
    again = FsspecReader(url=memory)
    again.set_last_position(reader.get_last_position())
    assert set(reader.get_last_position()["stream_offset"]) == {"memory:///pread/b/1.jl"}
    assert names(again) == ["b/2.jl.gz", "notes.txt"]
    assert b"1.jl" in again.open_stream("memory:///pread/b/1.jl").read(100)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "x.jl.gz").write_bytes(gzip.compress(b'{"name": "x"}\n' * 3))
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))
    ) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://user:hidden@127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def test_over_http_and_without_the_password_in_any_name(server: str) -> None:
    reader = FsspecReader(url=f"{server}/x.jl.gz")
    assert names(reader) == ["x"] * 3
    position = json.dumps(reader.get_last_position())
    assert "x.jl.gz" in position
    assert "hidden" not in position
    assert "hidden" not in json.dumps(reader.shown_options())
    with pytest.raises(BadRecordError, match="there is no such file") as raised:
        names(FsspecReader(url=[f"{server}/no.jl"]))
    assert "hidden" not in str(raised.value)
    assert "hidden" not in json.dumps(FsspecReader(url=[f"{server}/no.jl"]).shown_options())


@pytest.mark.parametrize("protocol", ["sftp", "ftp"])
def test_over_sftp_and_ftp(protocol: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.jl.gz").write_bytes(gzip.compress(b'{"name": "1"}\n' * 2))
    (tmp_path / "in" / "2.jl").write_bytes(b'{"name": "2"}\n' * 2)
    with sftp_server(tmp_path) if protocol == "sftp" else ftp_server(tmp_path) as served:
        port = served if isinstance(served, int) else served[0]
        url = f"{protocol}://{USER}:{PASSWORD}@127.0.0.1:{port}/in"
        reader = FsspecReader(url=url, batch_size=3)
        assert names(reader) == ["1", "1", "2"]
        position = reader.get_last_position()
        again = FsspecReader(url=url)
        again.set_last_position(position)
        assert names(again) == ["2"]
        again.close()
        reader.close()
    assert list(position.pop("stream_mark")) == [f"{protocol}://127.0.0.1:{port}/in/2.jl"]
    assert position == {
        "readed_streams": [f"{protocol}://127.0.0.1:{port}/in/1.jl.gz"],
        "stream_offset": {f"{protocol}://127.0.0.1:{port}/in/2.jl": 1},
    }


def test_storage_options_come_from_the_environment_and_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "hidden")
    reader = FsspecReader(url="memory://x", storage_options={"some_key": {"env": "THE_KEY"}})
    assert reader._file_system("memory://x")[0].storage_options["some_key"] == "hidden"
    assert reader.shown_options()["storage_options"] == {"secret": "storage_options"}


def test_storage_options_that_there_are_not(tmp_path: Path) -> None:
    with sftp_server(tmp_path) as (port, _):
        url = f"sftp://{USER}:{PASSWORD}@127.0.0.1:{port}/in"
        with pytest.raises(ConfigurationError, match=r"storage_options .*127\.0\.0\.1.*'pasword'") as raised:
            names(FsspecReader(url=url, storage_options={"pasword": "hidden"}))
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("just/a/path", ConfigurationError, "is no URL; write for instance s3://"),
        ("nosuch://x/y", ConfigurationError, "fsspec knows no nosuch://"),
        ("smb://host/x", MissingModuleError, "smb:// needs smbprotocol"),
    ],
)
def test_urls_that_cannot_be(url: str, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "smbclient", None)
    with pytest.raises(error, match=words):
        FsspecReader(url=url)
