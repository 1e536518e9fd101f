"""Law 11: no data is executable, files are ours alone, damage is set aside and counted. And: no needless writes."""

from __future__ import annotations

import os
import pickle
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters
from resilient_exporters import Exporter
from resilient_exporters.delivery.ring import ring_path
from tests.programs import run
from tests.targets import PATIENCE, Target, balanced, numbers


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.mark,))


def waiting(place: Path) -> None:
    """A queue directory in which three records wait on disk."""
    exporter = Target(ConnectionError("down"), retry=3600, directory=place)
    exporter.send(numbers(3))
    assert exporter.save(PATIENCE)
    exporter.close(0)
    ring = ring_path(place)
    assert ring is not None
    ring.unlink()


@pytest.mark.parametrize("where", ["block", "state", "letter", "key", "strange row", "side file", "setting"])
def test_a_planted_pickle_is_never_run(tmp_path: Path, where: str) -> None:
    # Given
    place, mark = tmp_path / "queue", tmp_path / "it ran"
    waiting(place)
    bomb = pickle.dumps(Bomb(mark))
    with sqlite3.connect(place / "cache.db") as database:
        columns = "key, raw, store_time, access_time, access_count, tag, size, mode, filename, value"
        row = "INSERT OR REPLACE INTO Cache (" + columns + ") VALUES (?, ?, 0, 0, 0, NULL, 0, ?, ?, ?)"
        if where == "block":
            database.execute("UPDATE Cache SET mode = 4, value = ? WHERE key >= 0", (bomb,))
        elif where == "state":
            database.execute("UPDATE Cache SET mode = 4, value = ? WHERE key = -1", (bomb,))
        elif where == "letter":
            database.execute(row, (-1000, 1, 4, None, bomb))
        elif where == "key":
            database.execute(row, (bomb, 0, 1, None, b"x"))
        elif where == "strange row":
            database.execute(row, (7 << 20 | 1, 1, 4, None, bomb))
        elif where == "side file":
            (place / "side.val").write_bytes(bomb)
            database.execute(row, (7 << 20 | 1, 1, 4, "side.val", None))
        else:
            database.execute("INSERT OR REPLACE INTO Settings (key, value) VALUES ('disk_pickle_protocol', ?)", (bomb,))
    database.close()

    # When
    exporter = Target(directory=place)
    exporter.send({"n": 3})
    exporter.flush(PATIENCE)
    list(exporter.dead_letters())
    exporter.close()

    # Then: not run, nothing stuck, and what is sound arrived
    assert not mark.exists()
    assert {"n": 3} in exporter.taken
    if where not in ("block", "state"):
        assert [record for record in exporter.taken if record["n"] < 3] == numbers(3)
    balanced(exporter)


def test_a_planted_pickle_in_the_ring_is_never_run(tmp_path: Path) -> None:
    # Given
    place, mark = tmp_path / "queue", tmp_path / "it ran"
    exporter = Target(ConnectionError("down"), retry=3600, directory=place, use_memory=True)
    exporter.send(numbers(3))
    exporter.close(0)
    ring = ring_path(place)
    assert ring is not None
    raw = bytearray(ring.read_bytes())
    bomb = pickle.dumps(Bomb(mark))
    for at in (4096, 73_728):
        raw[at : at + len(bomb)] = bomb
    ring.write_bytes(raw)

    # When
    later = Target(directory=place)
    later.send({"n": 3}).result(PATIENCE)

    # Then
    assert not mark.exists()
    assert later.taken[-1] == {"n": 3}
    balanced(later)


def test_what_is_written_holds_no_pickle(tmp_path: Path) -> None:
    # Given
    place = tmp_path / "queue"
    waiting(place)

    # Then: rows of bytes and nothing else, no side files
    with sqlite3.connect(place / "cache.db") as database:
        rows = database.execute("SELECT raw, mode, filename, typeof(key), typeof(value) FROM Cache").fetchall()
    database.close()
    assert rows
    assert set(rows) == {(1, 1, None, "integer", "blob")}
    assert {entry.name for entry in place.iterdir()} <= {"cache.db", "cache.db-wal", "cache.db-shm", "lock"}


