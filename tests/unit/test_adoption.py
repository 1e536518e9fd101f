"""Programs that are killed while others hold the default directory: whoever opens next takes over what waits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.delivery import adoption
from resilient_exporters.delivery.directory import DirectoryLock, default_directory
from resilient_exporters.delivery.outcome import Batch, Outcome, Reject, Retry
from resilient_exporters.delivery.ring import ring_path
from resilient_exporters.delivery.spool import Spool, SpoolUnavailable, key_of
from resilient_exporters.exporter import Exporter
from resilient_exporters.exporter_pool import ExporterPool
from tests.programs import run

PROGRAM = """
import json, sys
from resilient_exporters.delivery.outcome import Hold, Reject
from resilient_exporters.exporter import Exporter

class Target(Exporter):
    kind = "target"
    def export(self, batch):
        if self.refuses:
            return [Reject("refused") if record.data["refuse"] else None for record in batch]
        return Hold("nobody is there")

target = Target(name="adopted", **json.loads(sys.argv[1]))
target.refuses = sys.argv[4] == "refuse"
ids = [target.send({"from": sys.argv[2], "n": n, "refuse": n % 2 == 0}).id for n in range(int(sys.argv[3]))]
if target.refuses:
    target.flush(60)
saved = sys.argv[5] == "save" and target.save(60)
print(json.dumps({"ids": ids, "directory": str(target.directory), "saved": saved}), flush=True)
sys.stdin.read()
"""


class Target(Exporter):
    """Takes everything, or nothing."""

    kind = "target"
    up = True
    refused: str | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"name": "adopted", **options})
        self.got: list[tuple[str, Any]] = []

    def export(self, batch: Batch) -> Outcome | None:
        if self.refused is not None:
            return Reject(self.refused)
        if not self.up:
            return Retry(reason="down")
        self.got.extend((record.id, record.data) for record in batch)
        return None


class Programs:
    """Other processes that send, and are killed."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen[str]] = []

    def start(self, name: str, count: int, *, refuse: bool = False, save: bool = False) -> dict[str, Any]:
        words = ["{}", name, str(count), "refuse" if refuse else "", "save" if save else ""]
        command = [sys.executable, "-c", PROGRAM, *words]
        program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.running.append(program)
        assert program.stdout is not None
        told: dict[str, Any] = json.loads(program.stdout.readline())
        return told

    def kill(self) -> None:
        for program in self.running:
            program.send_signal(signal.SIGKILL)
            program.communicate()
        self.running.clear()


@pytest.fixture
def programs() -> Iterator[Programs]:
    made = Programs()
    yield made
    made.kill()


@pytest.fixture
def base(own_queues: Path) -> Path:
    return default_directory(Target()._key())


def drained(target: Target) -> list[tuple[str, Any]]:
    assert target.flush(60).complete
    return target.got


def left(place: Path) -> list[str]:
    return sorted(entry.name for entry in place.iterdir())


@pytest.mark.parametrize("save", [False, True])
def test_kill_9_of_several_then_the_next_one_takes_over(programs: Programs, base: Path, save: bool) -> None:
    # Given three programs with one default directory, none of which reaches its target
    told = [programs.start(name, 40 + at, save=save) for at, name in enumerate("abc")]
    places = [base, base.with_name(base.name + ".2"), base.with_name(base.name + ".3")]
    assert [Path(one["directory"]) for one in told] == places
    assert [one["saved"] for one in told] == [save] * 3
    # When all of them are killed, and another one starts
    programs.kill()
    target = Target()
    ours = target.send({"from": "us", "n": 0}).id
    got = drained(target)
    # Then every record arrives, once, under the id that it had, and in order for each program
    assert target.directory == base
    assert sorted(name for name, _ in got) == sorted([*(name for one in told for name in one["ids"]), ours])
    for one, name in zip(told, "abc", strict=True):
        mine = [(record, data["n"]) for record, data in got if data["from"] == name]
        assert [record for record, _ in mine] == one["ids"]
        assert [number for _, number in mine] == list(range(len(mine)))
    figures = target.stats()
    assert (figures.accepted, figures.pending, figures.targets["adopted"].delivered) == (124, 0, 124)
    # and nothing is left to adopt, not even memory
    for place in places[1:]:
        assert left(place) == ["lock"]
        ring = ring_path(place)
        assert ring is not None
        assert not ring.exists()
    target.close()
    again = Target()
    assert drained(again) == []
    again.close()


