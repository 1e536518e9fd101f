"""Connections to SQL servers that hang: who hangs up on them, and who must not."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from resilient_exporters.exporters.sql_engine import Database


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        yield ours, theirs


@pytest.fixture
def database() -> Database:
    return Database("postgresql://u@h/d", synchronous="full", busy_timeout=5.0)


def ended(line: tuple[socket.socket, socket.socket]) -> bool:
    try:
        return line[1].recv(1) == b""
    except BlockingIOError:
        return False


def test_a_connection_past_its_deadline_is_shut_down(
    database: Database, line: tuple[socket.socket, socket.socket]
) -> None:
    # Given someone who waits for an answer
    database._busy[1] = line[0], time.monotonic() + 60
    database._hang_up()
    assert not ended(line)
    # When the deadline is over, Then the other end hears of it
    database._busy[1] = line[0], time.monotonic()
    database._hang_up()
    assert ended(line)


def test_a_forked_child_leaves_its_parents_connections_alone(
    database: Database, line: tuple[socket.socket, socket.socket]
) -> None:
    # Given a child, which has a copy of what its parent knows
    assert database.engine is not None
    database._busy[1] = line[0], time.monotonic()
    pid = os.fork()
    if pid == 0:
        database._hang_up()
        left = len(database._busy)
        assert database.engine is not None  # the child's own from here on
        os._exit(0 if left == 1 and not database._busy else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not ended(line)


def test_a_connection_that_is_closed_already_is_passed_over(database: Database) -> None:
    closed = socket.socket()
    closed.close()
    database._busy[1] = closed, time.monotonic()
    database._hang_up()
    assert list(database._busy) == [1]
