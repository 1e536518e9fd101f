"""The end of a growing file: rotated by name or by copy, truncated, gone; each line once, also over resumes."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_exporters.codec import decode, encode
from resilient_exporters.pipeline import Pipeline
from resilient_exporters.pipeline.deserializers import CSVDeserializer, TextLinesDeserializer
from resilient_exporters.pipeline.errors import BadRecordError, ConfigurationError, StateError, UnreadableStreamError
from resilient_exporters.pipeline.readers import TailReader
from resilient_exporters.testing import RecordingExporter


def add(path: Path, *numbers: int, end: str = "\n") -> None:
    with path.open("a") as file:
        file.write("\n".join(json.dumps({"n": number}) for number in numbers) + end)


def following(path: Path, **options: Any) -> TailReader:
    """A reader that gives what is there, instead of waiting for more."""
    reader = TailReader(**{"path": str(path), "follow": True, "poll": 0.001, **options})
    reader.stopping = lambda: True
    return reader


def numbers(reader: TailReader, batches: int = 3) -> list[int]:
    return [record["n"] for _ in range(batches) for record in reader.get_next_batch()]


def resumed(reader: TailReader, path: Path, **options: Any) -> TailReader:
    again = following(path, **options)
    again.bad_records.choice = "skip"
    again.set_last_position(decode(encode(reader.get_last_position())))
    reader.close()
    return again


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_what_is_there_is_read_to_its_end(log: Path) -> None:
    add(log, 1, 2, 3, end="")
    reader = TailReader(path=str(log), batch_size=2)
    assert [record["n"] for record in reader.get_next_batch()] == [1, 2]
    assert not reader.is_finished()
    assert numbers(reader) == [3]
    assert reader.is_finished()
    reader.close()


def test_a_line_counts_once_its_end_is_written(log: Path) -> None:
    reader = following(log)
    assert numbers(reader) == []
    add(log, 1, 2, end="\n" + '{"n"')
    assert numbers(reader) == [1, 2]
    position = reader.get_last_position()
    assert position["inode"] == log.stat().st_ino
    assert position["offset"] == 18
    with log.open("a") as file:
        file.write(": 3}\n")
    assert numbers(reader) == [3]
    reader.close()


def rename(log: Path) -> None:
    for number in range(8, 0, -1):
        if (old := log.with_name(f"log.{number}")).exists():
            old.rename(log.with_name(f"log.{number + 1}"))
    log.rename(log.with_name("log.1"))


def copy_and_truncate(log: Path) -> None:
    for number in range(8, 0, -1):
        if (old := log.with_name(f"log.{number}")).exists():
            old.rename(log.with_name(f"log.{number + 1}"))
    shutil.copy2(log, log.with_name("log.1"))
    os.truncate(log, 0)


@pytest.mark.parametrize("rotate", [rename, copy_and_truncate])
@pytest.mark.parametrize("interrupted", [False, True])
def test_across_rotations(log: Path, rotate: Any, interrupted: bool) -> None:
    # Given a log that is rotated twice before anyone looks, with lines unread each time
    add(log, 1, 2)
    reader = following(log)
    assert numbers(reader) == [1, 2]
    add(log, 3)
    rotate(log)
    add(log, 4, 5, 6)
    rotate(log)
    add(log, 7)

    # Then the same reader, or another one that goes on, reads all of it in its order
    if interrupted:
        reader = resumed(reader, log)
    assert numbers(reader, 12) == [3, 4, 5, 6, 7]
    add(log, 8)
    assert numbers(reader) == [8]
    assert reader.bad_records.count == {}
    reader.close()


def test_a_writer_that_goes_on_for_a_moment_after_the_rotation(log: Path) -> None:
    add(log, 1)
    reader = following(log)
    assert numbers(reader) == [1]
    with log.open("a") as still:
        rename(log)
        add(log, 4)
        assert [record["n"] for record in reader.get_next_batch()] == []  # it sees that there is a new one
        still.write('{"n": 2}\n{"n": 3}')
    assert numbers(reader, 9) == [2, 3, 4]
    reader.close()


def test_what_was_compressed_or_removed_meanwhile_is_counted(log: Path) -> None:
    add(log, 1, 2)
    reader = following(log, batch_size=1)
    assert numbers(reader, 1) == [1]
    rename(log)
    log.with_name("log.1.gz").write_bytes(gzip.compress(log.with_name("log.1").read_bytes()))
    log.with_name("log.1").unlink()
    add(log, 3)
    position = reader.get_last_position()
    again = resumed(reader, log)
    assert numbers(again) == [3]
    assert again.bad_records.count == {"reader": 1}
    again.close()
    strict = following(log)
    strict.set_last_position(position)
    with pytest.raises(BadRecordError, match=r"byte 9: the file that was read is gone"):
        numbers(strict)


def test_an_inode_that_is_used_again_is_another_file(log: Path) -> None:
    # Given a position in a file, and another file under its name and inode
    add(log, *range(1, 50))
    reader = following(log)
    assert numbers(reader) == list(range(1, 50))
    inode = log.stat().st_ino
    log.write_text("")
    add(log, *range(101, 160))
    assert log.stat().st_ino == inode

    # Then it is read from its beginning
    again = resumed(reader, log)
    assert numbers(again) == list(range(101, 160))
    assert again.bad_records.count == {"reader": 1}
    again.close()


def test_a_truncated_log_without_a_copy_begins_anew(log: Path) -> None:
    add(log, 1, 2, 3)
    reader = following(log)
    assert numbers(reader) == [1, 2, 3]
    log.write_text("")
    add(log, 4)
    assert numbers(reader) == [4]
    log.write_text("")
    add(log, 5, 6, 7, 8, 9)  # longer than it was
    assert numbers(reader) == [5, 6, 7, 8, 9]
    reader.close()


def test_from_the_end(log: Path) -> None:
    add(log, 1, 2, end="\n" + '{"n"')
    reader = following(log, from_end=True)
    assert reader.get_last_position()["offset"] == 18
    with log.open("a") as file:
        file.write(": 3}\n")
    again = resumed(reader, log, from_end=True)  # killed before its first batch
    assert numbers(again) == [3]
    again.close()


def test_other_files_beside_it_are_none_of_its_own(log: Path) -> None:
    add(log, 1)
    reader = following(log)
    assert numbers(reader) == [1]
    for name in ("log.bak", "log2", "log.1.gz", "mylog.1"):
        add(log.with_name(name), 99)
    rename(log)
    add(log, 2)
    assert numbers(reader, 9) == [2]
    reader.close()


def test_lines_of_other_kinds(log: Path) -> None:
    log.write_bytes(b"one\n\ntwo\n")
    reader = TailReader(path=str(log))
    reader.deserializer = TextLinesDeserializer()
    assert list(reader.get_next_batch()) == [{"line": "one"}, {"line": "two"}]
    reader.close()
    reader = TailReader(path=str(log))
    reader.deserializer = CSVDeserializer()
    with pytest.raises(ConfigurationError, match="CSVDeserializer does not; give one of lines"):
        list(reader.get_next_batch())


def test_bad_lines_are_named_by_file_and_byte(log: Path) -> None:
    log.write_bytes(b'{"n": 1}\n{"n": \n{"n": 2}\n')
    reader = TailReader(path=str(log))
    with pytest.raises(BadRecordError, match=r"log, byte 9: "):
        list(reader.get_next_batch())
    reader.close()


def test_a_file_that_is_not_there(log: Path) -> None:
    with pytest.raises(UnreadableStreamError, match="there is no such file"):
        list(TailReader(path=str(log)).get_next_batch())


STEP = st.sampled_from(["write", "write", "half", "end", "rename", "copy", "read", "resume", "resume"])


@settings(max_examples=80)
@given(steps=st.lists(STEP, max_size=25), batch=st.integers(1, 5), chance=st.integers())
def test_every_line_comes_once_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], batch: int, chance: int
) -> None:
    # Given a log that is written to, rotated and read in any order, with interruptions within batches
    folder = tmp_path_factory.mktemp("tail")
    log, dice = folder / "log", random.Random(chance)
    log.touch()
    written, found, half = 0, [], False
    reader = following(log, batch_size=batch)
    assert numbers(reader, 1) == []
    for step in [*steps, "end", "write"]:
        if step == "write" and not half:
            count = dice.randint(1, 4)
            add(log, *range(written, written + count))
            written += count
        elif step == "half" and not half:
            half = True
            with log.open("a") as file:
                file.write('{"n": ')
        elif step == "end" and half:
            half = False
            with log.open("a") as file:
                file.write(f"{written}}}\n")
            written += 1
        elif step in ("rename", "copy") and not half and log.stat().st_size and len(list(folder.iterdir())) < 8:
            (rename if step == "rename" else copy_and_truncate)(log)
            if step == "rename":
                log.touch()
        elif step == "read":
            found += numbers(reader, 1)
        elif step == "resume":
            most = dice.randint(0, batch)
            source = reader.get_next_batch()
            found += [record["n"] for _, record in zip(range(most), source, strict=False)]
            reader = resumed(reader, log, batch_size=batch)

    # Then every line comes once, in its order
    found += numbers(reader, written + 20)
    reader.close()
    assert found == list(range(written))
    assert reader.bad_records.count == {}
    shutil.rmtree(folder)


def test_in_a_pipeline_that_is_asked_to_stop_while_it_waits(log: Path, tmp_path: Path) -> None:
    # Given a pipeline that follows a log; while it waits more is written, and then it is asked to stop
    add(log, 1, 2)
    target = RecordingExporter(directory=tmp_path / "queue")
    pipeline = Pipeline(TailReader(path=str(log), follow=True), writer=target)
    waits: Iterator[Callable[[], None]] = iter(
        [lambda: add(log, 3), lambda: os.kill(os.getpid(), signal.SIGTERM), lambda: add(log, 4)]
    )
    pipeline.reader.pause = lambda seconds: next(waits)()  # type: ignore[method-assign]  # what happens meanwhile

    # Then it ends at once, with all that was there
    report = pipeline.run()
    assert not report.complete
    assert [record["n"] for record in target.wait_for(3)] == [1, 2, 3]

    # And goes on there
    next(waits)()
    pipeline = Pipeline(TailReader(path=str(log)), writer=target, resume=report.job)
    with pytest.raises(StateError, match="follow"):
        pipeline.run()
    pipeline = Pipeline(TailReader(path=str(log), follow=True), writer=target, resume=report.job)
    pipeline.reader.pause = lambda seconds: os.kill(os.getpid(), signal.SIGTERM)  # type: ignore[method-assign]  # as above
    pipeline.run()
    assert [record["n"] for record in target.wait_for(4)] == [1, 2, 3, 4]
