from __future__ import annotations

import errno
import hashlib
import os
import pickle
import random
import shutil
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import diskcache
import pytest

from resilient_exporters.delivery import database
from resilient_exporters.delivery import spool as module
from resilient_exporters.delivery.block import Block, pack
from resilient_exporters.delivery.frame import frame
from resilient_exporters.delivery.rescue import Rescue, waiting_for_rescue
from resilient_exporters.delivery.spool import (
    STATE,
    Spool,
    SpoolDamaged,
    SpoolMoved,
    SpoolUnavailable,
    disk_bytes,
    key_of,
    rows,
    span_of,
)

LETTERS = module.LETTERS
RUN = b"run-8byt"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "queue"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def spool(directory: Path) -> Iterator[Spool]:
    made = Spool(directory, 8 << 20)
    made.open()
    yield made
    made.close()


def row_of(first: int, count: int) -> bytes:
    frames = b"".join(frame(b"record %d" % at, at) for at in range(first, first + count))
    return pack(Block(first, count, RUN, 0, len(frames), 1.0, 2.0), frames)


def sql(directory: Path, statement: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(directory / "cache.db", isolation_level=None)) as connection:
        return connection.execute(statement, values).fetchall()


def page_size(directory: Path) -> int:
    return int(sql(directory, "PRAGMA page_size")[0][0])


def filled(directory: Path, number: int = 120, size: int = 3000) -> dict[int, bytes]:
    chance = random.Random(1)
    values = {key_of(at * 10, 10): chance.randbytes(size) for at in range(number)}
    spool = Spool(directory, 64 << 20)
    spool.open()
    spool.write(values)
    spool.close()
    return values


# -- rows ----------------------------------------------------------------------------------------------------------


def test_a_key_says_where_a_block_stands() -> None:
    for first in (0, 1, 1 << 20, (1 << 42) + 7):
        for count in (1, 500, (1 << 20) - 1):
            assert span_of(key_of(first, count)) == (first, first + count)
    assert key_of(5, 999_999) < key_of(6, 1)
    assert key_of((1 << 43) - 1, (1 << 20) - 1) < 1 << 63


def test_nothing_is_there_before_it_is_opened(directory: Path) -> None:
    spool = Spool(directory, 1 << 20)
    assert not spool.exists
    assert list(directory.iterdir()) == []
    spool.close()


def test_what_is_written_is_read_after_a_restart_in_the_order_of_offsets(spool: Spool, directory: Path) -> None:
    puts = {key_of(at, 3): row_of(at, 3) for at in (30, 0, 900, 1 << 41, 3)}
    spool.write({**puts, STATE: b"state", LETTERS: b"letter", LETTERS - 1: b"letter 2"})
    spool.close()
    again = Spool(directory, 1 << 20)
    assert again.exists
    again.open()
    again.open()
    keys, letters = again.keys()
    assert list(keys) == sorted(puts)
    assert sorted(letters) == [LETTERS - 1, LETTERS]
    assert {key: again.get(key) for key in keys} == puts
    assert again.get(STATE) == b"state"
    assert again.get(key_of(5, 5)) is None
    payload, damaged = again.read(key_of(30, 3))
    assert payload is not None
    assert (payload.origin, payload.count, damaged) == (30, 3, b"")
    assert again.read(key_of(5, 5)) == (None, b"")
    again.close()


def test_a_transaction_is_all_or_nothing(spool: Spool) -> None:
    spool.write({1: b"one", 2: b"two"})

    class Rows(dict[int, bytes]):
        def items(self) -> Any:
            yield 3, b"three"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        spool.write(Rows(), [1])
    assert [spool.get(key) for key in (1, 2, 3)] == [b"one", b"two", None]
    spool.write({2: b"2", 3: b"three"}, [1, 99])
    assert [spool.get(key) for key in (1, 2, 3)] == [None, b"2", b"three"]


