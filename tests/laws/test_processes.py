"""Law 1 across processes: forks at bad moments, pools of processes, servers that load first and fork then, ends.

Beside ``tests/unit/test_processes.py``, which has the plain cases. Judged is what the targets hold, on disk, against
what each process says that it sent: nothing is missing, nothing is there twice, and nobody hangs.
"""

from __future__ import annotations

import signal
import textwrap
from pathlib import Path

import pytest

from tests.programs import PATIENCE, run, start

# A target that appends to a file what it gets, one write for a batch; and how a forked child ends.
HEAD = """
    import atexit, os, signal, sys, threading, warnings
    from pathlib import Path
    from resilient_exporters import Exporter

    # Python says of every fork beside threads that it may hang. Whether ours does is what is tested.
    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)

    class ToFile(Exporter):
        kind = "tofile"
        concurrency = 1
        gate, inside = None, None
        def __init__(self, path, **options):
            self.path, self.down = Path(path), False
            super().__init__(name="tofile", **options)
        def export(self, batch):
            if self.down:
                raise ConnectionError("down")
            if self.gate is not None:
                self.inside.set()
                self.gate.wait(20)
            with self.path.open("a") as file:
                file.write("".join(f"{record.data}\\n" for record in batch))

    def child(work):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                work()
                status = 0
            finally:
                os._exit(status)
        return pid

    def ended(pid):
        assert os.waitpid(pid, 0)[1] == 0

    place = Path(sys.argv[1])
"""


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def left(tmp_path: Path, target: str = "target") -> list[str]:
    """What the target has once a later start has delivered what was left."""
    run(HEAD + f"""
    e = ToFile(place / {target!r})
    report = e.flush(20)
    assert report.complete and not report.dropped, report
    e.close()
    """, tmp_path)  # fmt: skip
    return lines(tmp_path / target)


# -- forks at bad moments ------------------------------------------------------------------------------------------


def test_fork_in_the_middle_of_a_delivery(tmp_path: Path) -> None:
    # Given a batch that is with the target just now, and a flush that waits for it
    run(HEAD + """
    e = ToFile(place / "target")
    e.gate, e.inside = threading.Event(), threading.Event()
    for n in range(50):
        e.send(f"parent {n}")
    flushing = threading.Thread(target=lambda: done.append(e.flush(20)))
    done = []
    flushing.start()
    assert e.inside.wait(20)

    # When: the child has neither the batch nor the wait, and an own queue
    def work():
        e.gate = None
        assert e.stats().accepted == 0
        e.send("child").result(15)
        assert e.close().pending == 0
    ended(child(work))

    # Then
    e.gate.set()
    flushing.join()
    assert done[0].complete, done
    stats = e.stats().targets["tofile"]
    assert (stats.accepted, stats.delivered, stats.pending) == (50, 50, 0), stats
    e.close()
    """, tmp_path)  # fmt: skip
    assert lines(tmp_path / "target") == ["child", *(f"parent {n}" for n in range(50))]


def test_fork_while_the_parent_closes(tmp_path: Path) -> None:
    # Given a close that waits for a batch
    run(HEAD + """
    e = ToFile(place / "target")
    e.gate, e.inside = threading.Event(), threading.Event()
    e.send("parent")
    assert e.inside.wait(20)
    reports = []
    closing = threading.Thread(target=lambda: reports.append(e.close(20)))
    closing.start()
    while not e._closed:
        threading.Event().wait(0.001)

    # When: the exporter is closed in the child as well, a new one is not
    def work():
        f = ToFile(place / "target")
        f.send("child").result(15)
        f.close()
    ended(child(work))

    # Then
    e.gate.set()
    closing.join()
    assert (reports[0].pending, reports[0].lost) == (0, 0), reports
    """, tmp_path)  # fmt: skip
    assert lines(tmp_path / "target") == ["child", "parent"]


def test_forks_of_forks_each_have_their_own(tmp_path: Path) -> None:
    run(HEAD + """
    e = ToFile(place / "target")
    e.down = True
    def generation(n):
        e.send(f"generation {n}")
        if n < 4:
            ended(child(lambda: generation(n + 1)))
    generation(0)
    """, tmp_path)  # fmt: skip
    assert sorted(left(tmp_path)) == [f"generation {n}" for n in range(5)]


def test_a_fork_storm_while_the_target_is_down(tmp_path: Path) -> None:
    # Given a backlog on disk and in memory; When 8 children come and go, some without a word
    run(HEAD + """
    e = ToFile(place / "target", loss_window=0.01)
    e.down = True
    pids = []
    for n in range(8):
        for i in range(20):
            e.send(f"parent {n * 20 + i}")
        def work():
            for i in range(20):
                e.send(f"child {n} {i}")
            if n % 2:
                e.close(0)
        pids.append(child(work))
    for pid in pids:
        ended(pid)
    """, tmp_path)  # fmt: skip

    # Then: everything is there once, each one's in its order
    got = left(tmp_path)
    assert [line for line in got if line.startswith("parent")] == [f"parent {n}" for n in range(160)]
    for n in range(8):
        assert [line for line in got if line.startswith(f"child {n} ")] == [f"child {n} {i}" for i in range(20)]
    assert len(got) == 8 * 20 + 160