def test_no_module_of_ours_unpickles_or_evaluates() -> None:
    # Given
    root = Path(resilient_exporters.__file__).parent
    wrong = re.compile(
        r"^\s*(import pickle|from pickle|import (dill|shelve|marshal))|(?<![\w.])(eval|exec)\(", re.MULTILINE
    )

    # When / Then
    for module in (*root.glob("*.py"), *(root / "delivery").rglob("*.py"), *(root / "exporters").rglob("*.py")):
        assert not wrong.search(module.read_text()), module


def test_a_ring_of_someone_else_is_not_trusted(tmp_path: Path) -> None:
    # Given: a file with the right name that others may write, one that is a link, one of another queue
    place = tmp_path / "queue"
    ring = ring_path(place)
    assert ring is not None
    twin = ring.with_suffix(".twin")
    for kind in ("open to all", "link", "linked twice"):
        ring.unlink(missing_ok=True)
        elsewhere = tmp_path / f"elsewhere {kind}"
        elsewhere.write_bytes(b"precious")
        if kind == "open to all":
            ring.write_bytes(b"\0" * 100)
            ring.chmod(0o666)
        elif kind == "link":
            ring.symlink_to(elsewhere)
        else:
            twin.touch(mode=0o600)
            os.link(twin, ring)

        # When
        exporter = Target(directory=place, name=kind)
        exporter.send({"n": 0}).result(PATIENCE)
        exporter.close()

        # Then
        assert exporter.taken == numbers(1)
        assert elsewhere.read_bytes() == b"precious"
    ring.unlink(missing_ok=True)
    twin.unlink()


@pytest.mark.parametrize("damage", ["garbage", "empty", "truncated", "flipped"])
def test_a_damaged_database_is_no_reason_to_stop(tmp_path: Path, damage: str) -> None:
    # Given
    place = tmp_path / "queue"
    waiting(place)
    for name in ("cache.db-wal", "cache.db-shm"):
        (place / name).unlink(missing_ok=True)
    path = place / "cache.db"
    raw = bytearray(path.read_bytes())
    if damage == "garbage":
        raw[:] = os.urandom(len(raw))
    elif damage == "empty":
        raw.clear()
    elif damage == "truncated":
        del raw[len(raw) // 2 :]
    else:
        for at in range(5000, len(raw), 997):
            raw[at] ^= 0xFF
    path.write_bytes(raw)

    # When
    exporter = Target(directory=place)
    exporter.send({"n": 3})
    exporter.flush(PATIENCE)

    # Then: no altered record is delivered
    assert {"n": 3} in exporter.taken
    assert all(record in numbers(4) for record in exporter.taken)
    balanced(exporter)
    assert exporter.save(PATIENCE)


def test_secrets_are_in_no_name(tmp_path: Path) -> None:
    class Login(Exporter):
        def __init__(self, password: str) -> None:
            self.password = password
            super().__init__()

        def address(self) -> str:
            return "host"

        def export(self, batch: Any) -> None: ...

    exporter = Login("s3cret")
    assert "s3cret" not in f"{exporter.name} {exporter.directory} {exporter!r}"


def test_nothing_is_written_to_disk_on_a_healthy_link(tmp_path: Path) -> None:
    # Given / When: 20,000 records, the target up; and as many with it down, to see that it is measured at all
    out = run("""
        import os, sys
        from pathlib import Path
        from resilient_exporters import Exporter

        class Sink(Exporter):
            down = False
            def export(self, batch):
                if self.down:
                    raise ConnectionError("down")

        def written():
            return int(Path("/proc/self/io").read_text().split("write_bytes: ")[1].split()[0])

        healthy, down = Sink(name="healthy", loss_window=3600), Sink(name="down", loss_window=0.1)
        down.down = True
        for exporter in (healthy, down):
            exporter.send({"n": -1})
            exporter.flush(60)
            before = written()
            for n in range(20_000):
                exporter.send({"n": n, "pad": "x" * 100})
            exporter.flush(60)
            if exporter.down:
                exporter.save(20)
            print(written() - before, exporter.stats().written_bytes, (exporter.directory / "cache.db").exists())
    """)

    # Then
    healthy, down = (line.split() for line in out.splitlines())
    assert healthy == ["0", "0", "False"]
    assert int(down[0]) > 100_000
