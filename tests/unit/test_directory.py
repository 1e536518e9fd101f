from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from resilient_exporters.delivery import directory as module
from resilient_exporters.delivery.directory import (
    DirectoryLock,
    default_directory,
    holder,
    make_directory,
    numbered,
    state_root,
    sync_directory,
)  # fmt: skip
from resilient_exporters.errors import QueueLockedError

HOLD = """
import sys
from pathlib import Path
from resilient_exporters.delivery.directory import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_where_queues_lie_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RESILIENT_EXPORTERS_DIR", str(tmp_path / "ours"))
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")
    assert state_root() == tmp_path / "ours"
    monkeypatch.setenv("RESILIENT_EXPORTERS_DIR", "")
    assert state_root() == Path("/var/lib/one")
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.delenv("RESILIENT_EXPORTERS_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert state_root() == tmp_path / "state" / "resilient_exporters"


def test_a_directory_is_named_after_what_it_is_for() -> None:
    one = default_directory("file /var/log/x.jsonl")
    assert one == default_directory("file /var/log/x.jsonl")
    assert one.name.startswith("file-var-log-x-jsonl-")
    assert one.parent == state_root()
    # Names that read alike, are long, or are none at all, are told apart
    assert (
        len(
            {
                default_directory(name).name
                for name in ("a b", "a-b", "a/b", "é", "è", "", "x" * 500, "x" * 501, "\udcff")
            }
        )
        == 9
    )
    assert all(len(default_directory(name).name) < 64 for name in ("x" * 500, ""))
    assert default_directory("../../etc").parent == state_root()


def test_numbered_ones_lie_beside_it() -> None:
    places = list(numbered(Path("/q/name")))
    assert places[:2] == [Path("/q/name.2"), Path("/q/name.3")]
    assert len(places) == 998


def test_directories_are_private_and_every_new_level_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(module, "sync_directory", synced.append)
    before = os.umask(0)
    try:
        make_directory(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(before)
    made = [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "c"]
    assert [stat.S_IMODE(one.stat().st_mode) for one in made] == [0o700] * 3
    assert set(synced) == {tmp_path, *made}
    synced.clear()
    make_directory(tmp_path / "a" / "b" / "c")
    assert synced == []


def test_what_cannot_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for place in (tmp_path / "file", tmp_path / "file" / "x", tmp_path / "dangling"):
        with pytest.raises(OSError, match="director"):
            make_directory(place)


def test_a_directory_that_somebody_else_makes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.mkdir

    def raced(self: Path, mode: int = 0o777) -> None:
        real(self, mode)
        raise FileExistsError

    monkeypatch.setattr(Path, "mkdir", raced)
    make_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_file_system_that_cannot_sync_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = [errno.EIO, errno.EROFS, errno.EINVAL]

    def fails(number: int) -> None:
        code = codes.pop()
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fails)
    sync_directory(tmp_path)
    sync_directory(tmp_path)
    with pytest.raises(OSError, match="Input/output"):
        sync_directory(tmp_path)


# -- the lock --------------------------------------------------------------------------------------------------------


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    place = tmp_path / "queue"
    assert holder(place) is None
    lock = DirectoryLock(place)
    assert stat.S_IMODE((place / "lock").stat().st_mode) == 0o600
    with pytest.raises(
        QueueLockedError, match=rf"{place} is held by another exporter of this process \(pid {os.getpid()}\)"
    ):
        DirectoryLock(place)
    lock.release()
    lock.release()
    assert holder(place) is None
    DirectoryLock(place).release()


def test_the_holder_is_named_and_its_end_frees_the_lock(tmp_path: Path) -> None:
    # Given another process that holds it
    place = tmp_path / "queue"
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        # Then it is named, by number and name
        with pytest.raises(QueueLockedError, match=rf"held by process {child.pid} \(python"):
            DirectoryLock(place)
        assert holder(place) == f"process {child.pid} ({psutil.Process(child.pid).name()})"
        # When it is killed, then the lock is free
        child.kill()
        child.wait(60)
        DirectoryLock(place).release()


def test_a_forked_child_that_lets_go_leaves_the_lock_to_its_parent(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path / "queue")
    child = os.fork()
    if not child:
        lock.abandon()
        lock.abandon()
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(QueueLockedError):
        DirectoryLock(tmp_path / "queue")
    lock.release()


def test_somebody_who_only_looks_does_not_keep_it_from_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a look (rexport queue) that holds a shared lock for a moment, just when the exporter opens
    (tmp_path / "lock").touch()
    looker = os.open(tmp_path / "lock", os.O_RDONLY)
    fcntl.flock(looker, fcntl.LOCK_SH)
    asked = []

    def gone_now(directory: Path) -> str | None:
        asked.append(directory)
        fcntl.flock(looker, fcntl.LOCK_UN)
        return None

    monkeypatch.setattr(module, "holder", gone_now)
    lock = DirectoryLock(tmp_path)
    assert asked == [tmp_path]
    lock.release()
    # and one that never ends is somebody
    fcntl.flock(looker, fcntl.LOCK_SH)
    monkeypatch.setattr(module, "holder", lambda _: None)
    with pytest.raises(QueueLockedError, match="another process"):
        DirectoryLock(tmp_path)
    os.close(looker)


@pytest.mark.parametrize("what", ["link", "directory", "pipe"])
def test_a_planted_lock_is_put_aside_and_not_followed(tmp_path: Path, what: str) -> None:
    # Given
    place = tmp_path / "queue"
    place.mkdir()
    if what == "link":
        (place / "lock").symlink_to(tmp_path / "victim")
    elif what == "directory":
        (place / "lock").mkdir()
    else:
        os.mkfifo(place / "lock")

    # When
    lock = DirectoryLock(place)

    # Then
    assert not (tmp_path / "victim").exists()
    assert [entry.name.endswith(".damaged") for entry in place.iterdir() if entry.name != "lock"] == [True]
    with pytest.raises(QueueLockedError):
        DirectoryLock(place)
    lock.release()


def test_a_lock_file_that_is_removed_lets_nobody_in(tmp_path: Path) -> None:
    # Given
    lock = DirectoryLock(tmp_path)
    assert lock.stands

    # When
    (tmp_path / "lock").unlink()

    # Then
    assert not lock.stands
    with pytest.raises(QueueLockedError, match=f"this process .pid {os.getpid()}."):
        DirectoryLock(tmp_path)
    lock.release()
    DirectoryLock(tmp_path).release()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.raises(OSError, match="No locks"):
        DirectoryLock(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("1: FLOCK  ADVISORY  WRITE {pid} 08:01:{inode} 0 EOF\n", "another exporter of this process (pid {pid})"),
        ("1: FLOCK  ADVISORY  WRITE 99999999 08:01:{inode} 0 EOF\n", "process 99999999"),
        ("1: FLOCK  ADVISORY  WRITE 0 08:01:{inode} 0 EOF\n", "another process"),
        ("1: FLOCK  ADVISORY  WRITE -1 08:01:{inode} 0 EOF\n", "another process"),
        ("1: POSIX  ADVISORY  WRITE {pid} 08:01:{inode} 0 EOF\n", "another process"),
        ("1: -> FLOCK ADVISORY WRITE 5 08:01:{inode} 0 EOF\nshort\n", "another process"),
        ("", "another process"),
        (None, "another process"),
    ],
)  # fmt: skip
def test_the_table_of_locks(table: str | None, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: Path) -> str:
        if table is None:
            raise PermissionError
        return table.format(pid=os.getpid(), inode=4711)

    monkeypatch.setattr(Path, "read_text", read)
    assert module._locker(4711) == said.format(pid=os.getpid())
