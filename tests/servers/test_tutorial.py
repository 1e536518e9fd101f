"""The tutorial of the pipeline, run as it stands: its files, its commands, S3 and MongoDB on this machine."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.programs import environment
from tests.s3 import s3_server
from tests.servers.provision import HOST, Instance

PAGE = (Path(__file__).parents[2] / "docs" / "pipeline" / "tutorial.md").read_text()
SENSORS = ("boiler-1", "boiler-2")
KEYS = {"READINGS_KEY": "testing", "READINGS_SECRET": "testing-secret"}


def block(name: str) -> str:
    """The configuration that the page calls so."""
    found = re.search(rf"^`{re.escape(name)}`:\n\n```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"the tutorial has no {name}"
    return found[1]


class Device:
    """A machine with the files of the tutorial, on which its commands are typed."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.sensors = home / "sensors"
        self.sensors.mkdir()
        self.readings = []
        for hour in (17, 18):
            lines = []
            for second in range(200):
                kind = "heartbeat" if second % 5 == 0 else "reading"
                at = f"2026-11-21T{hour}:{second // 60:02}:{second % 60:02}Z"
                lines.append({"sensor": SENSORS[second % 2], "kind": kind, "at": at, "celsius": second / 10})
            packed = gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode())
            (self.sensors / f"2026-11-21T{hour}.jl.gz").write_bytes(packed)
            self.readings += [line for line in lines if line["kind"] == "reading"]

    def write(self, name: str, **places: str) -> str:
        """Write a configuration of the tutorial, with the places of this machine in the place of the tutorial's."""
        text = block(name)
        for old, new in {"/data/sensors": str(self.sensors), **places}.items():
            assert old in text, f"{name} in the tutorial has no {old}"
            text = text.replace(old, new)
        path = self.home / name
        path.write_text(text)
        return str(path)

    def rexport(self, *arguments: str, code: int = 0, keys: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "resilient_exporters.cli", *arguments], env=environment(keys),
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


@pytest.fixture
def s3() -> Iterator[tuple[str, Any]]:
    with s3_server() as one:
        yield one


def in_s3(client: Any) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in client.list_objects_v2(Bucket="readings").get("Contents", []):
        body = client.get_object(Bucket="readings", Key=entry["Key"])["Body"].read()
        found[entry["Key"]] = [json.loads(line) for line in gzip.decompress(body).splitlines()]
    return found


def test_to_s3_interrupted_and_resumed(device: Device, s3: tuple[str, Any]) -> None:
    url, client = s3
    # Given: half a line at the end of the last file, and a bucket that is not there yet
    last = device.sensors / "2026-11-21T18.jl.gz"
    last.write_bytes(gzip.compress(gzip.decompress(last.read_bytes()) + b'{"sensor": "boi'))
    path = device.write("s3.yaml", **{"bucket: readings\n": f"bucket: readings\n    host: {url}\n"})
    device.rexport("check", path, keys=KEYS)
    said = device.rexport("run", path, code=1, keys=KEYS)
    assert "there is no such bucket" in said
    uri = re.search(r"sqlite:///\S+", said)
    assert uri, said
    assert "interrupted" in device.rexport("jobs", "ls")

    # When: it is resumed as the page says, with the keys from the environment
    client.create_bucket(Bucket="readings")
    device.rexport("resume", uri[0], code=2)
    device.rexport("resume", uri[0], keys=KEYS)

    # Then: a folder for each sensor, each reading once, and the half line put aside
    found = in_s3(client)
    assert [re.sub(r"\d{4}-\d\d-\d\d", "DAY", name) for name in found] == [
        f"device-7/{sensor}/DAY_0.jl.gz" for sensor in SENSORS
    ]
    for (name, lines), sensor in zip(found.items(), SENSORS, strict=True):
        assert lines == [one for one in device.readings if one["sensor"] == sensor], name
    job = uri[0].rpartition(":")[2]
    assert "2026-11-21T18.jl.gz" in device.rexport("jobs", "show", job, "--dead")
    state = Path(environment()["RESILIENT_EXPORTERS_DIR"])
    kept = b"".join(one.read_bytes() for one in state.rglob("*") if one.is_file())
    assert kept
    assert KEYS["READINGS_SECRET"].encode() not in kept


def test_to_mongodb_and_a_usb_stick(device: Device, ferretdb: Instance, mongo_database: str) -> None:
    import pymongo

    stick = device.home / "usb"
    stick.mkdir()
    path = device.write("mongo.yaml", **{
        "mongodb://dashboard.example": f"mongodb://{HOST}:{ferretdb.port}", "default_db: plant":
        f"default_db: {mongo_database}", "/mnt/usb": str(stick),
    })  # fmt: skip
    # When
    device.rexport("check", path)
    report = device.home / "last.json"
    device.rexport("run", "--report", str(report), path)

    # Then: each target has each reading once, and nothing waits
    assert json.loads(report.read_text())["written"] == len(device.readings)
    assert [json.loads(line) for line in (stick / "readings.jl").read_text().splitlines()] == device.readings
    with pymongo.MongoClient[dict[str, Any]](HOST, ferretdb.port) as client:
        rows = list(client[mongo_database]["readings"].find({}, {"_id": False}))
    assert sorted(rows, key=lambda row: row["at"]) == device.readings
    assert "dashboard" in device.rexport("queue", "show", "dashboard")


def test_a_dashboard_that_is_away_keeps_nobody_waiting(device: Device) -> None:
    # Given: nobody listens where the dashboard's database should be
    stick = device.home / "usb"
    stick.mkdir()
    path = device.write(
        "mongo.yaml", **{"mongodb://dashboard.example": f"mongodb://{HOST}:9", "/mnt/usb": str(stick)}
    )  # fmt: skip
    # When
    device.rexport("run", path)
    # Then: the stick has all, and all waits for the other
    assert len((stick / "readings.jl").read_text().splitlines()) == len(device.readings)
    shown = device.rexport("queue", "show", "dashboard")
    assert re.search(rf"127\.0\.0\.1.*\b{len(device.readings)}\b", shown), shown