def test_the_holder_of_a_numbered_one_adopts_the_base(programs: Programs, base: Path) -> None:
    # Given a program that holds the base, and is killed when we have opened the next one
    told = programs.start("a", 10)
    first = Target()
    first.up = False
    first.send({"from": "us", "n": 0})
    assert first.directory == base.with_name(base.name + ".2")
    programs.kill()
    first.close()
    # When the next one starts, then it takes the base, and what we left
    target = Target()
    got = drained(target)
    assert {name for name, _ in got} >= set(told["ids"])
    assert len(got) == 11
    target.close()


def test_what_a_living_program_holds_is_left_alone(programs: Programs, base: Path) -> None:
    told = programs.start("a", 5)
    target = Target()
    target.send({"from": "us", "n": 0})
    assert len(drained(target)) == 1
    target.close()
    programs.kill()
    again = Target()
    assert [name for name, _ in drained(again)] == told["ids"]
    again.close()


def test_dead_letters_come_along(programs: Programs, base: Path) -> None:
    # Given a program whose target refused every other record, killed beside another one
    programs.start("a", 1)
    told = programs.start("b", 10, refuse=True)
    programs.kill()
    target = Target()
    drained(target)
    letters = list(target.dead_letters())
    assert [one.id for one in letters] == told["ids"][::2]
    figures = target.stats().targets["adopted"]
    assert (figures.dead, figures.pending, figures.accepted) == (5, 0, figures.delivered + 5)
    # and can be sent again
    assert target.replay() == 5
    assert [name for name, _ in drained(target)][-5:] == told["ids"][::2]
    target.close()
    # When the program is killed after that, then the counters of the letters are as they were
    assert left(base.with_name(base.name + ".2")) == ["lock"]


def pool(*names: str, up: bool = True) -> tuple[ExporterPool, dict[str, Target]]:
    members = {name: Target(name=name) for name in names}
    for member in members.values():
        member.up = up
    return ExporterPool(list(members.values()), name="pool"), members


def test_a_backlog_for_other_targets_is_left(own_queues: Path) -> None:
    # Given a numbered queue with a backlog for a target that the program has no more
    lock = DirectoryLock(default_directory(pool()[0]._key()))
    before, _ = pool("one", up=False)
    before.send({"n": 1})
    place = before.directory
    assert place is not None
    before.close()
    lock.release()
    other, members = pool("two")
    other.send({"n": 2})
    assert other.flush(60).complete
    other.close()
    assert [data for _, data in members["two"].got] == [{"n": 2}]
    assert len(left(place)) > 1
    # When there are both, then it is adopted, for the one that it was for
    both, members = pool("one", "two")
    both.send({"n": 3})
    assert both.flush(60).complete
    both.close()
    assert [data["n"] for _, data in members["one"].got] == [1, 3]
    assert [data["n"] for _, data in members["two"].got] == [3]
    assert left(place) == ["lock"]


def orphaned(base: Path, count: int, *, batch: int = 10, save: bool = True) -> tuple[Path, list[str]]:
    """A numbered queue with a backlog on disk, closed while its target was down."""
    lock = DirectoryLock(base)
    target = Target(batch_records=batch)
    target.up = False
    ids = [str(target.send({"n": number}).id) for number in range(count)]
    assert target.save(60) is save
    place = target.directory
    assert place is not None
    target.close()
    lock.release()
    return place, ids