# -- pools and servers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_of_processes(tmp_path: Path, method: str) -> None:
    # Given / When: an exporter of the module's, used in whatever process a job comes to
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(HEAD) + textwrap.dedent(f"""
    import multiprocessing

    exporter = ToFile(place / "target")

    def work(n):
        exporter.send(f"job {{n}}")
        return n

    def tidy():
        exporter.close()

    def begin():
        from multiprocessing.util import Finalize
        Finalize(None, tidy, exitpriority=10)

    if __name__ == "__main__":
        exporter.send("parent").result(20)
        with multiprocessing.get_context({method!r}).Pool(3, begin) as pool:
            assert sorted(pool.map(work, range(60), chunksize=1)) == list(range(60))
            pool.close()
            pool.join()
        exporter.close()
    """))  # fmt: skip
    run(program, tmp_path)

    # Then
    assert sorted(left(tmp_path)) == sorted(["parent", *(f"job {n}" for n in range(60))])


@pytest.mark.parametrize("used", [True, False])
def test_a_server_that_loads_first_and_forks_then(tmp_path: Path, used: bool) -> None:
    # Given workers forked from a loaded program, that end by SIGTERM, as gunicorn --preload does it
    run(HEAD + f"""
    e = ToFile(place / "target")
    if {used}:
        e.send("loaded").result(20)
    ready, tell = os.pipe()
    def work():
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        for i in range(30):
            e.send(f"worker {{n}} {{i}}")
        os.write(tell, b".")
        stop.wait(20)
        e.close()
    pids = []
    for n in range(3):
        pids.append(child(work))
    for pid in pids:
        assert os.read(ready, 1) == b"."
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    for pid in pids:
        ended(pid)
    e.close()
    """, tmp_path)  # fmt: skip

    # Then
    got = left(tmp_path)
    for n in range(3):
        assert [line for line in got if line.startswith(f"worker {n} ")] == [f"worker {n} {i}" for i in range(30)]
    assert len(got) == 90 + used


# -- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "raise SystemExit(0)", "os._exit(0)"])
def test_records_sent_while_the_interpreter_ends(tmp_path: Path, end: str) -> None:
    # Given handlers that send before and after ours, one of which ends the handlers' run in its own way
    child = start(HEAD + f"""
    def last_words(n):
        e.send(f"last words {{n}}")
        {end}
    atexit.register(last_words, 0)
    e = ToFile(place / "target")
    e.down = True
    e.send("first")
    atexit.register(last_words, 1)
    """, tmp_path)  # fmt: skip
    child.communicate(timeout=PATIENCE)

    # Then: what was sent is there
    wanted = ["first", "last words 1"] if end == "os._exit(0)" else ["first", "last words 1", "last words 0"]
    assert left(tmp_path) == wanted


@pytest.mark.parametrize("closing", ["e.close(0)", "sys.exit(0)", "e.save(5); os._exit(0)"])
def test_sigterm_with_a_handler(tmp_path: Path, closing: str) -> None:
    # Given a program that sends for ever, and a handler that interrupts it anywhere
    process = start(HEAD + f"""
    e = ToFile(place / "target")
    e.down = True
    sent = 0
    def handler(number, frame):
        os.write(1, f"{{sent}}\\n".encode())
        {closing}
        os._exit(0)
    signal.signal(signal.SIGTERM, handler)
    while True:
        e.send(str(sent))
        sent += 1
        if sent == 500:
            os.write(1, b"many\\n")
    """, tmp_path)  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "many\n"

    # When
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)

    # Then: all that was accepted, and perhaps the one that was interrupted
    accepted = int(out)
    got = left(tmp_path)
    assert got in ([str(n) for n in range(accepted)], [str(n) for n in range(accepted + 1)]), err


@pytest.mark.parametrize("call", ["e.flush()", "e.send('wait').result()", "e.close(60)"])
def test_ctrl_c_while_the_program_waits_for_us(tmp_path: Path, call: str) -> None:
    # Given a target that hangs; When Ctrl-C comes once the program waits in our clock
    out = run(HEAD + f"""
    def interrupt():
        while not sys._current_frames()[threading.main_thread().ident].f_code.co_filename.endswith("clock.py"):
            threading.Event().wait(0.001)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    e = ToFile(place / "target", timeout=0)
    e.gate, e.inside = threading.Event(), threading.Event()
    e.send("0")
    assert e.inside.wait(20)
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        {call}
    except KeyboardInterrupt:
        os.write(1, b"interrupted")
    os._exit(0)
    """, tmp_path)  # fmt: skip

    # Then: it ends at once, and what was sent is there
    assert out == "interrupted"
    assert left(tmp_path) == (["0", "wait"] if "wait'" in call else ["0"])


def test_exporters_that_are_forgotten_by_threads_that_end(tmp_path: Path) -> None:
    # Given / When: daemon threads that each make an exporter, send, and drop it
    run(HEAD + """
    import gc
    class Own(ToFile):
        pass
    def work(n):
        e = Exporter.__new__(Own)
        e.path, e.down = place / "target", False
        Exporter.__init__(e, name=f"own {n}")
        for i in range(20):
            e.send(f"{n} {i}")
    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(6)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    gc.collect()
    """, tmp_path)  # fmt: skip

    # Then: delivered, or waiting for the next start of each
    run(HEAD + """
    for n in range(6):
        e = ToFile.__new__(ToFile)
        e.path, e.down = place / "target", False
        Exporter.__init__(e, name=f"own {n}")
        assert e.flush(20).complete
        e.close()
    """, tmp_path)  # fmt: skip
    got = lines(tmp_path / "target")
    for n in range(6):
        assert [line for line in got if line.startswith(f"{n} ")] == [f"{n} {i}" for i in range(20)]
    assert len(got) == 120
