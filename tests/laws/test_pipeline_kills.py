"""kill -9 of a pipeline at any moment, again and again: after the resumes every record is in one file, once."""

from __future__ import annotations

import gzip
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.laws import pipeline_program as program
from tests.laws.killing import killed_until_done, run_to_its_end

PROGRAM = Path(program.__file__)
Files = Callable[[Path], dict[str, bytes]]

S3_SERVER = """
import logging, sys
logging.getLogger("werkzeug").setLevel(logging.ERROR)  # nobody reads its lines
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""


def files_of_disk(folder: Path) -> dict[str, bytes]:
    out = folder / "out"
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


class Bucket:
    """A bucket of an S3 server that runs in a process of its own."""

    def __init__(self) -> None:
        import boto3

        self.server = programs.start(S3_SERVER)
        assert self.server.stdout is not None
        port = self.server.stdout.readline().strip()
        assert port, self.server.communicate()
        self.url = f"http://127.0.0.1:{port}"
        self.client: Any = boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
        )
        self.client.create_bucket(Bucket=program.BUCKET)

    def files(self, folder: Path) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        pages = self.client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=program.BUCKET, Prefix=f"{folder.name}/"):
            for entry in page.get("Contents", []):
                body = self.client.get_object(Bucket=program.BUCKET, Key=entry["Key"])["Body"].read()
                found[entry["Key"].partition("/")[2]] = body
        return found

    def close(self) -> None:
        self.client.close()
        self.server.communicate("")


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    pytest.importorskip("moto.server")
    one = Bucket()
    yield one
    one.close()


def check(files: dict[str, bytes], records: int) -> None:
    """Every record once, in files of the right names, and the MD5 file says so."""
    keys = {reading["key"] for reading in program.source(records)}
    expected: dict[str, int] = Counter(program.place(key) for key in keys)
    names = {
        f"{place}/readings_{number:04d}.jl.gz"
        for place, count in expected.items()
        for number in range(math.ceil(count / program.FULL))
    }
    assert set(files) - {"md5checksum.md5"} == names, "files with wrong names"
    there: Counter[int] = Counter()
    for name, data in files.items():
        if name.endswith(".gz"):
            for line in gzip.decompress(data).splitlines():
                record = json.loads(line)
                assert program.place(record["key"]) == name.partition("/")[0]
                there[record["key"]] += 1
    assert not keys - set(there), "records lost"
    assert max(there.values()) == 1, "records doubled"
    assert set(there) == keys
    assert len(files["md5checksum.md5"].splitlines()) == len(names)


@pytest.mark.parametrize(
    ("records", "kills"), [(5_000, 5), pytest.param(100_000, 200, marks=pytest.mark.soak, id="soak")]
)
@pytest.mark.parametrize("target", ["fs", "s3"])
def test_killed_at_any_moment(
    target: str, records: int, kills: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    files: Files = files_of_disk
    rest = [target]
    if target == "s3":
        one = request.getfixturevalue("bucket")
        files, rest = one.files, [target, one.url]
    chance = random.Random(6)
    # Given: how long it takes, unless it is killed
    (tmp_path / "calm").mkdir()
    longest = run_to_its_end(PROGRAM, tmp_path / "calm", records, *rest) / 2
    check(files(tmp_path / "calm"), records)
    # When: it is killed so often, in as many runs as that takes
    done = runs = 0
    while done < kills:
        folder = tmp_path / f"run{runs}"
        done += killed_until_done(PROGRAM, folder, chance, kills - done, longest, records, *rest)
        # Then
        check(files(folder), records)
        runs += 1
    print(f"{target}: {done} kills in {runs} runs of {records} records: lost 0, doubled 0, wrong names 0")
