"""A pipeline that reads files or a rotating log is killed at any moment: each record comes once, each bad line too."""

from __future__ import annotations

import gzip
import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.pipeline.checkpoint import Store
from tests import programs
from tests.laws.pipeline_program import DATABASE, job_of

PROGRAM = Path(__file__).with_name("reader_program.py")
KILLS = [3, pytest.param(100, marks=pytest.mark.soak, id="soak")]


def lines(first: int, count: int) -> bytes:
    """One in a hundred is half a line."""
    whole = [json.dumps({"n": number, "text": f"reading {number}"}) for number in range(first, first + count)]
    return "".join(f"{text[: 12 if at % 100 == 50 else None]}\n" for at, text in enumerate(whole, first)).encode()


def begun(folder: Path, source: str) -> Any:
    child = programs.start(PROGRAM, folder, source)
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n", child.communicate()
    return child


def ended(child: Any) -> None:
    _, errors = child.communicate(timeout=programs.PATIENCE)
    assert child.returncode == 0, errors


def check(folder: Path, count: int, damaged: int = 0) -> None:
    """Every line is there once: as a record, or put aside."""
    texts = [path.read_text() for path in (folder / "out").glob("*.jl")]
    there = Counter(json.loads(line)["n"] for line in "".join(texts).splitlines())
    store = Store(folder / DATABASE)
    dead = [bad.data for bad in store.dead(store.jobs()[0].id)]
    store.close()
    assert max(there.values()) == 1, "records doubled"
    assert set(there) == {number for number in range(count) if number % 100 != 50}, "records lost"
    assert len(dead) == len(set(dead)) == count // 100 + damaged


@pytest.mark.parametrize("kills", KILLS)
def test_files_packed_and_not(kills: int, tmp_path: Path) -> None:
    # Given packed files of two members, plain ones, and one that was cut
    chance, done, runs = random.Random(7), 0, 0
    longest = 0.5
    while done < kills:
        runs += 1
        folder = tmp_path / f"run{runs}"
        (folder / "in").mkdir(parents=True)
        for number in range(4):
            first, second = lines(number * 2000, 1000), lines(number * 2000 + 1000, 1000)
            data = gzip.compress(first) + gzip.compress(second) if number % 2 else first + second
            (folder / "in" / f"{number}.jl{'.gz' if number % 2 else ''}").write_bytes(data)
        (folder / "in" / "cut.jl.gz").write_bytes(gzip.compress(b"")[:-3])

        # When: it is killed again and again, and then left alone
        for _ in range(kills):
            if job_of(folder)[1]:
                break
            child = begun(folder, "files")
            time.sleep(chance.uniform(0, longest))  # the moment of the kill is what is drawn: nothing is waited for
            child.kill()
            done += child.wait() == -9
            child.communicate()
        if not job_of(folder)[1]:
            ended(begun(folder, "files"))

        # Then
        check(folder, 8000, damaged=1)


@pytest.mark.parametrize("kills", KILLS)
def test_a_log_that_grows_and_is_rotated_meanwhile(kills: int, tmp_path: Path) -> None:
    # Given
    chance, written = random.Random(8), 0
    log = tmp_path / "in" / "log"
    log.parent.mkdir()
    log.touch()

    # When: it is written to, rotated and killed in any order
    for number in range(kills):
        child = begun(tmp_path, "log")
        for step in range(3):
            with log.open("ab") as file:
                file.write(lines(written, 700))
            written += 700
            if (number + step) % 2:
                for old in range(8 * kills, 0, -1):
                    if log.with_name(f"log.{old}").exists():
                        log.with_name(f"log.{old}").rename(log.with_name(f"log.{old + 1}"))
                log.rename(log.with_name("log.1"))
                log.touch()
            time.sleep(chance.uniform(0, 0.1))  # as above
        child.kill()
        child.communicate()
    with log.open("ab") as file:
        file.write(lines(written, 300))
    log.with_name("stop").touch()
    ended(begun(tmp_path, "log"))

    # Then
    check(tmp_path, written + 300)
