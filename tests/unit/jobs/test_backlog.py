from __future__ import annotations

import os
import pickle
import stat
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.delivery.clock import Clock
from resilient_exporters.jobs import Backlog, CorruptEntryError, JobIdError
from resilient_exporters.jobs.claim import Claim
from resilient_exporters.jobs.entry_file import remove_leftovers, write_whole
from tests.programs import run, start

EVIL = ["../escaped", "a/b", "", ".hidden/..", "a\n", "a\0", "ä", "a b", "x" * 250, "/etc/passwd", "a;b"]


@pytest.fixture
def backlog(tmp_path: Path) -> Backlog:
    return Backlog("nightly", tmp_path / "deep" / "root")


def test_it_is_a_mapping(backlog: Backlog) -> None:
    # Given
    backlog["260103"] = {"n": 3}
    backlog["260101"] = {"date": date(2026, 1, 1)}
    backlog["260102"] = {"n": 2}

    # Then
    assert list(backlog) == ["260101", "260102", "260103"]
    assert len(backlog) == 3
    assert backlog["260101"] == {"date": date(2026, 1, 1)}
    assert "260102" in backlog
    assert "260104" not in backlog
    assert not backlog.is_empty()
    assert list(backlog.iteritems()) == [(key, backlog[key]) for key in ("260101", "260102", "260103")]
    assert dict(backlog) == dict(backlog.iteritems())

    # When
    backlog["260102"] = {"n": 22}
    del backlog["260101"]

    # Then
    assert list(backlog.iteritems()) == [("260102", {"n": 22}), ("260103", {"n": 3})]
    backlog.clear()
    assert backlog.is_empty()
    assert not backlog
    backlog.clear()  # before: a noisy failure of rm


def test_what_is_not_there_is_a_key_error(backlog: Backlog) -> None:
    with pytest.raises(KeyError):
        backlog["260101"]
    with pytest.raises(KeyError):
        del backlog["260101"]
    assert backlog.get("260101", 5) == 5
    assert backlog.pop("260101", 6) == 6


@pytest.mark.parametrize("job_id", [*EVIL, None, 5, b"a"], ids=lambda job_id: repr(job_id)[:20])
def test_ids_are_checked_wholly(backlog: Backlog, tmp_path: Path, job_id: Any) -> None:
    # Before: only the beginning was looked at, and ../escaped was written outside of the directory.
    before = sorted(tmp_path.rglob("*"))
    for attempt in (
        lambda: backlog.__setitem__(job_id, {}),
        lambda: backlog[job_id],
        lambda: backlog.__delitem__(job_id),
        lambda: backlog.entry_path(job_id),
        lambda: backlog.retry(job_id),
        lambda: backlog.discard(job_id),
        lambda: backlog.set_aside(job_id, "x"),
    ):
        with pytest.raises(ValueError, match="job id"):
            attempt()
        with pytest.raises(KeyError):
            attempt()
    assert job_id not in backlog
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("job_id", ["a", "A-1_b.c", ".", "..", "x" * 244, "-rf", "a.json", ".lock", "lock"])
def test_ids_of_letters_digits_and_a_few_signs_are_taken(backlog: Backlog, job_id: str) -> None:
    backlog[job_id] = {"n": 1}
    assert list(backlog) == [job_id]
    assert backlog[job_id] == {"n": 1}
    assert backlog.entry_path(job_id).parent == backlog.directory
    del backlog[job_id]
    assert backlog.is_empty()
    backlog.delete()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0", None, 3])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: Any) -> None:
    with pytest.raises(ValueError, match="name="):
        Backlog(name, tmp_path)


def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, root in (("file", tmp_path), ("x", tmp_path / "file")):
        with pytest.raises(ValueError, match="cannot be made"):
            Backlog(name, root)


def test_a_directory_without_rights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may do everything
    with pytest.raises(ValueError, match="cannot be written"):
        Backlog("x", tmp_path)


