from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs import run

PROGRAM = """
    import os, sys, threading, warnings
    from resilient_exporters.delivery import forks

    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
    whole, other = forks.Whole(), forks.Whole()
    inside, leave, said = threading.Event(), threading.Event(), []

    def work():
        with whole:
            inside.set()
            leave.wait(20)
            said.append("left")

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait(20)
    forks._PATIENCE = float(sys.argv[1])
    if forks._PATIENCE > 1:
        os.register_at_fork(before=leave.set)  # called before those that were registered earlier
    pid = os.fork()
    if pid == 0:
        with whole, other:  # nobody is in it here
            os._exit(10 + len(said))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    leave.set()
    thread.join()
    with whole, other:
        print(said)
"""


def test_a_fork_waits_until_nobody_is_inside() -> None:
    assert run(PROGRAM, 20.0).split() == ["11", "['left']"]


def test_a_fork_does_not_wait_for_ever() -> None:
    assert run(PROGRAM, 0.05).split() == ["10", "['left']"]


INSIDE = """
    import os, sys, threading, warnings
    from resilient_exporters import Exporter, SQLExporter

    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
    inside, leave, said = threading.Event(), threading.Event(), []

    def work(*_):
        inside.set()
        leave.wait(20)
        said.append("left")

    class Away(Exporter):
        def export(self, batch):
            raise ConnectionError("down")

    exporter = Away(directory=sys.argv[1] + "/queue") if sys.argv[2] == "keeper" else SQLExporter("sqlite://", "t")
    if sys.argv[2] == "keeper":
        exporter.send({"n": 1})
        call = lambda: exporter._engine.keeper.call(work)
    else:
        exporter._write_batch = work
        call = lambda: exporter.export(None)
    thread = threading.Thread(target=call)
    thread.start()
    inside.wait(20)
    os.register_at_fork(before=leave.set)
    pid = os.fork()
    if pid == 0:
        os._exit(10 + len(said))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    thread.join()
    exporter.close(0)
"""


@pytest.mark.parametrize("who", ["keeper", "SQLExporter"])
def test_a_fork_waits_for_who_is_in_sqlite(tmp_path: Path, who: str) -> None:
    assert run(INSIDE, tmp_path, who).split() == ["11"]
