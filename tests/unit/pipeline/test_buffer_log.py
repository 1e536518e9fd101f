"""The log that holds the open buffers of all groups."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.pipeline import StateError
from resilient_exporters.pipeline.writers.buffer_log import Buffer, BufferLog


def content(log: BufferLog, group: tuple[Any, ...]) -> list[bytes]:
    whole = b"\n".join(log.read(log.of(group)))
    return whole.split(b"\n") if whole else []


def finish(log: BufferLog, buffer: Buffer) -> None:
    log.detach(buffer)
    log.drop(buffer)


def commit(log: BufferLog) -> dict[str, Any]:
    log.sync()
    state = log.state()
    log.settled()
    return state


def test_what_was_synced_is_there_after_a_crash_and_what_came_later_is_not(tmp_path: Path) -> None:
    # Given: two groups, synced, and more records of both that are not
    log = BufferLog(tmp_path, b"\n")
    log.add(log.of(("a",)), b"1")
    log.add(log.of(("b", 2)), b"2")
    state = commit(log)
    log.add(log.of(("a",)), b"3")
    log.add(log.of(("c",)), b"4")
    log.sync()
    log.close()
    # When: another process goes on
    again = BufferLog(tmp_path, b"\n", state)
    # Then
    assert {buffer.group for buffer in again} == {("a",), ("b", 2)}
    assert content(again, ("a",)) == [b"1"]
    assert again.of(("a",)).records == 1
    assert again.of(("a",)).size == 2
    again.add(again.of(("a",)), b"5")
    assert content(again, ("a",)) == [b"1", b"5"]
    again.close()


def test_no_more_files_are_open_than_a_few_however_many_groups_there_are(tmp_path: Path) -> None:
    log = BufferLog(tmp_path, b"\n")
    for number in range(10_000):
        log.add(log.of((number,)), b"x")
    log.sync()
    assert len(list(tmp_path.iterdir())) == 1
    assert len(log) == 10_000
    log.close()


def test_done_buffers_take_no_disk(tmp_path: Path) -> None:
    log = BufferLog(tmp_path, b"\n", segment=1000)
    for _ in range(200):
        buffer = log.of(("a",))
        log.add(buffer, b"x" * 100)
        log.sync()
        finish(log, buffer)
        commit(log)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1300
    log.close()


def test_one_old_record_does_not_keep_all_that_came_after_it(tmp_path: Path) -> None:
    # Given: a group with one record, and another with many buffers
    log = BufferLog(tmp_path, b"\n", segment=1000)
    log.add(log.of(("rare",)), b"rare")
    for _ in range(200):
        buffer = log.of(("a",))
        log.add(buffer, b"x" * 100)
        commit(log)
        finish(log, buffer)
    state = commit(log)
    # Then: its frames were moved, and are whole after a crash, too
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 4000
    assert content(log, ("rare",)) == [b"rare"]
    log.close()
    again = BufferLog(tmp_path, b"\n", state)
    assert content(again, ("rare",)) == [b"rare"]
    again.close()


def test_memory_is_bounded(tmp_path: Path) -> None:
    log = BufferLog(tmp_path, b"\n", memory=1000)
    for _ in range(100):
        log.add(log.of(("a",)), b"x" * 100)
    assert sum(map(len, log.of(("a",)).pieces)) <= 1000
    assert len(content(log, ("a",))) == 100
    log.close()


@pytest.mark.parametrize("where", [0, 10, 30, -1])
def test_damage_is_noticed(tmp_path: Path, where: int) -> None:
    log = BufferLog(tmp_path, b"\n")
    log.add(log.of(("a",)), b"1" * 50)
    state = commit(log)
    log.close()
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    with pytest.raises(StateError, match=r"damaged at byte .*: begin the job anew"):
        BufferLog(tmp_path, b"\n", state)


def test_a_file_that_is_gone_or_too_short_is_noticed(tmp_path: Path) -> None:
    log = BufferLog(tmp_path, b"\n")
    log.add(log.of(("a",)), b"1" * 50)
    state = commit(log)
    log.close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StateError, match="should have"):
        BufferLog(tmp_path, b"\n", state)
    path.unlink()
    with pytest.raises(StateError, match="should have"):
        BufferLog(tmp_path, b"\n", state)


def test_a_group_of_things_that_cannot_be_kept_is_kept_as_text(tmp_path: Path) -> None:
    log = BufferLog(tmp_path, b"\n")
    group = (object(),)
    log.add(log.of(group), b"1")
    state = commit(log)
    log.close()
    again = BufferLog(tmp_path, b"\n", state)
    assert [buffer.group for buffer in again] == [(str(group[0]),)]
    again.close()


@pytest.mark.parametrize("seed", range(20))
def test_any_history_of_records_files_commits_and_crashes(tmp_path: Path, seed: int) -> None:
    """Against a model that is a dict of lists, and a copy of it as of the last commit."""
    chance = random.Random(seed)
    place = tmp_path / "log"
    log = BufferLog(place, b"\n", segment=700, memory=300)
    state = commit(log)
    now: dict[tuple[str], list[bytes]] = {}
    kept: dict[tuple[str], list[bytes]] = {}
    for step in range(400):
        what = chance.random()
        group = (f"g{chance.randrange(6)}",)
        if what < 0.6:
            piece = b"%d" % step * chance.randrange(1, 30)
            log.add(log.of(group), piece)
            now.setdefault(group, []).append(piece)
        elif what < 0.7 and group in now:
            finish(log, log.of(group))
            del now[group]
        elif what < 0.9:
            state = commit(log)
            kept = {name: list(pieces) for name, pieces in now.items()}
        elif what < 0.95:
            if chance.random() < 0.7:
                log.sync()
                log.state()  # asked for, and the commit failed
            shutil.copytree(place, tmp_path / f"crash{step}")  # a killed process closes nothing
            log.close()
            place = tmp_path / f"crash{step}"
            log = BufferLog(place, b"\n", state, segment=700, memory=300)
            now = {name: list(pieces) for name, pieces in kept.items()}
        assert {buffer.group for buffer in log} == set(now)
    for group, pieces in now.items():
        assert content(log, group) == pieces
        assert log.of(group).records == len(pieces)
        assert log.of(group).size == sum(map(len, pieces)) + len(pieces)
    log.close()