@pytest.mark.parametrize("value", ["text", 5, None, [1], bytearray(b"x"), {"a": 1}])
def test_only_bytes_go_in(spool: Spool, value: Any) -> None:
    with pytest.raises(TypeError, match="bytes"):
        spool.write({1: value})
    assert spool.get(1) is None


@pytest.mark.parametrize("key", ["text", b"x", 1.5, True, None])
def test_only_whole_numbers_are_keys(spool: Spool, key: Any) -> None:
    with pytest.raises(TypeError, match="int"):
        spool.write({key: b"x"})


def test_large_values_make_no_files(spool: Spool, directory: Path) -> None:
    spool.write({1: bytes(3 << 20)})
    assert {entry.name for entry in directory.iterdir()} <= {"cache.db", "cache.db-wal", "cache.db-shm"}


def test_a_damaged_row_is_salvaged_and_its_bytes_are_kept(spool: Spool, directory: Path, caplog: Any) -> None:
    row = bytearray(row_of(7, 3))
    row[30] ^= 1
    body = bytearray(row_of(7, 3))
    body[-1] ^= 1
    spool.write({key_of(7, 3): bytes(row), key_of(17, 3): bytes(body)})
    # Given a row whose head is damaged, nothing is left of it; else what proves intact is
    assert spool.read(key_of(7, 3)) == (None, bytes(row))
    payload, damaged = spool.read(key_of(17, 3))
    assert payload is not None
    assert damaged == bytes(body)
    assert "offset 7" in caplog.text
    spool.quarantine("7.block", damaged)
    spool.quarantine("7.block", damaged)
    kept = directory / "quarantine" / "7.block"
    assert kept.read_bytes() == damaged
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700


# -- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_files_are_private_whatever_the_umask(directory: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        spool = Spool(directory, 1 << 20)
        spool.open()
        spool.write({1: b"x"})
        modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in directory.iterdir()}
        spool.close()
    finally:
        os.umask(before)
    assert set(modes) >= {"cache.db", "cache.db-wal"}
    assert set(modes.values()) == {0o600}


def test_the_settings_of_the_database(spool: Spool, directory: Path) -> None:
    cache = spool._cache
    assert (cache.eviction_policy, cache.cull_limit) == ("none", 0)
    pragma = {
        name: cache._sql(f"PRAGMA {name}").fetchone()[0]
        for name in ("synchronous", "journal_mode", "mmap_size", "auto_vacuum", "secure_delete")
    }
    assert pragma == {"secure_delete": 0, "synchronous": 2, "journal_mode": "wal", "mmap_size": 0, "auto_vacuum": 2}