def test_nobody_else_may_read_it(backlog: Backlog) -> None:
    backlog["1"] = {"password": "hunter2"}
    assert stat.S_IMODE(backlog.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(backlog.entry_path("1").stat().st_mode) == 0o600


def test_by_default_it_lies_where_the_package_keeps_its_state(
    own_queues: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Backlog("b").directory == own_queues / "backlogs" / "b"

    # Where pycstbox was, its place is kept
    monkeypatch.delenv("RESILIENT_EXPORTERS_DIR")
    old = tmp_path / "spool"
    old.mkdir()
    monkeypatch.setattr("resilient_exporters.jobs.backlog.DEFAULT_LOCATION_ROOT", str(old))
    assert Backlog("b").directory == old / "b"


def test_a_write_that_is_killed_leaves_the_old_entry(backlog: Backlog, monkeypatch: pytest.MonkeyPatch) -> None:
    # Before: the file was opened for writing and filled bit by bit.
    backlog["1"] = {"n": 1}
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError("no space")))
        with pytest.raises(OSError, match="no space"):
            backlog["1"] = {"n": 2}
    assert backlog["1"] == {"n": 1}
    assert not list(backlog.directory.glob(".*.tmp"))


def test_what_killed_writers_left_is_removed_and_what_is_being_written_is_not(backlog: Backlog) -> None:
    # Given
    (backlog.directory / ".0123.tmp").write_bytes(b"half")
    writer = start("""
        import os, sys, fcntl
        from pathlib import Path
        from resilient_exporters.jobs import entry_file
        handle, path = entry_file._temporary(Path(sys.argv[1]) / "1.json")
        print(path, flush=True)
        sys.stdin.read()
    """, backlog.directory)  # fmt: skip
    assert writer.stdout is not None
    living = Path(writer.stdout.readline().strip())

    # Then
    assert remove_leftovers(backlog.directory) == 1
    assert living.exists()
    assert list(backlog) == []
    writer.communicate()
    backlog.tidy(Clock())
    assert not living.exists()


def test_entries_are_on_disk_when_the_assignment_returns(backlog: Backlog, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(handle: int) -> None:
        done.append("directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real_sync(handle)

    def replace(self: Path, target: Any) -> Path:
        done.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    backlog["1"] = {}
    assert done == ["file", "rename", "directory"]


def test_another_format_is_two_methods(tmp_path: Path) -> None:
    class Lines(Backlog):
        def _store(self, job_id: str, parms: Any) -> None:
            write_whole(self.entry_path(job_id), "\n".join(f"{key}={parms[key]}" for key in parms).encode())

        def _load(self, job_id: str) -> Any:
            return dict(line.split("=") for line in self.entry_path(job_id).read_text().splitlines())

    backlog = Lines("lines", tmp_path)
    backlog["1"] = {"a": "b"}
    assert backlog.entry_path("1").read_text() == "a=b"
    assert dict(backlog.iteritems()) == {"1": {"a": "b"}}

    # One that cannot be read, whatever the format's own way to say so
    backlog.entry_path("2").write_text("no sign in it")
    with pytest.raises(CorruptEntryError, match="cannot be read"):
        backlog["2"]


def test_a_corrupt_entry_is_set_aside_and_the_others_follow(backlog: Backlog, caplog: pytest.LogCaptureFixture) -> None:
    # Before: UnpicklingError, and no later entry was ever seen.
    for n in range(4):
        backlog[str(n)] = {"n": n}
    backlog.entry_path("0").write_bytes(b"")
    backlog.entry_path("2").write_bytes(pickle.dumps({"n": 2}))
    assert [job_id for job_id, _ in backlog.iteritems()] == ["1", "3"]
    assert list(backlog) == ["1", "3"]
    assert [path.name for path in backlog.corrupt()] == ["0.json", "2.json"]
    assert caplog.text.count("is set aside") == 2

    # A second one of the same id overwrites nothing
    backlog.entry_path("0").write_bytes(b"again")
    list(backlog.iteritems())
    assert [path.read_bytes()[:5] for path in backlog.corrupt()][:2] == [b"", b"again"]


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_what_only_looks_like_an_entry_is_not_read(backlog: Backlog, tmp_path: Path, kind: str) -> None:
    (tmp_path / "secret").write_bytes(b'{"format": 1, "parms": {"from": "elsewhere"}}')
    path = backlog.entry_path("1")
    if kind == "link":
        path.symlink_to(tmp_path / "secret")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises((CorruptEntryError, OSError)):
        backlog["1"]


def test_an_entry_with_code_in_it_runs_nothing(backlog: Backlog, tmp_path: Path) -> None:
    # Before: pickle, which runs what is in it.
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "owned",))

    backlog.entry_path("1").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CorruptEntryError):
        backlog["1"]
    assert not (tmp_path / "owned").exists()


