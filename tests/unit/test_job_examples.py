"""The programs in examples/ that have to do with jobs and devices do what they say, with simulated sensors."""

from __future__ import annotations

import configparser
import csv
import json
import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.delivery.inspection import Inspection

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 120


def run(
    *arguments: Any, code: int = 0, variables: dict[str, Any] | None = None
) -> subprocess.CompletedProcess[str]:
    added = {name: str(value) for name, value in (variables or {}).items()}
    done = subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)], capture_output=True, text=True, check=False,
        timeout=PATIENCE, cwd=EXAMPLES.parent, env={**os.environ, **added},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def dead_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def test_the_raspberry_pi_keeps_what_its_database_did_not_take(tmp_path: Path, dead_port: int) -> None:
    pytest.importorskip("pymongo")
    # Given a database that is away
    command = [EXAMPLES / "raspberry_pi.py", tmp_path, "--mongodb", f"mongodb://127.0.0.1:{dead_port}/site"]

    # When the program runs
    done = run(*command, "--simulate", "--every", 0, "--count", 25)
    assert "site-database: 0 delivered, 25 wait" in done.stdout

    # Then the file has everything, and the queue what the database is owed
    lines = [json.loads(line) for line in (tmp_path / "readings.jsonl").read_text().splitlines()]
    assert len(lines) == 25
    assert lines[0]["temperature"] == 20.0
    assert [line["temperature"] for line in lines].count(None) == 2
    with Inspection(tmp_path / "queue") as found:
        pending = {target.name: target.pending for target in found.view().targets}
    assert pending == {"card": 0, "site-database": 25}


def test_the_jetson_counts_what_passes(tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    url = f"sqlite:///{tmp_path / 'counts.db'}"
    done = run(EXAMPLES / "jetson.py", url, "--simulate", "--frames", 200)
    assert done.stdout == "200 frames, 200 delivered, 0 wait\n"
    with closing(sqlite3.connect(tmp_path / "counts.db")) as database:
        rows = database.execute("SELECT frame, person, bicycle, car FROM counts ORDER BY frame").fetchall()
    assert [row[0] for row in rows] == list(range(200))

    # What the camera saw is counted: the same seed gives the same frames
    sys.path.insert(0, str(EXAMPLES))
    try:
        import jetson  # type: ignore[import-not-found] # an example
    finally:
        sys.path.remove(str(EXAMPLES))
    expected = []
    for _, detections in zip(range(200), jetson.simulated(), strict=False):
        sure = [box["label"] for box in detections if box["confidence"] >= 0.5]
        expected.append(tuple(sure.count(label) for label in ("person", "bicycle", "car")))
    assert [row[1:] for row in rows] == expected


@pytest.fixture
def readings(tmp_path: Path) -> Path:
    """A sensor's database: four readings of yesterday, one of today."""
    yesterday = (datetime.now(timezone.utc) - timedelta(days=1)).replace(hour=8, minute=0, second=0, microsecond=0)
    path = tmp_path / "readings.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE readings (time TEXT, sensor TEXT, value REAL)")
        times = [yesterday + timedelta(hours=n) for n in (0, 1, 2, 3, 24)]
        rows = [(time.replace(tzinfo=None).isoformat(), "boiler", 70 + n / 2) for n, time in enumerate(times)]
        database.executemany("INSERT INTO readings VALUES (?, ?, ?)", rows)
    return path


def test_the_night_is_exported_and_caught_up_with(
    tmp_path: Path, readings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a share that is not mounted
    inbox, state = tmp_path / "inbox", tmp_path / "state"
    command = ["-m", "resilient_exporters.cli", "jobs", "run", EXAMPLES / "nightly" / "nightly.py:slot"]
    variables = {"READINGS": readings, "INBOX": inbox, "STATE_DIRECTORY": state}
    monkeypatch.delenv("RESILIENT_EXPORTERS_DIR")  # the fixture's; systemd sets the other one

    # When two nights pass
    nights = [run(*command, "--max-try", 2, "--retry-delay", 0, code=1, variables=variables) for _ in range(2)]
    assert nights[0].stdout == "301: 1 failed; send_data failed (sub-code 1)\n"
    assert nights[1].stdout == "999: 2 failed; several jobs failed\n"
    assert len(list((state / "backlogs" / "nightly").glob("*.json"))) == 2
    assert list((state / "outbox").iterdir()) == []

    # And it is mounted in the third
    inbox.mkdir()
    done = run(*command, variables=variables)

    # Then
    assert done.stdout == "0: 3 succeeded; no error\n"
    [file] = inbox.iterdir()
    assert file.name.startswith("readings-20")
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [row["value"] for row in rows] == ["70.0", "70.5", "71.0", "71.5"]
    assert {row["units"] for row in rows} == {"degC"}
    assert list((state / "backlogs" / "nightly").glob("*.json")) == []


def test_the_units_of_systemd_say_what_is_needed() -> None:
    units = {}
    for name in ("nightly.service", "nightly.timer"):
        units[name] = configparser.ConfigParser(strict=True, interpolation=None)
        units[name].optionxform = str  # type: ignore[assignment,method-assign] # names of systemd have capitals
        units[name].read(EXAMPLES / "nightly" / name)
    service, timer = units["nightly.service"]["Service"], units["nightly.timer"]["Timer"]
    assert service["Type"] == "oneshot"
    assert service["StateDirectory"] == "nightly"
    assert timer["Persistent"] == "true"
    assert timer["OnCalendar"].startswith("*-*-* ")

    # The command in it is one that there is, with options that there are
    import click.testing

    from resilient_exporters.cli.root import rexport

    words = service["ExecStart"].split()
    assert words[0].endswith("/rexport")
    helped = click.testing.CliRunner().invoke(rexport, [*words[1:], "--help"])
    assert helped.exit_code == 0
    assert all(word in helped.output for word in words if word.startswith("--"))