def test_a_new_database_is_synced_into_its_directory(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(database, "sync_directory", synced.append)
    for _ in range(2):
        spool = Spool(directory, 1 << 20)
        spool.open()
        spool.close()
    assert synced == [directory]


def bytes_written() -> int:
    return int(next(line for line in Path("/proc/self/io").read_text().splitlines() if "wchar" in line).split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the kernel does not count what is written")
def test_a_fresh_database_is_one_small_write(directory: Path) -> None:
    # Given the image of an empty database, made for another queue
    (directory / "other").mkdir()
    spool = Spool(directory / "other", 8 << 20)
    spool.open()
    spool.close()

    # When
    before = bytes_written()
    spool = Spool(directory, 8 << 20)
    spool.open()

    # Then: diskcache by itself would write 400 KB
    assert bytes_written() - before < 64_000
    spool.write({1: b"one"})
    spool.close()


def test_an_opening_changes_nothing(directory: Path) -> None:
    # Given: diskcache by itself would write each of its settings anew, 300 KB
    filled(directory, 5)
    whole = (directory / "cache.db").read_bytes()

    # When
    spool = Spool(directory, 64 << 20)
    spool.open()

    # Then nothing is in the log, and nothing in the database
    assert (directory / "cache.db-wal").stat().st_size == 0
    assert (directory / "cache.db").read_bytes() == whole
    spool.close()
    # And a setting that is another one is changed
    again = Spool(directory, 8 << 20)
    again.open()
    assert again._pragma("journal_size_limit") == 512 << 10
    again.close()


@pytest.fixture
def full_tmpfs(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "shm"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here (needs root)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_fresh_database_is_made_beside_where_tmpfs_is_full(
    directory: Path, full_tmpfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_QUICK", str(full_tmpfs))
    makes_a_database(directory, monkeypatch)
    assert list(full_tmpfs.iterdir()) == []


@pytest.mark.parametrize("what", ["none", "a file", "left over"])
def test_a_fresh_database_is_made_beside_where_there_is_no_tmpfs(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    quick = tmp_path / "shm"
    monkeypatch.setattr(database, "_QUICK", str(quick))
    if what == "a file":
        quick.touch()
    elif what == "left over":
        # Given what a program left that was killed while it made one
        (directory / "new").mkdir()
        (directory / "new" / "cache.db").write_bytes(b"half")
        (directory / "cache.db-new").write_bytes(b"half")
    makes_a_database(directory, monkeypatch)


def makes_a_database(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_images", {})
    spool = Spool(directory, 8 << 20)
    spool.open()
    spool.write({1: b"one"})
    assert spool._pragma("synchronous") == 2
    assert {entry.name for entry in directory.iterdir()} <= {"cache.db", "cache.db-wal", "cache.db-shm"}
    spool.close()
    assert sql(directory, "SELECT value FROM Settings WHERE key = 'sqlite_synchronous'") == [(2,)]
    assert sql(directory, "PRAGMA integrity_check") == [("ok",)]


def test_what_a_kill_left_on_tmpfs_goes_with_the_next(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a process that was killed while it made a database
    quick = tmp_path / "shm"
    quick.mkdir()
    monkeypatch.setattr(database, "_QUICK", str(quick))
    with monkeypatch.context() as killed:
        killed.setattr(database, "_images", {})
        killed.setattr(shutil, "rmtree", lambda *_, **__: None)
        database.make(directory, 1 << 20)
    assert len(list(quick.iterdir())) == 1
    (directory / "cache.db").unlink()

    # When / Then
    makes_a_database(directory, monkeypatch)
    assert list(quick.iterdir()) == []


def test_what_others_planted_on_tmpfs_is_left_alone(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a link under the name that will be used
    quick, theirs = tmp_path / "shm", tmp_path / "theirs"
    quick.mkdir()
    theirs.mkdir()
    (theirs / "photo").touch()
    digest = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:16]
    (quick / f"resilient-exporters.new.{os.getuid()}.{digest}").symlink_to(theirs)
    monkeypatch.setattr(database, "_QUICK", str(quick))

    # When / Then: it is made beside
    makes_a_database(directory, monkeypatch)
    assert [entry.name for entry in theirs.iterdir()] == ["photo"]


@pytest.mark.parametrize("step", ["write", "sync", "rename"])
def test_a_cut_while_a_database_is_made_leaves_none(
    directory: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    # Given a process that ends in the middle
    class Cut(BaseException):
        pass

    def ends(*_: object, **__: object) -> Any:
        raise Cut

    spool = Spool(directory, 8 << 20)
    with monkeypatch.context() as broken:
        if step == "write":
            broken.setattr(os, "fdopen", ends)
        elif step == "sync":
            broken.setattr(os, "fsync", ends)
        else:
            broken.setattr(Path, "rename", ends)
        with pytest.raises(Cut):
            spool.open()

    # Then the next one begins anew
    again = Spool(directory, 8 << 20)
    assert not again.exists
    again.open()
    again.write({1: b"one"})
    assert {entry.name for entry in directory.iterdir()} <= {"cache.db", "cache.db-wal", "cache.db-shm"}
    again.close()


def test_a_disk_that_is_full_keeps_no_half_database(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    spool = Spool(directory, 8 << 20)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(SpoolUnavailable, match="No space"):
            spool.open()
    assert list(directory.iterdir()) == []
    spool.open()
    spool.close()


def test_many_queues_are_begun_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given no image yet
    monkeypatch.setattr(database, "_images", {})
    together = threading.Barrier(6)

    def begin(number: int) -> bytes | None:
        place = tmp_path / str(number)
        place.mkdir()
        spool = Spool(place, (8 + number % 2) << 20)
        together.wait()
        spool.open()
        spool.write({1: b"%d" % number})
        spool.close()
        spool.open()
        try:
            return spool.get(1)
        finally:
            spool.close()

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(begin, range(6))) == [b"%d" % number for number in range(6)]


def test_a_database_with_other_pages_is_used_as_it_is(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given one as SQLite makes it by itself
    monkeypatch.setattr(database, "_images", {})
    with monkeypatch.context() as earlier:
        earlier.setattr(database, "_PAGE", 4096)
        values = filled(directory, 20)
    assert page_size(directory) == 4096

    # When
    spool = Spool(directory, 8 << 20)
    spool.open()

    # Then
    assert {key: spool.get(key) for key in values} == values
    assert spool._pragma("wal_autocheckpoint") * 4096 == spool.transaction_bytes
    assert spool.fits([100_000], 1 << 30)
    assert not spool.fits([8 << 20], 1 << 30)
    spool.close()


def test_disk_bytes_are_those_of_du(directory: Path) -> None:
    filled(directory, 20)
    (directory / "quarantine").mkdir()
    (directory / "quarantine" / "x").write_bytes(bytes(10_000))
    expected = sum(
        entry.stat().st_blocks * 512
        for folder, _, files in os.walk(directory)
        for entry in map(Path(folder).joinpath, files)
    )
    assert disk_bytes(directory) == Spool(directory, 1).disk_bytes() == expected
    assert disk_bytes(directory / "missing") == 0


@pytest.mark.parametrize(
    ("most", "largest"), [(256 << 10, 2000), (256 << 10, 40_000), (1 << 20, 5000), (4 << 20, 300_000)]
)
def test_filling_to_the_bound_never_passes_it(directory: Path, most: int, largest: int) -> None:
    # Given rows of random sizes, saved in transactions as large as the keeper makes them
    chance = random.Random(most + largest)
    spool = Spool(directory, most)
    spool.open()
    at, top, refused = 0, 0, 0
    live: list[int] = []
    for _ in range(80):
        puts: dict[int, bytes] = {}
        size = 0
        while size < spool.transaction_bytes // 2 and len(puts) < 20:
            value = chance.randbytes(chance.randrange(1, largest))
            puts[key_of(at, 1)] = value
            at += 1
            size += len(value)
        if spool.fits([len(value) for value in puts.values()], 1 << 62):
            spool.write({**puts, STATE: bytes(chance.randrange(3000))})
            live.extend(puts)
        else:
            # When they do not fit, then old ones are deleted, as the keeper does
            refused += 1
            gone = [live.pop(0) for _ in range(min(len(live), chance.randrange(1, 15)))]
            spool.write({STATE: b"x"}, gone)
        top = max(top, disk_bytes(directory))
        # Then what du shows never passes the bound
        assert disk_bytes(directory) <= most, (at, refused)
    spool.close()
    assert disk_bytes(directory) <= most
    # and a good part of it is used
    assert refused
    assert top > most // 3


def test_deleting_writes_next_to_nothing(directory: Path) -> None:
    # Given 4 MB of rows, and a log that is empty
    values = filled(directory, 20, 200_000)
    spool = Spool(directory, 64 << 20)
    spool.open()
    # When they are deleted, then what they held is not written over (Debian's SQLite would, unasked)
    spool.write({}, list(values))
    assert (directory / "cache.db-wal").stat().st_size < 100_000
    spool.close()


def test_other_files_of_the_directory_count(spool: Spool, directory: Path) -> None:
    assert spool.fits([100_000], 1 << 62)
    (directory / "damaged-1.db").write_bytes(bytes(8 << 20))
    assert not spool.fits([100_000], 1 << 62)


def test_a_file_at_its_bound_takes_as_much_as_was_deleted(directory: Path) -> None:
    values = filled(directory, 300)
    spool = Spool(directory, 64 << 20)
    spool.open()
    # Given a file system that may not grow any more
    assert not spool.fits([50_000], 0)
    assert not spool.fits([50_000], -5)
    spool.write({}, list(values)[:50])
    assert spool.fits([50_000], 0)
    spool.close()


@pytest.mark.parametrize("left", [5, 450], ids=["hardly anything is left", "much is left"])
def test_shrinking_gives_space_back(directory: Path, left: int) -> None:
    values = filled(directory, 900)
    spool = Spool(directory, 64 << 20)
    spool.open()
    before = spool.disk_bytes()
    spool.write({}, list(values)[left:])
    assert spool.disk_bytes() >= before
    spool.shrink()
    assert spool.disk_bytes() < before * (left + 100) // 900
    assert [spool.get(key) for key in list(values)[:left]] == list(values.values())[:left]
    spool.check()
    spool.close()
    assert sql(directory, "PRAGMA integrity_check") == [("ok",)]
    assert sql(directory, "PRAGMA auto_vacuum") == [(2,)]


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the kernel does not count what is written")
def test_an_emptied_database_is_not_written_once_more_to_shrink(directory: Path) -> None:
    # Given 3 MB of rows, all of them settled
    values = filled(directory, 1000)
    spool = Spool(directory, 64 << 20)
    spool.open()
    spool.write({}, values)

    # When (moved page by page to its beginning, the file is written half once more)
    before = bytes_written()
    spool.shrink()

    # Then
    assert spool.disk_bytes() < 200_000
    assert bytes_written() - before < 200_000
    spool.close()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory_may_pass(directory: Path) -> None:
    directory.chmod(0o500)
    with pytest.raises(SpoolUnavailable):
        Spool(directory, 1 << 20).open()
    directory.chmod(0o700)
    Spool(directory, 1 << 20).open()


def test_a_read_only_file_system_may_pass(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    spool = Spool(directory, 1 << 20)
    with monkeypatch.context() as broken:
        broken.setattr(os, "open", fails)
        with pytest.raises(SpoolUnavailable, match="Read-only"):
            spool.open()
    spool.open()
    spool.close()


def test_a_directory_that_is_gone_may_come_back(directory: Path, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "missing", 1 << 20)
    with pytest.raises(SpoolUnavailable):
        spool.open()
    (tmp_path / "missing").mkdir()
    spool.open()
    spool.close()


# -- what SQLite says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (sqlite3.OperationalError("disk I/O error"), SpoolUnavailable),
        (sqlite3.OperationalError("attempt to write a readonly database"), SpoolUnavailable),
        (sqlite3.OperationalError("unable to open database file"), SpoolUnavailable),
        (sqlite3.OperationalError("database is locked"), SpoolUnavailable),
        (sqlite3.OperationalError("database or disk is full"), SpoolUnavailable),
        (sqlite3.ProgrammingError("Cannot operate on a closed database."), SpoolUnavailable),
        (diskcache.Timeout("locked"), SpoolUnavailable),
        (OSError(5, "Input/output error"), SpoolUnavailable),
        (sqlite3.DatabaseError("database disk image is malformed"), SpoolDamaged),
        (sqlite3.DatabaseError("file is not a database"), SpoolDamaged),
        (sqlite3.OperationalError("database disk image is malformed"), SpoolDamaged),
        (sqlite3.OperationalError("no such table: Cache"), SpoolDamaged),
        (sqlite3.OperationalError("table Cache has no column named mode"), SpoolDamaged),
        (sqlite3.OperationalError("Could not decode to UTF-8 column 'key'"), SpoolDamaged),
        (SpoolDamaged("x"), SpoolDamaged),
        (ZeroDivisionError(), ZeroDivisionError),
    ],
)
def test_what_may_pass_and_what_is_damage(error: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected), database.translated():
        raise error


# -- tampering -----------------------------------------------------------------------------------------------------


class Bomb:
    """Runs when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("where", ["row", "side file", "key", "text", "number", "null"])
def test_a_planted_row_is_never_run(directory: Path, tmp_path: Path, where: str) -> None:
    # Given a database that somebody wrote into with plain diskcache, or with worse
    filled(directory, 3)
    trace = tmp_path / "trace"
    bomb = pickle.dumps(Bomb(trace))
    (directory / "aa.val").write_bytes(bomb)
    columns = "key, raw, store_time, access_time, size, mode, filename, value"
    planted: dict[str, tuple[Any, ...]] = {
        "row": (7, 1, 0, 0, 0, 4, None, bomb),
        "side file": (7, 1, 0, 0, 0, 4, "aa.val", None),
        "key": (bomb, 0, 0, 0, 0, 1, None, b"x"),
        "text": (7, 1, 0, 0, 0, 1, None, "text"),
        "number": (7, 1, 0, 0, 0, 1, None, 5),
        "null": (7, 1, 0, 0, 0, 1, None, None),
    }
    sql(directory, f"INSERT INTO Cache ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *planted[where])
    # When the queue is opened and read
    spool = Spool(directory, 1 << 20)
    spool.open()
    with pytest.raises(SpoolDamaged):
        print([spool.get(key) for key in spool.keys()[0]])
    # Then nothing ran, and salvage takes what are rows of ours and nothing else
    found = dict(rows(aside_of(spool)))
    assert set(found) - {7} == {key_of(at * 10, 10) for at in range(3)}
    assert all(type(value) is bytes for value in found.values())
    assert not trace.exists()


def test_a_planted_file_name_deletes_nothing(directory: Path, tmp_path: Path) -> None:
    # Given a row that names a file of the user as its side file
    victim = tmp_path / "precious" / "data"
    victim.parent.mkdir()
    victim.write_text("mine")
    (key, *_) = filled(directory, 1)
    sql(directory, "UPDATE Cache SET filename = ?", str(victim))
    spool = Spool(directory, 1 << 20)
    spool.open()
    # When the row is replaced and deleted
    spool.write({key: b"new"})
    sql(directory, "UPDATE Cache SET filename = ?", str(victim))
    spool.write({}, [key])
    spool.close()
    # Then the file is still there
    assert victim.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("disk_fetch", "x"), ("disk_evil", 1), ("transact", "x"), ("get", 5), ("sqlite_writable_schema", 1),
        ("size", "text"), ("count", None), ("sqlite_cache_size", b"\xff"), ("eviction_policy", 3), (b"\xff", 1),
    ],
)  # fmt: skip
def test_a_planted_setting_is_damage(directory: Path, name: Any, value: Any) -> None:
    # Given a setting that diskcache would make an attribute or a pragma of
    filled(directory, 3)
    sql(directory, "INSERT OR REPLACE INTO Settings VALUES (?, ?)", name, value)
    spool = Spool(directory, 1 << 20)
    with pytest.raises(SpoolDamaged):
        spool.open()
    assert len(dict(rows(aside_of(spool)))) == 3
    spool.open()
    spool.close()


def test_a_setting_that_is_no_text_at_all(directory: Path) -> None:
    filled(directory, 1)
    sql(directory, "INSERT INTO Settings VALUES (CAST(x'ff' AS TEXT), 1)")
    with pytest.raises(SpoolDamaged):
        Spool(directory, 1 << 20).open()


# -- damage --------------------------------------------------------------------------------------------------------


def aside_of(spool: Spool) -> Path:
    """A damaged database, where it is set aside."""
    Rescue(spool).begin(SpoolDamaged("for this test"))
    return waiting_for_rescue(spool.directory)[-1]


def opened_somehow(directory: Path) -> tuple[dict[int, bytes], bool]:
    """What the keeper gets out of a database, and whether it had to be set aside."""
    spool = Spool(directory, 64 << 20)
    try:
        spool.open()
        found = {key: spool.get(key) for key in spool.keys()[0]}
        spool.write({1 << 50: b"x"}, [1 << 50])
        return {key: value for key, value in found.items() if value is not None}, False
    except SpoolDamaged as error:
        rescue = Rescue(spool)
        rescue.begin(error)
        spool.open()
        kept = {key: spool.get(key) or b"" for key in rescue.salvage()}
        rescue.finish()
        return kept, True
    finally:
        spool.close()


def test_garbage_in_place_of_the_database(directory: Path, caplog: Any) -> None:
    for content in (b"not a database" * 1000, random.Random(1).randbytes(50_000), b"SQLite format 3\0" + bytes(8000)):
        (directory / "cache.db").write_bytes(content)
        assert opened_somehow(directory) == ({}, True)
        (aside,) = directory.glob("damaged-*.db")
        assert aside.read_bytes() == content
        assert "set aside" in caplog.text
        for file in directory.iterdir():
            file.unlink()


def test_a_damaged_name_is_damage_and_no_slip(directory: Path) -> None:
    """A message of SQLite that quotes such a name is no text: Python fails to make one of it."""
    # Given a database, and each of its pages that has names in it
    spool = Spool(directory, 8 << 20)
    spool.open()
    spool.write({key_of(0, 1): row_of(0, 1)}, [])
    spool.close()
    good = (directory / "cache.db").read_bytes()
    places = [at for at in range(100, 3 * 4096) if good[at : at + 1].isalpha()]
    broken = damaged = 0

    # When
    for at in places[::11]:
        (directory / "cache.db").write_bytes(good[:at] + b"\xe1" + good[at + 1 :])
        try:
            spool = Spool(directory, 8 << 20)
            spool.open()
            spool.write({key_of(0, 1): row_of(0, 1), key_of(1, 1): row_of(1, 1)}, [])
        except SpoolDamaged as error:
            damaged += 1
            broken += isinstance(error.__cause__, UnicodeDecodeError) or not str(error.__cause__)
        finally:
            spool.close()
        list(rows(directory / "cache.db"))
        for name in ("cache.db-wal", "cache.db-shm"):
            (directory / name).unlink(missing_ok=True)

    # Then
    assert damaged > 50
    assert broken


def test_each_damaged_database_gets_a_name_of_its_own(directory: Path) -> None:
    for number in (1, 2, 3):
        (directory / "cache.db").write_bytes(b"junk" * 2000)
        (directory / "cache.db-wal").write_bytes(b"junk")
        rescue = Rescue(Spool(directory, 1 << 20))
        rescue.begin(SpoolDamaged("junk"))
        assert (directory / "salvage-1.db-wal").exists() or number > 1
        rescue.finish()
        assert (directory / f"damaged-{number}.db").exists()
        assert (directory / f"damaged-{number}.db-wal").exists()
    assert not (directory / "cache.db-wal").exists()


def test_an_empty_file_is_a_database_that_was_just_made(directory: Path) -> None:
    (directory / "cache.db").touch(0o600)
    assert opened_somehow(directory) == ({}, False)


def test_a_database_of_another_program_is_not_written_into(directory: Path) -> None:
    sql(directory, "CREATE TABLE photos (name TEXT)")
    sql(directory, "INSERT INTO photos VALUES ('holiday')")
    assert opened_somehow(directory) == ({}, True)
    with closing(sqlite3.connect(directory / "damaged-1.db")) as connection:
        assert connection.execute("SELECT name FROM photos").fetchall() == [("holiday",)]
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchall() == [(1,)]


@pytest.mark.parametrize("table", ["Cache", "Settings"])
def test_a_database_with_other_columns(directory: Path, table: str) -> None:
    filled(directory, 3)
    sql(directory, f"ALTER TABLE {table} RENAME COLUMN key TO other")
    found, aside = opened_somehow(directory)
    assert aside
    assert len(found) == (3 if table == "Settings" else 0)


def test_a_database_cut_at_many_sizes(directory: Path) -> None:
    # Given a database of 120 rows, cut as a file system may leave it
    values = filled(directory)
    whole = (directory / "cache.db").read_bytes()
    saved = 0
    for size in [*range(0, len(whole), len(whole) // 20), 1, 100, 4095, 4097, len(whole) - 1]:
        for file in directory.iterdir():
            file.unlink()
        (directory / "cache.db").write_bytes(whole[:size])
        found, _ = opened_somehow(directory)
        # Then the rows that come out are those that were put in; of one at the cut, a block's checksum tells
        assert set(found) <= set(values), size
        assert sum(found[key] != values[key] for key in found) <= 1, size
        saved = max(saved, len(found))
    assert saved >= 90


def test_noise_in_a_database_at_many_places(directory: Path) -> None:
    # Given a page of noise somewhere
    values = filled(directory)
    whole = (directory / "cache.db").read_bytes()
    chance = random.Random(4)
    size = page_size(directory)
    pages = len(whole) // size
    worst = len(values)
    for page in [*range(1, pages, pages // 20)]:
        for file in directory.iterdir():
            file.unlink()
        (directory / "cache.db").write_bytes(whole[: page * size] + chance.randbytes(size) + whole[(page + 1) * size :])
        found, _ = opened_somehow(directory)
        # Then most rows come out; a block's own checksum tells what was altered in place
        assert set(found) <= set(values), page
        changed = [key for key in found if found[key] != values[key]]
        assert len(changed) <= 2, page
        worst = min(worst, len(found))
    assert worst == 0 or worst > 90


def test_a_damaged_first_leaf_does_not_hide_the_others(directory: Path) -> None:
    # Given small rows, many to a page, of which the first page is destroyed
    spool = Spool(directory, 64 << 20)
    spool.open()
    values = {key_of(at, 1): b"%05d" % at * 20 for at in range(2000)}
    spool.write(values)
    spool.close()
    database = directory / "cache.db"
    raw = bytearray(database.read_bytes())
    size = page_size(directory)
    at = next(
        place
        for place in range(size, len(raw), size)
        if raw[place] == 13 and b"0000000000" in raw[place : place + size]
    )
    raw[at : at + size] = b"\xff" * size
    database.write_bytes(raw)
    found = dict(rows(database))
    assert len(found) > 1900
    assert found.items() <= values.items()


def test_reading_a_database_that_another_process_has_open(spool: Spool, directory: Path) -> None:
    spool.write({1: b"one", 2: b"two"})
    before = {entry.name: entry.stat().st_mtime_ns for entry in directory.iterdir() if not entry.name.endswith("-shm")}
    assert dict(rows(directory / "cache.db", live=True)) == {1: b"one", 2: b"two"}
    after = {entry.name: entry.stat().st_mtime_ns for entry in directory.iterdir() if not entry.name.endswith("-shm")}
    assert before == after


def test_rows_of_a_path_with_special_characters(tmp_path: Path) -> None:
    directory = tmp_path / "what? 100%#1"
    directory.mkdir()
    filled(directory, 2)
    assert len(dict(rows(directory / "cache.db"))) == 2


@pytest.mark.parametrize("another", [b"\0" * 8192, b""], ids=["replaced", "cut"])
def test_files_that_change_while_we_write_are_not_taken_for_our_own_change(
    spool: Spool, directory: Path, another: bytes
) -> None:
    # Given
    spool.write({key_of(0, 10): row_of(0, 10)})
    spool.shrink()
    spool.check()

    # When: in the middle of a transaction
    def meddle() -> Iterator[int]:
        if another:
            (directory / "cache.db").unlink()
        (directory / "cache.db").write_bytes(another)
        yield key_of(50, 10)

    spool.write({key_of(10, 10): row_of(10, 10)}, meddle())

    # Then
    with pytest.raises(SpoolMoved, match="removed or changed"):
        spool.check()


def test_a_database_that_we_shrank_ourselves_is_still_ours(spool: Spool) -> None:
    keys = [key_of(at * 10, 10) for at in range(200)]
    spool.write({key: bytes(3000) for key in keys})
    spool.shrink()
    spool.check()
    spool.write({}, keys)
    spool.shrink()
    spool.check()
    spool.write({1: b"a row"})
    spool.check()
