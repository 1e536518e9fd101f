"""The programs in examples/ do what they say."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from resilient_exporters import InvalidConfigError

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 60.0


class Receiver(ThreadingHTTPServer):
    """Answers as its script says, with 200 at the end of it, and keeps what it was posted."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.script: list[tuple[int, dict[str, str]]] = []
        self.posts: list[tuple[int, list[Any], dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/in"

    def taken(self) -> list[Any]:
        return [record for status, records, _ in self.posts if status == 200 for record in records]


class Answer(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        records = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, headers = self.server.script.pop(0) if self.server.script else (200, {})
        self.server.posts.append((status, records, dict(self.headers)))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """The test says what went wrong."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def webhook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("webhook_example", EXAMPLES / "webhook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_webhook_posts_records_with_their_ids(webhook: ModuleType, receiver: Receiver) -> None:
    # Given
    with webhook.WebhookExporter(receiver.url + "?key=secret", token="t0k3n") as exporter:
        # When
        receipt = exporter.send({"n": 1})
        assert receipt.result(PATIENCE) == (200, True)

    # Then
    assert receiver.taken() == [{"id": receipt.id, "data": {"n": 1}}]
    assert receiver.posts[0][2]["Authorization"] == "Bearer t0k3n"
    assert "secret" not in exporter.name


@pytest.mark.parametrize("status", [429, 503])
def test_the_webhook_sends_again_what_the_receiver_could_not_take(
    webhook: ModuleType, receiver: Receiver, status: int
) -> None:
    # Given a receiver that is overloaded once
    receiver.script = [(status, {"Retry-After": "0"})]
    with webhook.WebhookExporter(receiver.url, retry=0) as exporter:
        # When
        receipt = exporter.send({"n": 1})
        assert receipt.result(PATIENCE).successful

    # Then both posts have the same id
    assert [records[0]["id"] for _, records, _ in receiver.posts] == [receipt.id, receipt.id]
    assert len({headers["Idempotency-Key"] for _, _, headers in receiver.posts}) == 1


def test_the_webhook_halves_what_is_too_large_and_keeps_what_is_refused(
    webhook: ModuleType, receiver: Receiver
) -> None:
    # Given a receiver that finds the batch too large, then one record wrong
    receiver.script = [(413, {}), (422, {})]
    with webhook.WebhookExporter(receiver.url, retry=0, linger=60, batch_records=2) as exporter:
        # When
        exporter.send([{"n": 1}, {"n": 2}])
        assert exporter.flush(PATIENCE).complete

        # Then
        assert [record["data"] for record in receiver.taken()] == [{"n": 2}]
        assert [(letter.data, letter.reason) for letter in exporter.dead_letters()] == [
            ({"n": 1}, f"422 {HTTPStatus(422).phrase}")  # Python 3.13 words it otherwise
        ]


def test_the_webhook_holds_what_the_receiver_does_not_allow(webhook: ModuleType, receiver: Receiver) -> None:
    # Given
    receiver.script = [(401, {})]
    with webhook.WebhookExporter(receiver.url) as exporter:
        # When
        exporter.send({"n": 1})
        assert not exporter.flush(PATIENCE).complete

        # Then it waits for someone, and the next flush finds it mended
        target = exporter.stats().targets[exporter.name]
        assert target.state == "held"
        assert "401" in target.last_error
        assert exporter.flush(PATIENCE).complete


def test_the_webhook_waits_while_nobody_listens(webhook: ModuleType) -> None:
    # Given an address where nothing listens
    with webhook.WebhookExporter("http://127.0.0.1:9/in") as exporter:
        # When
        exporter.send({"n": 1})
        report = exporter.flush(PATIENCE)

        # Then
        assert (report.delivered, report.pending) == (0, 1)


def test_the_webhook_names_a_wrong_address(webhook: ModuleType) -> None:
    with pytest.raises(InvalidConfigError, match="ftp://x"):
        webhook.WebhookExporter("ftp://x")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments], capture_output=True, text=True, check=False, timeout=120,
        cwd=EXAMPLES.parent,
    )  # fmt: skip


def test_the_sensor_logger_writes_to_file_and_database(tmp_path: Path) -> None:
    # When
    done = run(EXAMPLES / "sensor_logger.py", tmp_path, "2")

    # Then
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "readings.jsonl").read_text().splitlines()
    assert [set(json.loads(line)) for line in lines] == [{"time", "cpu"}] * 2
    with closing(sqlite3.connect(tmp_path / "readings.db")) as database:
        assert database.execute("SELECT count(*) FROM readings").fetchone() == (2,)
    assert done.stdout.count("2 delivered, 0 wait, 0 dropped") == 2


def test_the_sensor_logger_ends_in_order_when_it_is_told_to(tmp_path: Path) -> None:
    # Given a logger that would run for ever, once it has delivered something
    program = subprocess.Popen(
        [sys.executable, "-W", "error", EXAMPLES / "sensor_logger.py", tmp_path],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=EXAMPLES.parent, env=dict(os.environ),
    )  # fmt: skip
    deadline = threading.Timer(60, program.kill)
    deadline.start()
    try:
        readings = tmp_path / "readings.jsonl"
        while program.poll() is None and not (readings.exists() and readings.stat().st_size):
            os.sched_yield()

        # When
        program.send_signal(signal.SIGTERM)
        printed, said = program.communicate()
    finally:
        deadline.cancel()

    # Then
    assert program.returncode == 0, said
    assert printed.count("0 wait, 0 dropped") == 2


def etl(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "etl.py"), str(directory), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **environment}
    )


def sensor_day(directory: Path) -> Path:
    """Two simulated sensors, a reading every ten minutes, for two days."""
    path = directory / "readings.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table readings (sensor text, time text, temperature real)")
        for sensor in ("boiler", "hall"):
            for minute in range(0, 48 * 60, 10):
                time = f"2026-11-{20 + minute // 1440} {minute // 60 % 24:02d}:{minute % 60:02d}:00"
                connection.execute("insert into readings values (?, ?, ?)", (sensor, time, 20 + minute % 60 / 10))
        connection.commit()
    return path


def test_the_etl_job_sums_up_a_day_once(tmp_path: Path) -> None:
    # Given
    path = sensor_day(tmp_path)

    # When
    done = etl(tmp_path, "2026-11-20")

    # Then
    assert done.returncode == 0, done.stderr
    assert "INFO etl 48 hours" in done.stderr
    lines = (tmp_path / "hours-2026-11-20.csv").read_text().splitlines()
    assert lines[:2] == ["sensor,hour,mean,min,max", "boiler,2026-11-20 00,22.5,20.0,25.0"]
    assert len(lines) == 1 + 48
    sent = [json.loads(line) for line in (tmp_path / "hours.jsonl").read_text().splitlines()]
    assert len(sent) == 48
    assert sent[-1] == {"sensor": "hall", "hour": "2026-11-20 23", "mean": 22.5, "min": 20.0, "max": 25.0}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select min(time), count(*) from readings").fetchone() == ("2026-11-21 00:00:00", 288)


def test_the_etl_job_can_be_tried_dry(tmp_path: Path) -> None:
    path = sensor_day(tmp_path)
    done = etl(tmp_path, "2026-11-20", BIGRAYS_DRY_RUN="1")

    assert done.returncode == 0, done.stderr
    assert "6. Report (Task)" in done.stdout
    assert f"filename: {tmp_path}/hours-2026-11-20.csv" in done.stdout
    assert "missing" not in done.stdout
    assert list(tmp_path.glob("hours*")) == []
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select count(*) from readings").fetchone() == (576,)


def test_the_etl_job_keeps_the_readings_if_they_cannot_be_exported(tmp_path: Path) -> None:
    path = sensor_day(tmp_path)
    (tmp_path / "hours-2026-11-20.csv").mkdir()
    done = etl(tmp_path, "2026-11-20")

    assert done.returncode == 1
    assert "ToFile: IsADirectoryError" in done.stderr
    assert "skipped: ToOtherSystem, Clean" in done.stderr
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select count(*) from readings").fetchone() == (576,)
