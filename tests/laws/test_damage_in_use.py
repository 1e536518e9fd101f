"""What becomes of a queue whose files are removed, replaced, overwritten or cut under a running program.

SQLite goes on without a word when its files are removed: it writes where nobody will ever read. So after each damage
the program saves, and then it goes on, is killed, or the power is cut (the ring goes too): what a save called safe has
to be there. The table goes to ``build/damage-in-use.md``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.delivery.ring import ring_path
from tests.laws import ruins
from tests.laws.ruins import FRESH, IN_MEMORY, LETTERS, OPTIONS, Ruin, content
from tests.programs import start
from tests.targets import PATIENCE, Target, balanced

SERVER = """
    import sys
    from pathlib import Path
    from tests.laws.ruins import serve
    serve(Path(sys.argv[1]))
"""
OLD = set(range(10, IN_MEMORY.stop))
SAVED, UNSAVED = set(range(FRESH, FRESH + 10)), set(range(FRESH + 10, FRESH + 15))
LITTLE = 0.05

Damage = Callable[[Path], None]


def garbage(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))


def empty(path: Path) -> None:
    os.truncate(path, 0)


def another(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"\0" * 8192)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def remove_all(path: Path) -> None:
    # At once: the program puts its files back while we are at it.
    shutil.rmtree(path.rename(path.with_name(f"{path.name} removed")))


def move_away(path: Path) -> None:
    path.rename(path.with_name(f"{path.name} moved"))


CELLS: tuple[tuple[str, Damage], ...] = (
    *((file, damage) for file in ("cache.db", "cache.db-wal") for damage in (Path.unlink, another, empty, folder)),
    *((file, damage) for file in ("cache.db-shm",) for damage in (Path.unlink, another, garbage)),
    ("lock", Path.unlink), ("lock", folder), ("ring", Path.unlink),
    (".", remove_all), (".", move_away),
)  # fmt: skip
ENDS = ("goes on", pytest.param("killed", marks=pytest.mark.soak), "power cut")
_rows: list[str] = []


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ruin]:
    yield ruins.ruin(tmp_path_factory.mktemp("ruins") / "one")
    head = "| file | damage | then the program | saves | salvaged | fresh ones served | CPU s in 1 s of rest |"
    ruins.report("damage-in-use", head, _rows)


class Program:
    """A program that sends to a target that is down."""

    def __init__(self, place: Path) -> None:
        self._child: subprocess.Popen[str] = start(SERVER, place)

    def ask(self, word: str) -> Any:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(f"{word}\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        assert answer, f"it ended at {word!r}: {self._child.communicate()}, exit code {self._child.returncode}"
        return json.loads(answer)

    def kill(self) -> int:
        self._child.kill()
        self._child.communicate()
        return self._child.returncode


def lives_on(place: Path, ring: Path, cut: bool) -> tuple[list[Any], int]:
    """The next start, whose target is up: what it delivers, and how many letters it finds."""
    if cut:
        ring.unlink(missing_ok=True)
    target = Target(directory=place, **OPTIONS)
    target.send(content(0))
    assert target.flush(PATIENCE).complete
    balanced(target)
    letters = len(list(target.dead_letters()))
    target.close()
    return target.taken[:-1], letters


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("file", "damage"), CELLS, ids=[f"{file} {damage.__name__}" for file, damage in CELLS])
def test_damage_in_use(tmp_path: Path, kept: Ruin, file: str, damage: Damage, end: str) -> None:
    # Given a program with a backlog and a target that is down
    place = tmp_path / "queue"
    ring = kept.rebuilt(place)
    program = Program(place)
    cpu = None
    try:
        program.ask("send")
        assert program.ask("save")

        # When
        damage(ring if file == "ring" else place / file)
        program.ask("send")
        saved = program.ask("save")
        program.ask("send")
        taken: list[Any] = []
        if end == "goes on":
            complete, taken, dropped, _ = program.ask("flush")
            assert complete
            assert sum(dropped.values()) == kept.gone
            cpu = program.ask("rest")
    finally:
        program.kill()
    later, letters = lives_on(place, ring, cut=end == "power cut")

    # Then: it saved, and nothing that was called safe is lost, altered, or there twice
    found = [*taken, *later]
    got = {data["n"] for data in found}
    _rows.append(
        f"| {file} | {damage.__name__.replace('_', ' ')} | {end} | {'yes' if saved else 'no'} | {len(got & OLD)} of "
        f"{len(OLD)} | {len(got & (SAVED | UNSAVED))} of 15 | {'' if cpu is None else f'{cpu:.3f}'} |"
    )
    assert saved
    assert got >= OLD | SAVED
    assert end == "power cut" or got >= UNSAVED
    assert [data for data in found if data != content(data["n"])] == []
    assert len(got) == len(found)
    assert letters == len(LETTERS)
    assert cpu is None or cpu < LITTLE


@pytest.mark.parametrize("file", ["cache.db-shm", "ring"])
def test_cutting_a_mapped_file_kills_and_the_next_start_goes_on(tmp_path: Path, kept: Ruin, file: str) -> None:
    # Given: no program can do anything against that (SIGBUS), and only its own user and root can do it
    place = tmp_path / "queue"
    ring = kept.rebuilt(place)
    program = Program(place)
    program.ask("send")
    assert program.ask("save")

    # When
    os.truncate(ring if file == "ring" else place / file, 0)
    with pytest.raises(AssertionError, match=f"exit code {-signal.SIGBUS}"):
        _go_on(program)
    program.kill()

    # Then
    taken, letters = lives_on(place, ring, cut=False)
    assert {data["n"] for data in taken} >= OLD | set(range(FRESH, FRESH + 5))
    assert letters == len(LETTERS)


def _go_on(program: Program) -> None:
    for _ in range(3):
        program.ask("send")
        program.ask("save")


def test_a_directory_that_cannot_be_made_again_is_served_from_what_is_open(tmp_path: Path, kept: Ruin) -> None:
    # Given: the directory is gone, and nothing can be put in its place for the time being
    place = tmp_path / "queue"
    ring = kept.rebuilt(place)
    program = Program(place)
    try:
        program.ask("send")
        assert program.ask("save")
        move_away(place)
        place.symlink_to(tmp_path / "nowhere")

        # When
        program.ask("send")
        assert not program.ask("save")
        complete, taken, _, letters = program.ask("flush")
        cpu = program.ask("rest")
    finally:
        program.kill()
        place.unlink()
        assert ring == ring_path(place)

    # Then
    assert complete
    assert {data["n"] for data in taken} == OLD | SAVED
    assert letters == len(LETTERS)
    assert cpu < LITTLE
