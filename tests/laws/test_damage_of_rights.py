"""Files of another owner or mode, and a file system that is mounted read-only: it starts, it serves, and it waits.

Nothing in the directory is touched: once somebody has put the rights back, the next start finds all of it. Rights mean
nothing to root, so the programs here give theirs up; that takes root to begin with. The table goes to
``build/damage-rights.md``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.laws import ruins
from tests.laws.ruins import FRESH, IN_MEMORY, LETTERS, Ruin, content
from tests.programs import run

NOBODY = 65534
OLD = set(range(10, IN_MEMORY.stop))
LITTLE = 0.05

# Serves as somebody without rights: what is imported later could not be read any more.
PROGRAM = """
    import json, os, sys, threading
    from pathlib import Path
    import diskcache, platformdirs, psutil, sqlite3, tenacity
    from resilient_exporters.delivery import adoption, directory
    from tests.laws.ruins import FRESH, OPTIONS, content
    from tests.targets import PATIENCE, Target, balanced
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    target = Target(directory=sys.argv[1], **OPTIONS)
    for n in range(FRESH, FRESH + 5):
        target.send(content(n))
    target.flush(2)
    saved, trouble = target.save(2), target.stats().disk_trouble
    before = os.times()
    threading.Event().wait(1.0)
    cpu = sum(os.times()[:2]) - sum(before[:2])
    balanced(target)
    try:
        letters = len(list(target.dead_letters()))
    except OSError:
        letters = -1
    target.close(0)
    print(json.dumps([target.taken, letters, saved, trouble, cpu]))
"""

Damage = Callable[[Path], None]


def not_writable(path: Path) -> None:
    path.chmod(0o500 if path.is_dir() else 0o400)


def closed(path: Path) -> None:
    path.chmod(0)


def of_root(path: Path) -> None:
    os.chown(path, 0, 0)


def open_to_all(path: Path) -> None:
    path.chmod(0o777 if path.is_dir() else 0o666)


def mounted_read_only(path: Path) -> None:
    for options in ("--bind", "remount,ro,bind"):
        command = ["mount", *(["-o", options] if "," in options else [options]), str(path), str(path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"A READ-ONLY MOUNT IS NOT TESTED: {done.stderr.strip()}")


CELLS: tuple[tuple[str, Damage], ...] = (
    *((file, damage) for file in ("cache.db", "cache.db-wal", "cache.db-shm", "lock") for damage in (closed, of_root)),
    ("cache.db", not_writable), ("ring", not_writable), ("ring", open_to_all), ("ring", of_root),
    (".", not_writable), (".", closed), (".", of_root), (".", open_to_all), (".", mounted_read_only),
    ("quarantine", closed),
)  # fmt: skip
_rows: list[str] = []


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ruin]:
    if os.getuid():
        pytest.skip("WRONG OWNERS AND MODES ARE NOT TESTED: this takes root")
    yield ruins.ruin(tmp_path_factory.mktemp("ruins") / "one")
    head = "| file | damage | started | fresh ones served | salvaged at once | after the repair | CPU s in 1 s |"
    ruins.report("damage-rights", head, _rows)


@pytest.fixture
def place(kept: Ruin, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A queue directory of somebody without rights, with its ring."""
    tmp_path = Path(tempfile.mkdtemp())  # pytest's own is closed to others
    os.chown(tmp_path, NOBODY, NOBODY)
    monkeypatch.setattr(os, "getuid", lambda: NOBODY)  # only for the name of the ring
    ring = kept.rebuilt(tmp_path / "queue")
    monkeypatch.undo()
    for path in (ring, tmp_path / "queue", *(tmp_path / "queue").rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    (tmp_path / "ring").symlink_to(ring)
    yield tmp_path / "queue"
    for left in ring.parent.glob(f"{ring.stem}*"):
        left.unlink()
    shutil.rmtree(tmp_path)


def serve(place: Path) -> list[Any]:
    answer: list[Any] = json.loads(run(PROGRAM, place))
    return answer


@pytest.mark.parametrize(("file", "damage"), CELLS, ids=[f"{file} {damage.__name__}" for file, damage in CELLS])
def test_rights(place: Path, file: str, damage: Damage) -> None:
    # Given
    ring = place.with_name("ring").readlink()
    path = ring if file == "ring" else place / file
    before = path.stat()

    # When
    damage(path)
    try:
        taken, _, saved, trouble, cpu = serve(place)
    finally:
        if damage is mounted_read_only:
            subprocess.run(["umount", str(path)], check=True)
    if path.exists():
        os.chown(path, before.st_uid, before.st_gid)
        path.chmod(before.st_mode)
    later, letters_later, saved_later, trouble_later, _ = serve(place)

    # Then
    fresh = {data["n"] for data in taken if data["n"] >= FRESH}
    old, rest = ({data["n"] for data in some} & OLD for some in (taken, later))
    _rows.append(
        f"| {file} | {damage.__name__.replace('_', ' ')} | yes | {len(fresh)} of 5 | {len(old)} of {len(OLD)} "
        f"| {len(old | rest)} of {len(OLD)} | {cpu:.3f} |"
    )
    assert len(fresh) == 5
    assert old | rest == OLD
    assert file == "ring" or not old & rest  # a ring that was away for a while knows nothing of what was settled
    assert [data for data in taken + later if data != content(data["n"])] == []
    assert saved or trouble
    assert saved_later
    assert trouble_later is None
    assert letters_later == len(LETTERS)
    assert cpu < LITTLE