CUT_SHORT = """
import os, sys
from resilient_exporters.delivery import adoption
from tests.unit.test_adoption import Target

forget, left = adoption._forget, [int(sys.argv[1])]

def killed(*arguments):
    if not left[0]:
        os._exit(70)
    left[0] -= 1
    forget(*arguments)

adoption._forget = killed
target = Target()
target.up = False
target.has_unsent_data()
"""


@pytest.mark.parametrize("moved", [0, 2])
@pytest.mark.parametrize("cut", [False, True])
def test_an_adoption_that_ends_between_its_two_steps_doubles_nothing(base: Path, moved: int, cut: bool) -> None:
    # Given a backlog, and a program that is killed when a block has moved and is not yet noted as such
    place, ids = orphaned(base, 50, batch=10)
    run(CUT_SHORT, moved, code=70)
    if cut:  # as a power cut: what is in memory is gone
        for directory in (base, place):
            ring = ring_path(directory)
            assert ring is not None
            ring.unlink(missing_ok=True)
    # When the next one starts
    target = Target()
    got = drained(target)
    # Then every record arrives once
    assert [name for name, _ in got] == ids
    assert left(place) == ["lock"]
    target.close()


def test_a_disk_that_fills_up_half_way_doubles_nothing(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a backlog of several rows, and a disk that takes two of them at each start
    place, ids = orphaned(base, 50, batch=10)
    real = adoption._move
    room = [2]

    def move(*arguments: Any) -> int:
        if not room[0]:
            raise SpoolUnavailable("max_disk is reached")
        room[0] -= 1
        return real(*arguments)

    monkeypatch.setattr(adoption, "_move", move)
    got: list[str] = []
    for _ in range(6):
        room[0] = 2
        target = Target()
        target.send({"n": -1})
        got += [name for name, data in drained(target) if data["n"] >= 0]
        target.close()
        if left(place) == ["lock"]:
            break
    # Then every record arrives once, whatever it took
    assert sorted(got) == sorted(ids)
    assert left(place) == ["lock"]


def test_a_row_that_is_damaged_is_counted_here(base: Path) -> None:
    # Given a row of ten of which nothing can be read, and one with a flip in its body
    place, ids = orphaned(base, 30, batch=10)
    spool = Spool(place, 1 << 30)
    spool.open()
    keys = list(spool.keys()[0])
    assert keys == [key_of(0, 10), key_of(10, 10), key_of(20, 10)]
    spool.write({keys[1]: b"garbage"})
    spool.close()
    ring = ring_path(place)
    assert ring is not None
    ring.unlink()
    target = Target()
    got = [name for name, _ in drained(target)]
    assert sorted(got) == sorted([*ids[:10], *ids[20:]])
    figures = target.stats().targets["adopted"]
    assert (figures.dropped, figures.accepted, figures.pending) == ({"corrupt": 10}, 30, 0)
    target.close()


def test_no_shared_memory_is_taken_for_a_queue_that_has_none(base: Path) -> None:
    place, ids = orphaned(base, 20)
    ring = ring_path(place)
    assert ring is not None
    ring.unlink()
    target = Target()
    assert [name for name, _ in drained(target)] == ids
    assert not ring.exists()
    target.close()


def test_a_full_queue_that_raises_does_not_keep_the_program_from_starting(base: Path) -> None:
    _, ids = orphaned(base, 30)
    target = Target(on_full="raise", max_records=5)
    assert [name for name, _ in drained(target)] == ids
    target.send({"n": -1})
    assert len(drained(target)) == 31
    target.close()


def test_other_folders_of_like_names_are_not_looked_at(base: Path, tmp_path: Path) -> None:
    for name in ("x", ".bak", "2", ".2x"):
        folder = base.with_name(base.name + name)
        folder.mkdir(parents=True)
        (folder / "precious").touch()
    base.with_name(base.name + ".7").touch()
    target = Target()
    target.send({"n": 1})
    drained(target)
    target.close()
    assert not list(base.parent.glob("*/precious/../lock"))
    assert all((base.with_name(base.name + name) / "precious").exists() for name in ("x", ".bak", "2", ".2x"))