def test_delete_removes_an_empty_backlog_only(backlog: Backlog) -> None:
    backlog["1"] = {}
    with pytest.raises(OSError, match=r"1\.json"):
        backlog.delete()
    backlog.set_aside("1", "looks bad")
    with pytest.raises(OSError, match="not empty"):
        backlog.delete()
    backlog.corrupt()[0].unlink()
    (backlog.directory / "old.blog").write_bytes(b"")
    with pytest.raises(OSError, match=r"old\.blog"):
        backlog.delete()
    (backlog.directory / "old.blog").unlink()

    backlog.delete()

    assert not backlog.directory.exists()
    for attempt in (
        lambda: backlog.__setitem__("1", {}), lambda: backlog["1"], lambda: list(backlog), lambda: len(backlog),
        lambda: "1" in backlog, backlog.clear, backlog.delete, backlog.is_empty, lambda: backlog.__delitem__("1"),
        lambda: list(backlog.iteritems()), backlog.dead,
    ):  # fmt: skip
        with pytest.raises(OSError, match="was deleted"):
            attempt()
    assert not backlog.directory.exists()


def test_two_processes_write_at_once(backlog: Backlog) -> None:
    program = """
        import sys
        from resilient_exporters.jobs import Backlog
        backlog = Backlog("nightly", sys.argv[1])
        for n in range(15):
            backlog[f"{sys.argv[2]}-{n}"] = {"n": n}
            backlog["shared"] = {"by": sys.argv[2]}
    """
    children = [start(program, backlog.directory.parent, name) for name in "ab"]
    for child in children:
        _, err = child.communicate()
        assert child.returncode == 0, err
    assert len(backlog) == 31
    assert backlog["shared"]["by"] in "ab"


def test_a_claim_is_held_by_one_process_and_ends_with_it(tmp_path: Path) -> None:
    # Given
    holder = start("""
        import sys
        from pathlib import Path
        from resilient_exporters.jobs.claim import Claim
        claim = Claim.take(Path(sys.argv[1]))
        claim.state.attempts = 5
        claim.keep()
        print("held", flush=True)
        sys.stdin.read()
    """, tmp_path / "1.claim")  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"

    # Then
    assert Claim.take(tmp_path / "1.claim") is None
    holder.kill()
    holder.communicate()
    claim = Claim.take(tmp_path / "1.claim")
    assert claim is not None
    assert claim.state.attempts == 5
    claim.release()


def test_a_claim_that_a_power_cut_tore_still_knows_of_a_success(tmp_path: Path) -> None:
    path = tmp_path / "1.claim"
    claim = Claim.take(path)
    assert claim is not None
    claim.finish(("boot", 5.0))
    claim.release()
    for whole in (path.read_bytes()[:20], b"done\n", b"done\n\0\0\0"):
        path.write_bytes(whole)
        again = Claim.take(path)
        assert again is not None
        assert again.state.done
        again.release()
    for nothing in (b"", b"\0" * 50, b"open\n{", b"don", b'open\n{"error":"\xe1x"}'):
        path.write_bytes(nothing)
        again = Claim.take(path)
        assert again is not None
        assert not again.state.done
        again.release()


def test_the_error_of_a_bad_id_is_one_error(backlog: Backlog) -> None:
    with pytest.raises(JobIdError, match="letters, digits"):
        backlog["a b"]


def test_importing_jobs_starts_nothing(tmp_path: Path) -> None:
    out = run("""
        import sys, threading
        import resilient_exporters.jobs
        heavy = {"apscheduler", "click", "rich", "sqlalchemy", "resilient_exporters.pipeline"} & set(sys.modules)
        print(sorted(heavy), threading.active_count())
    """)  # fmt: skip
    assert out == "[] 1\n"


def test_a_damaged_clock_begins_anew(backlog: Backlog) -> None:
    backlog["1"] = {"n": 1}
    backlog.clock(Clock())
    path = next(backlog.directory.glob(".clock"))
    for damaged in (b"", b"{", b'["\xe1x", 1.0, 2.0]'):
        path.write_bytes(damaged)
        assert backlog.clock(Clock()).now() >= 0
