"""kill -9 at the instants that matter: before a commit, between the commit and what follows it, and at the end."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.pipelines import written
from tests.programs import run

PROGRAM = """
import os, signal, sys
from resilient_exporters import FileExporter
from resilient_exporters.pipeline import Pipeline
from resilient_exporters.pipeline.persistence import SqlitePersistence
from resilient_exporters.pipeline.writers import ExporterWriter
from tests.pipelines import Grouping, LinesWriter, Numbers, Seen

kind, place, at, path, resume = sys.argv[1:]
calls = {}

def maybe(here):
    calls[here] = calls.get(here, 0) + 1
    if here == place and calls[here] == int(at):
        os.kill(os.getpid(), signal.SIGKILL)

def killing(base):
    class Killing(base):
        def prepare(self):
            maybe("before prepare")
            super().prepare()
            maybe("after prepare")
        def committed(self):
            maybe("before committed")
            super().committed()
            maybe("after committed")
        def flush(self):
            super().flush()
            maybe("after flush")
        def finish_writing(self):
            maybe("before finish_writing")
            super().finish_writing()
    Killing.__name__ = base.__name__
    return Killing

class Killed(SqlitePersistence):
    def finish(self):
        maybe("before finish")
        super().finish()
        maybe("after finish")

if kind == "lines":
    writer = killing(LinesWriter)(path=path)
else:
    writer = killing(ExporterWriter)(exporter=FileExporter(path, max_lines=10**6, name="out"))
one = Pipeline(Numbers(), Seen(), Grouping(), writer=writer, persistence=Killed(), resume=resume or None)
done = one.run()
if kind != "lines":
    report = writer.exporter.close(30)
    assert report.pending == 0, report
print(done.written)
"""
PLACES = [
    ("lines", "after prepare", 6),
    ("lines", "before committed", 6),
    ("lines", "after flush", 1),
    ("lines", "before committed", 12),
    ("lines", "before committed", 13),
    ("lines", "before finish", 1),
    ("exporter", "before prepare", 6),
    ("exporter", "after prepare", 6),
    ("exporter", "before committed", 6),
]


def only_job(queues: Path) -> str:
    from resilient_exporters.pipeline.checkpoint import Store

    store = Store(queues / "pipelines" / "jobs.db")
    (job,) = store.jobs()
    store.close()
    return job.id


@pytest.mark.parametrize(("kind", "place", "at"), PLACES)
def test_a_killed_run_is_resumed_to_the_record(
    kind: str, place: str, at: int, tmp_path: Path, own_queues: Path
) -> None:
    # Given a run that is killed there
    path = tmp_path / "out.jl"
    run(PROGRAM, kind, place, at, path, "", code=-signal.SIGKILL)

    # When another process goes on with it
    out = run(PROGRAM, kind, "nowhere", 0, path, only_job(own_queues))

    # Then every record is there once, in order
    assert out == "100\n"
    if kind == "lines":
        assert written(path) == list(range(100))
    else:
        assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == list(range(100))


def test_a_run_that_was_killed_after_its_end_has_nothing_to_resume(tmp_path: Path, own_queues: Path) -> None:
    run(PROGRAM, "lines", "after finish", 1, tmp_path / "out.jl", "", code=-signal.SIGKILL)

    assert written(tmp_path / "out.jl") == list(range(100))
    job = only_job(own_queues)
    from resilient_exporters.pipeline import Pipeline, StateError
    from resilient_exporters.testing import RecordingExporter

    with pytest.raises(StateError, match="run to its end"):
        Pipeline([], writer=RecordingExporter(), resume=job).run()
