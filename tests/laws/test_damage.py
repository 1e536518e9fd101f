"""Whatever becomes of a file of the queue directory or of the ring: it starts, it serves, it salvages, it counts.

Each cell of the table is a directory as a killed program left it, with one thing damaged. All of them are opened, then
left alone for a while, and the CPU that each takes meanwhile is measured. The table goes to ``build/damage.md``.
"""

from __future__ import annotations

import random
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.delivery.ring import ring_path
from tests.laws import ruins
from tests.laws.ruins import DAMAGES, FRESH, IN_MEMORY, LETTERS, OPTIONS, Means, Ruin, content, ruin
from tests.targets import PATIENCE, Target, balanced

IDLE = 2.0
"""Seconds for which nothing happens."""
LITTLE = 0.05
"""CPU seconds that an exporter may take of them."""
FILES = ("cache.db", "cache.db-wal", "cache.db-shm", "lock", "quarantine/10.block", "damaged-1.db", "ring")
CELLS = [(file, damage) for file in FILES for damage in DAMAGES]
WAITING = set(range(10, IN_MEMORY.stop))
"""What waited; of the first block an earlier damage left nothing."""
SENT = 5
"""Records sent after the damage."""


@dataclass
class Row:
    """What came of one cell."""

    file: str
    damage: str
    error: str = ""
    taken: list[Any] = field(default_factory=list)
    letters: list[Any] = field(default_factory=list)
    counted: int = 0
    ran: bool = False
    saves: bool = False
    cpu: float = 0.0

    @property
    def salvaged(self) -> set[int]:
        return {data["n"] for data in self.taken} & WAITING

    def __str__(self) -> str:
        served = sum(data["n"] >= FRESH for data in self.taken)
        return (
            f"| {self.file} | {self.damage} | {self.error or 'yes'} | {served} of {SENT} | {len(self.salvaged)} of "
            f"{len(WAITING)} | {len(self.letters)} of {len(LETTERS)} | {self.counted} | {self.cpu:.3f} |"
        )


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ruin, Ruin]:
    root = tmp_path_factory.mktemp("ruins")
    return ruin(root / "one"), ruin(root / "other", 1000)


@pytest.fixture(scope="module")
def table(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, kept: tuple[Ruin, Ruin]
) -> dict[tuple[str, str], Row]:
    """A row for each cell that is asked for."""
    items = [item for item in request.session.items if item.path == request.node.path]
    asked = [item.callspec.params for item in items if hasattr(item, "callspec")]
    root = tmp_path_factory.mktemp("damage")
    rows, opened = {}, []
    for file, damage in CELLS:
        if any(one.get("file") == file and one.get("damage") is damage for one in asked):
            row = rows[file, damage.__name__] = Row(file, damage.__name__.replace("_", " "))
            opened.append((row, *started(row, root / f"{file.replace('/', ' ')}.{damage.__name__}", damage, kept)))
    before = [ruins.spent(threads) for _, _, threads in opened]
    threading.Event().wait(IDLE)
    for (row, exporter, threads), cpu in zip(opened, before, strict=True):
        row.cpu = ruins.spent(threads) - cpu
        exporter.close(0)
        directory = exporter.directory
        if directory is not None and (ring := ring_path(directory)) is not None:
            remove(ring)
            for aside in ring.parent.glob(f"{ring.stem}.*.damaged"):
                remove(aside)
    head = "| file | damage | started | served | salvaged | letters | counted as lost | CPU s in 2 s of rest |"
    ruins.report("damage", head, rows.values())
    return rows


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def started(row: Row, place: Path, damage: Any, kept: tuple[Ruin, Ruin]) -> tuple[Target, list[int]]:
    """Damage a directory and let a program start in it, whose target is up."""
    one, other = kept
    ring = one.rebuilt(place)
    path = ring if row.file == "ring" else place / row.file
    mark = place.with_name(f"{place.name}.ran")
    raw = ruins.renamed(other.ring, place.with_name("other")) if row.file == "ring" else other.files[row.file]
    damage(path, Means(mark, raw, random.Random(row.file + row.damage)))
    before = set(threading.enumerate())
    target = Target(directory=place, **OPTIONS)
    try:
        for n in range(FRESH, FRESH + SENT):
            target.send(content(n))
        report = target.flush(PATIENCE)
        row.saves = target.save(PATIENCE)
        row.letters = [letter.data for letter in target.dead_letters()]
        stats = balanced(target).targets["target"]
        row.counted = sum(stats.dropped.values()) - one.gone
        row.error = "" if report.complete else f"not all was settled: {report}"
    except Exception as error:
        row.error = f"{type(error).__name__}: {error}"
    row.taken = list(target.taken)
    row.ran = mark.exists()
    precious = mark.with_name("precious")
    if precious.exists() and precious.read_bytes() != b"precious":
        row.error = "wrote through a link"
    ours = [t.native_id for t in set(threading.enumerate()) - before if t.native_id]
    return target, ours


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.replace("_", " "))
@pytest.mark.parametrize("file", FILES)
def test_damage(table: dict[tuple[str, str], Row], file: str, damage: Any) -> None:
    row = table[file, damage.__name__]
    # Then it started, and served
    assert not row.error
    assert set(range(FRESH, FRESH + SENT)) <= {data["n"] for data in row.taken}
    # nothing was altered, invented or doubled, and no data was run
    assert [data for data in row.taken if data != content(data["n"])] == []
    assert len({data["n"] for data in row.taken}) == len(row.taken)
    assert not row.ran
    # what is not there is counted
    lost = WAITING - row.salvaged
    if file == "ring":
        assert lost <= set(IN_MEMORY)  # it was nowhere else: as a reboot would have done
    elif damage is not ruins.replace_by_another_queues:  # sound, as far as anyone can tell
        assert len(lost) + len(LETTERS) - len(row.letters) == row.counted
    # and then it rests
    assert row.cpu < LITTLE
    assert row.saves


@pytest.mark.soak
@pytest.mark.parametrize("number_of_dice", [5, 6])
def test_damage_at_random(
    tmp_path: Path, kept: tuple[Ruin, Ruin], number_of_dice: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A thousand ruins more, each damaged at one to three places that nobody chose."""
    dice = random.Random(number_of_dice)
    for number in range(1000):
        place, mark = tmp_path / str(number), tmp_path / "ran"
        ring = kept[0].rebuilt(place)
        done = []
        for _ in range(dice.randint(1, 3)):
            file, damage = dice.choice(("cache.db", "cache.db-wal", "ring")), dice.choice(DAMAGES[:4])
            done.append((file, damage.__name__))
            damage(ring if file == "ring" else place / file, Means(mark, b"", dice))
        target = Target(directory=place, **OPTIONS)
        target.send(content(FRESH))
        assert target.flush(PATIENCE).complete, (number, done)
        balanced(target)
        assert [data for data in target.taken if data != content(data["n"])] == [], (number, done)
        assert target.taken[-1]["n"] == FRESH, (number, done)
        assert len({data["n"] for data in target.taken}) == len(target.taken), (number, done)
        target.close(0)
        assert not [one.getMessage() for one in caplog.records if one.exc_info], (number, done)
        caplog.clear()
        for left in ring.parent.glob(f"{ring.stem}*"):
            left.unlink()
        shutil.rmtree(place)
