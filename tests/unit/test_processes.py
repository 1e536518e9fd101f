"""Processes: forks, ends of every kind, and two that want the same queue."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from resilient_exporters import QueueLockedError
from resilient_exporters.testing import eventually
from tests.programs import PATIENCE, run, start
from tests.targets import PATIENCE as SECONDS
from tests.targets import Target, balanced, numbers

# What the programs below begin with: a target that appends to a file, and one that is down.
HEAD = """
    import gc, os, signal, sys, threading, time
    from pathlib import Path
    from resilient_exporters import Exporter, ExporterPool, QueueLockedError

    class ToFile(Exporter):
        kind = "tofile"
        def __init__(self, path, down=False, **options):
            self.path, self.down = Path(path), down
            super().__init__(name=options.pop("name", "tofile"), **options)
        def export(self, batch):
            if self.down:
                raise ConnectionError("down")
            with self.path.open("a") as file:
                file.write("".join(f"{record.id} {record.data}\\n" for record in batch))

    place = Path(sys.argv[1])
"""


def lines(path: Path) -> list[str]:
    """What the target has: the records without their ids."""
    return [line.split(" ", 1)[1] for line in path.read_text().splitlines()] if path.exists() else []


def again(tmp_path: Path, path: str = "after", name: str = "tofile") -> list[str]:
    """The next start of the same exporter: what it delivers."""
    run(HEAD + f"""
    e = ToFile(place / {path!r}, name={name!r})
    assert e.flush(60).complete
    e.close()
    """, tmp_path)  # fmt: skip
    return lines(tmp_path / path)


# -- ends ----------------------------------------------------------------------------------------------------------


def test_the_interpreter_ends_without_close(tmp_path: Path) -> None:
    run(HEAD + """
    e = ToFile(place / "target", down=True)
    for n in range(100):
        e.send(str(n))
    """, tmp_path)  # fmt: skip
    assert again(tmp_path) == [str(n) for n in range(100)]


def test_the_end_without_close_saves_to_disk_too(tmp_path: Path) -> None:
    run(HEAD + """
    from resilient_exporters.delivery.ring import ring_path
    e = ToFile(place / "target", down=True, loss_window=3600)
    for n in range(100):
        e.send(str(n))
    print(ring_path(e.directory))
    """, tmp_path)  # fmt: skip
    # Given: a reboot takes what is in shared memory
    for lock in tmp_path.rglob("lock"):
        from resilient_exporters.delivery.ring import ring_path

        ring = ring_path(lock.parent)
        assert ring is not None
        ring.unlink()
    assert again(tmp_path) == [str(n) for n in range(100)]


@pytest.mark.parametrize("daemon", [True, False])
def test_threads_still_send_when_the_interpreter_ends(tmp_path: Path, daemon: bool) -> None:
    # Given / When: a thread that goes on while the main one ends
    out = run(HEAD + f"""
    e = ToFile(place / "target", down=True)
    many = threading.Event()
    def work():
        for n in range(200_000 if {daemon} else 2000):
            e.send(str(n))
            if n == 500:
                many.set()
    threading.Thread(target=work, daemon={daemon}).start()
    assert many.wait(60)
    """, tmp_path)  # fmt: skip
    assert out == ""

    # Then: whatever it had sent is there, in order, without a hole
    got = again(tmp_path)
    assert len(got) == 2000 if not daemon else len(got) > 500
    assert got == [str(n) for n in range(len(got))]


def test_a_hanging_target_does_not_keep_the_interpreter(tmp_path: Path) -> None:
    run(HEAD + """
    class Hangs(ToFile):
        inside = threading.Event()
        def export(self, batch):
            self.inside.set()
            threading.Event().wait()
    e = Hangs(place / "target", timeout=0)
    e.send("1")
    assert e.inside.wait(60)
    e.send("2")
    """, tmp_path)  # fmt: skip
    assert again(tmp_path) == ["1", "2"]


@pytest.mark.parametrize("end", ["os._exit(0)", "os.abort()", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_sudden_end_loses_nothing(tmp_path: Path, end: str) -> None:
    child = start(HEAD + f"""
    e = ToFile(place / "target", down=True)
    for n in range(1000):
        e.send(str(n))
    {end}
    """, tmp_path)  # fmt: skip
    child.communicate(timeout=PATIENCE)
    assert again(tmp_path) == [str(n) for n in range(1000)]


def test_sigterm_by_default_loses_nothing(tmp_path: Path) -> None:
    # Given
    child = start(HEAD + """
    e = ToFile(place / "target", down=True)
    for n in range(10**9):
        e.send(str(n))
        if n == 1000:
            print("many", flush=True)
    """, tmp_path)  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "many\n"

    # When
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=PATIENCE)

    # Then
    assert child.returncode == -signal.SIGTERM
    got = again(tmp_path)
    assert len(got) > 1000
    assert got == [str(n) for n in range(len(got))]


def test_ctrl_c_in_the_middle_of_send(tmp_path: Path) -> None:
    # Given: a program that counts what was accepted
    child = start(HEAD + """
    e = ToFile(place / "target", down=True)
    n = 0
    try:
        while True:
            e.send(str(n))
            n += 1
            if n == 1000:
                print("many", flush=True)
    except KeyboardInterrupt:
        pass
    print(n, e.close(0).lost, flush=True)
    """, tmp_path)  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "many\n"

    # When
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=PATIENCE)

    # Then: all that was accepted, and perhaps the one that was interrupted
    accepted, lost = map(int, out.split())
    assert lost == 0
    got = again(tmp_path)
    assert got in ([str(n) for n in range(accepted)], [str(n) for n in range(accepted + 1)]), err


def test_exceptions_from_signal_handlers_at_any_place_of_send(tmp_path: Path) -> None:
    # Given / When: an alarm every half millisecond that raises in the middle of send
    run(HEAD + """
    class Stop(BaseException): pass

    def handler(number, frame):
        while frame is not None:
            if frame.f_code.co_name in ("send", "_send"):
                raise Stop
            frame = frame.f_back

    e = ToFile(place / "target", max_memory="128 kB", max_disk="4 MB", on_full="block",
               batch_records=50, loss_window=0.05)
    e.send("first").result(60)
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    returned, stops, n, end = [], 0, 0, time.monotonic() + 2
    while time.monotonic() < end or stops <= 100:
        try:
            n += 1
            e.send(f"{n} {'x' * 100}")
            returned.append(n)
        except (Stop, RuntimeError):
            stops += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert e.flush(60).complete, e.stats()
    stats = e.stats().targets["tofile"]
    assert not stats.dropped, stats
    assert stats.accepted == stats.delivered, stats
    got = [int(line.split()[1]) for line in (place / "target").read_text().splitlines()[1:]]
    assert got == sorted(set(got)), "doubled or out of order"
    assert set(returned) <= set(got), sorted(set(returned) - set(got))[:5]
    """, tmp_path)  # fmt: skip


def test_an_exporter_that_nobody_has_any_more_delivers_and_ends() -> None:
    # Given
    import gc
    import weakref

    taken: list[object] = []
    threads = threading.active_count()

    def once(n: int) -> weakref.ref[Target]:
        exporter = Target(name="forgotten")
        exporter.taken = taken
        exporter.send({"n": n})
        return weakref.ref(exporter)

    # When
    refs = []
    for n in range(5):
        refs.append(once(n))
        gc.collect()
        eventually(lambda: refs[-1]() is None and threading.active_count() <= threads)

    # Then
    assert [ref() for ref in refs] == [None] * 5
    assert taken == numbers(5)
    assert threading.active_count() <= threads


# -- forks ---------------------------------------------------------------------------------------------------------


def test_fork_before_the_first_send(tmp_path: Path) -> None:
    run(HEAD + """
    e = ToFile(place / "target")
    pid = os.fork()
    e.send("child" if pid == 0 else "parent").result(60)
    e.close()
    if pid == 0:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    """, tmp_path)  # fmt: skip
    assert sorted(lines(tmp_path / "target")) == ["child", "parent"]


@pytest.mark.parametrize("directory", ["None", "place / 'queue'"])
def test_fork_with_a_backlog_leaves_it_to_the_parent(tmp_path: Path, directory: str) -> None:
    run(HEAD + f"""
    e = ToFile(place / "target", down=True, directory={directory}, retry=3600)
    for n in range(50):
        e.send(f"before {{n}}")
    e.save()
    pid = os.fork()
    e.down = False
    if pid == 0:
        assert e.stats().accepted == 0
        assert threading.active_count() == 1
        e.send("child").result(60)
        assert e.stats().accepted == 1, e.stats()
        e.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    e.send("parent")
    assert e.flush(60).complete
    stats = e.stats().targets["tofile"]
    assert stats.delivered == 51, stats
    e.close()
    """, tmp_path)  # fmt: skip
    got = lines(tmp_path / "target")
    assert got == ["child", *(f"before {n}" for n in range(50)), "parent"]


def test_fork_while_other_threads_send(tmp_path: Path) -> None:
    run(HEAD + """
    e = ToFile(place / "target")
    stop = threading.Event()
    sent = [0, 0, 0]
    def work(i):
        while not stop.is_set():
            e.send(f"thread {i} {sent[i]}")
            sent[i] += 1
    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads: thread.start()
    pids = []
    for n in range(10):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                e.path = place / f"child{n}"
                e.send(f"child {n}").result(60)
                e.close()
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
    stop.set()
    for thread in threads: thread.join()
    assert e.flush(60).complete
    e.close()
    print(*sent)
    """, tmp_path)  # fmt: skip
    for n in range(10):
        assert lines(tmp_path / f"child{n}") == [f"child {n}"]
    got = lines(tmp_path / "target")
    assert len(got) == len(set(got))
    for i in range(3):
        own = [int(line.split()[2]) for line in got if line.startswith(f"thread {i}")]
        assert own == list(range(len(own)))


def test_fork_in_a_thread(tmp_path: Path) -> None:
    run(HEAD + """
    e = ToFile(place / "target")
    e.send("before").result(60)
    def work():
        pid = os.fork()
        if pid == 0:
            e.send("child").result(60)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        e.send("parent").result(60)
        done.append(1)
    done = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done
    """, tmp_path)  # fmt: skip
    assert sorted(lines(tmp_path / "target")) == ["before", "child", "parent"]


def test_what_a_forked_child_leaves_is_adopted_by_the_next_start(tmp_path: Path) -> None:
    run(HEAD + """
    e = ToFile(place / "target", down=True)
    e.send("parent")
    pid = os.fork()
    if pid == 0:
        e.send("child")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    e.close(0)
    """, tmp_path)  # fmt: skip
    assert sorted(again(tmp_path)) == ["child", "parent"]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(tmp_path: Path, method: str) -> None:
    program = tmp_path / "program.py"
    import textwrap

    program.write_text(textwrap.dedent(HEAD) + textwrap.dedent(f"""
    import multiprocessing

    def work(n):
        e = ToFile(place / f"child{{n}}")
        for i in range(20):
            e.send(f"{{n}} {{i}}")
        assert e.flush(60).complete

    if __name__ == "__main__":
        e = ToFile(place / "target")
        e.send("parent").result(60)
        context = multiprocessing.get_context({method!r})
        children = [context.Process(target=work, args=(n,)) for n in range(3)]
        for child in children: child.start()
        for child in children:
            child.join(60)
            assert child.exitcode == 0, child.exitcode
        e.send("parent again").result(60)
    """))  # fmt: skip
    run(program, tmp_path)
    for n in range(3):
        assert lines(tmp_path / f"child{n}") == [f"{n} {i}" for i in range(20)]
    assert lines(tmp_path / "target") == ["parent", "parent again"]


# -- two that want the same queue ----------------------------------------------------------------------------------

HOLDER = (
    HEAD
    + """
    e = ToFile(place / "target", down=True, **({"directory": place / "queue"} if sys.argv[2:] else {}))
    for n in range(10):
        e.send(f"{os.getpid()} {n}")
    print(e.directory, flush=True)
    sys.stdin.readline()
    os._exit(0)
