"""What the benchmarks of callers and disks stand on: the loop that measures, the slow disk, other ends, peers."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks import durable_peers, send_peers
from benchmarks.call_time import WARM, time_calls
from benchmarks.harness import run_in_process
from benchmarks.sinks import HOST, dead_port, yes_man
from benchmarks.slow_disk import slow_disk


@pytest.mark.parametrize("threads", [1, 4])
def test_each_call_is_measured_and_the_records_come_in_turns(threads: int) -> None:
    # Given a call that takes down what it gets, and in which thread
    got: list[tuple[int, str]] = []
    # When
    figures = time_calls(lambda data: got.append((threading.get_ident(), data)), ["a", "b", "c"], 240, threads=threads)
    # Then
    counted = got[WARM:]
    assert len(counted) == 240
    assert len({thread for thread, _ in counted}) == threads
    for name in "abc":
        assert sum(data == name for _, data in counted) == 80
    assert 0 < figures["p50"] <= figures["p99"] <= figures["p99.9"] <= figures["max"]


@pytest.mark.skipif(shutil.which("cc") is None, reason="the library is C")
def test_every_sync_of_the_slow_disk_goes_through_its_library(tmp_path: Path) -> None:
    # Given a program that syncs three times, by both calls and by SQLite
    program = """
import os, sqlite3, sys
from benchmarks.slow_disk import syncs
handle = os.open(sys.argv[1] + "/file", os.O_CREAT | os.O_WRONLY)
os.fsync(handle); os.fdatasync(handle)
print(syncs())
sqlite3.connect(sys.argv[1] + "/db").execute("CREATE TABLE t (x)")
print(syncs() > 2)
"""
    with slow_disk() as (library, why_not):
        assert library is not None, why_not
        environment = {"LD_PRELOAD": str(library), "SLOW_DISK_NANOSECONDS": "1", "PYTHONPATH": ":".join(sys.path)}
        # When
        done = subprocess.run(
            [sys.executable, "-c", program, tmp_path], env=environment, capture_output=True, text=True, check=True
        )
    # Then
    assert done.stdout.split() == ["2", "True"]
    assert not library.exists()


def test_without_a_compiler_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with slow_disk() as found:
        assert found == (None, "no C compiler (no-such-compiler)")


def test_the_http_server_answers_each_post_of_a_connection() -> None:
    with yes_man() as port:
        connection = http.client.HTTPConnection(HOST, port, timeout=60)
        for body in (b"one", b"x" * 300_000, b""):
            connection.request("POST", "/v1/logs", body)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"")
        connection.close()


def test_a_dead_port_refuses() -> None:
    with dead_port() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port), 60)


@pytest.mark.parametrize("taken", [True, False])
def test_a_peer_is_measured_in_both_states_and_its_process_ends(taken: bool) -> None:
    # Given a pool whose worker is held up if nothing is taken
    given = {"name": "ThreadPoolExecutor.submit", "count": 20, "taken": taken, "pause": 0.0}
    assert run_in_process(send_peers.peer, **given)["p50"] > 0


@pytest.mark.parametrize("name", durable_peers.PEERS)
def test_what_a_peer_on_disk_gives_back_is_what_went_in(name: str, tmp_path: Path) -> None:
    pytest.importorskip(durable_peers.PEERS[name][0], reason="installed by `make bench`")
    # It raises if not.
    assert durable_peers.peer(name, str(tmp_path), 20)["rate"] > 0


@pytest.mark.parametrize(
    ("module", "there"), [("sqlite3", True), ("no_such", False), ("no_such.module", False), ("json.no_such", False)]
)
def test_a_peer_that_is_not_installed_is_known_before_it_is_measured(module: str, there: bool) -> None:
    assert durable_peers.installed(module) is there


def test_the_limits_of_the_disk_count_what_comes_out(tmp_path: Path) -> None:
    assert durable_peers.raw_log(str(tmp_path), 1_000)["out"] > 0
    assert durable_peers.sqlite(str(tmp_path), 1_001)["out"] > 0


def test_a_raw_log_that_was_damaged_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a disk that flips a bit
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda *place: (found := real(*place))[:50] + bytes([found[50] ^ 1]) + found[51:])
    # Then
    with pytest.raises(RuntimeError, match="damaged"):
        durable_peers.raw_log(str(tmp_path), 500)