"""
)


def held(process: subprocess.Popen[str]) -> Path:
    """The directory that a started holder has."""
    assert process.stdout is not None
    return Path(process.stdout.readline().strip())


def test_a_given_directory_has_one_holder_who_is_named(tmp_path: Path) -> None:
    # Given
    holder = start(HOLDER, tmp_path, "given")
    place = held(holder)

    # When / Then
    exporter = Target(directory=place)
    with pytest.raises(QueueLockedError, match=rf"process {holder.pid} \(py") as caught:
        exporter.send({"n": 0})
    assert str(place) in str(caught.value)

    # When: the holder ends
    holder.communicate("\n", timeout=PATIENCE)

    # Then: it is ours, with what waits in it
    later = Target(directory=place, name="tofile")
    later.send("mine")
    assert later.flush(SECONDS).complete
    assert later.taken == [*(f"{holder.pid} {n}" for n in range(10)), "mine"]


def test_a_given_directory_held_by_another_exporter_of_this_process(tmp_path: Path) -> None:
    first, second = Target(directory=tmp_path / "queue"), Target(directory=tmp_path / "queue", name="second")
    first.send({"n": 0})
    with pytest.raises(QueueLockedError, match="another exporter of this process"):
        second.send({"n": 1})
    first.close()
    second.send({"n": 1}).result(SECONDS)


def test_default_directories_are_numbered_and_adopted(tmp_path: Path) -> None:
    # Given: three at once, the target down
    holders = [start(HOLDER, tmp_path) for _ in range(1)]
    places = [held(holders[0])]
    for _ in range(2):
        holders.append(start(HOLDER, tmp_path))
        places.append(held(holders[-1]))
    assert [place.name for place in places[1:]] == [f"{places[0].name}.2", f"{places[0].name}.3"]

    # When: two end, one of them by a kill
    holders[1].kill()
    holders[1].communicate()
    holders[0].communicate("\n", timeout=PATIENCE)

    # Then: the next takes over both, and leaves the third alone
    got = again(tmp_path)
    assert sorted(got) == sorted(f"{holder.pid} {n}" for holder in holders[:2] for n in range(10))
    for holder in holders[:2]:
        assert [line for line in got if line.startswith(f"{holder.pid} ")] == [f"{holder.pid} {n}" for n in range(10)]
    holders[2].communicate("\n", timeout=PATIENCE)
    assert again(tmp_path, "last") == [f"{holders[2].pid} {n}" for n in range(10)]


@pytest.mark.parametrize("policy", ["block", "raise", "drop_newest"])
def test_adoption_is_not_stopped_by_a_bound(tmp_path: Path, policy: str) -> None:
    # Given: 10 records in each of two directories
    holders = [start(HOLDER, tmp_path)]
    held(holders[0])
    holders.append(start(HOLDER, tmp_path))
    held(holders[1])
    for holder in holders:
        holder.kill()
        holder.communicate()

    # When: the next start may hold 5
    exporter = Target(ConnectionError("down"), name="tofile", max_records=5, on_full=policy, full_timeout=1, retry=3600)
    exporter.flush(1)

    # Then: nothing is lost, and nothing hangs
    balanced(exporter)
    exporter.answer = None
    assert exporter.flush(SECONDS).complete
    exporter.close()
    later = Target(name="tofile")
    assert later.flush(SECONDS).complete
    got = [*exporter.taken, *later.taken]
    assert sorted(got) == sorted(f"{holder.pid} {n}" for holder in holders for n in range(10))


def test_ids_of_an_adopted_backlog_are_kept(tmp_path: Path) -> None:
    # Given
    holders = [start(HOLDER, tmp_path)]
    held(holders[0])
    holders.append(start(HOLDER, tmp_path))
    held(holders[1])
    for holder in holders:
        holder.kill()
        holder.communicate()

    # When: the first attempt fails, so that each is given twice
    failing = iter([ConnectionError("cut")])
    exporter = Target(lambda _: next(failing, None), name="tofile")
    while not exporter.flush(SECONDS).complete:
        pass

    # Then
    assert len(set(exporter.ids)) == 20
    assert len({one.split("-")[0] for one in exporter.ids}) == 2


def test_our_own_files_are_ours_alone(tmp_path: Path) -> None:
    # Given
    previous = os.umask(0)
    try:
        exporter = Target(ConnectionError("down"), retry=3600)
        exporter.send(numbers(100))
        assert exporter.save(SECONDS)
    finally:
        os.umask(previous)

    # Then
    assert exporter.directory is not None
    from resilient_exporters.delivery.ring import ring_path

    assert exporter.directory.stat().st_mode & 0o777 == 0o700
    files = [*exporter.directory.iterdir(), ring_path(exporter.directory)]
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in files if file} == {
        file.name: "0o600" for file in files if file
    }
