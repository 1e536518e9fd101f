from __future__ import annotations

import json
import pickle
import textwrap
from pathlib import Path
from typing import Any

import click.testing
import pytest

from resilient_exporters.cli.root import rexport
from resilient_exporters.jobs import Backlog
from resilient_exporters.jobs.claim import Claim
from tests.programs import PATIENCE, start

NIGHTLY = """
    from pathlib import Path
    from resilient_exporters.jobs import Backlog, EventsExportJob, ExportError, ExportProcess

    HERE = Path(__file__).parent

    class Nightly(EventsExportJob):
        def export_events(self):
            return 1

        def send_data(self):
            if (HERE / "down").exists():
                raise ExportError("the warehouse is down", 7)
            with open(HERE / "sent", "a") as file:
                print(self.parms.get("site"), self.parms.get("tags"), self.parms["date"].isoformat(), file=file)

    made = ExportProcess(Nightly, Backlog("own", HERE / "spool"), {"site": "own"})
    other = 5
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "nightly_job.py"
    path.write_text(textwrap.dedent(NIGHTLY))
    return path


def run(*arguments: object, code: int = 0, answer: str | None = None) -> click.testing.Result:
    result = click.testing.CliRunner().invoke(rexport, ["jobs", *map(str, arguments)], input=answer)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result


def failed(program: Path, *options: object) -> None:
    (program.parent / "down").touch()
    run("run", f"{program}:Nightly", "--retry-delay", 0, *options, code=1)
    (program.parent / "down").unlink()


def test_a_slot_is_run_from_a_file(program: Path, own_queues: Path) -> None:
    done = run("run", f"{program}:Nightly", "--parm", "site=7", "--parm", 'tags=["a", "b"]', "--date-offset", 0)
    assert done.stdout == "0: 1 succeeded; no error\n"
    assert (program.parent / "sent").read_text().startswith("7 ['a', 'b'] 20")
    assert (own_queues / "backlogs" / "Nightly").is_dir()


def test_a_slot_that_fails_exits_with_1_and_waits(program: Path) -> None:
    (program.parent / "down").touch()
    done = run("run", f"{program}:Nightly", "--retry-delay", 0, "--backlog", "b", code=1)
    assert done.stdout == "307: 1 failed; send_data failed (sub-code 7)\n"

    # Then it is listed, and shown
    [entry] = json.loads(run("ls", "--json").stdout)
    assert (entry["kind"], entry["backlog"], entry["state"]) == ("entry", "b", "waiting")
    assert (entry["attempts"], entry["code"], entry["error"]) == (1, 307, "the warehouse is down")
    assert "the warehouse is down" in run("ls").stdout
    shown = run("show", f"b/{entry['id']}").stdout
    assert "307: send_data failed (sub-code 7)" in shown
    assert '"date"' in shown

    # And the next slot runs it
    (program.parent / "down").unlink()
    report = json.loads(run("run", f"{program}:Nightly", "--backlog", "b", "--json").stdout)
    assert report["leftovers"] == [entry["id"]]
    assert len(report["succeeded"]) == 2
    assert run("ls").stderr == "no jobs yet\n"


def test_a_process_of_the_modules_own_is_run(program: Path) -> None:
    run("run", f"{program}:made")
    assert (program.parent / "sent").read_text().startswith("own ")
    done = run("run", f"{program}:made", "--backlog", "x", code=2)
    assert "has its own backlog" in done.stderr


@pytest.mark.parametrize(
    ("target", "text"),
    [("nightly_job", "no module:Class"), ("nosuchmodule:X", "no module nosuchmodule"),
     ("nosuch.py:X", "no file nosuch.py"), ("PROGRAM:Nosuch", "has no Nosuch"),
     ("PROGRAM:other", "neither an EventsExportJob")],
)  # fmt: skip
def test_what_cannot_be_run_is_named(program: Path, target: str, text: str) -> None:
    assert text in run("run", target.replace("PROGRAM", str(program)), code=2).stderr


@pytest.mark.parametrize(
    "options", [["--max-try", "0"], ["--parm", "site"], ["--max-attempts", "0"], ["--max-age", "-1"]]
)
def test_options_that_cannot_be_are_named(program: Path, options: list[str]) -> None:
    assert "is not possible" in run("run", f"{program}:Nightly", *options, code=2).stderr


def test_dead_entries_are_brought_back_one_by_one_or_all(program: Path) -> None:
    # Given
    for _ in range(2):
        failed(program, "--max-attempts", 1)
    dead = [one["id"] for one in json.loads(run("ls", "--json").stdout) if one["state"] == "dead"]
    assert len(dead) == 2

    # Then
    assert run("retry", f"Nightly/{dead[0]}").stdout == f"Nightly/{dead[0]} waits for the next slot\n"
    assert "it is waiting" in run("retry", f"Nightly/{dead[0]}", code=1).stderr
    assert dead[1] in run("retry", "Nightly").stdout
    assert "no dead entries" in run("retry", "Nightly").stderr
    assert json.loads(run("run", f"{program}:Nightly", "--json").stdout)["succeeded"][:2] == dead


def test_entries_are_removed_after_a_question(own_queues: Path) -> None:
    backlog = Backlog("b")
    backlog["1"] = {"password": "hunter2"}
    backlog["2"] = {}
    backlog.entry_path("3").write_bytes(b"damaged")
    backlog.set_aside("3", "damaged")
    assert "hunter2" not in run("show", "b/1").stdout
    assert "unreadable" in run("show", "b/3.json").stdout

    run("rm", "b/1", answer="n\n", code=1)
    assert "1" in backlog
    run("rm", "b/1", answer="y\n")
    assert "1" not in backlog
    run("rm", "b/3.json", "--yes")
    assert backlog.corrupt() == []

    claim = Claim.take(backlog.claim_path("2"))
    assert claim is not None
    assert "is running" in run("rm", "b/2", "--yes", code=1).stderr
    assert [one["state"] for one in json.loads(run("ls", "--json").stdout)] == ["running"]
    claim.release()
    assert "no entry b/9" in run("rm", "b/9", code=1).stderr
    assert "there are: b" in run("show", "x/9", code=1).stderr


def test_old_entries_are_listed_and_imported_when_asked_to(tmp_path: Path) -> None:
    root: Any = tmp_path / "spool"
    (root / "b").mkdir(parents=True)
    (root / "b" / "1.blog").write_bytes(pickle.dumps({"n": 1}))
    (root / "b" / "2.blog").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert [one["state"] for one in json.loads(run("ls", "--root", root, "--json").stdout)] == ["old", "old"]
    done = run("import", "b", "--root", root, code=1)
    assert done.stdout == "imported 1 entries\n"
    assert "os.system" in done.stderr
    assert Backlog("b", root)["1"] == {"n": 1}


WAITS = """
    import pathlib, threading
    from resilient_exporters.jobs import EventsExportJob

    class Waits(EventsExportJob):
        def export_events(self):
            return 1

        def send_data(self):
            print("sending", flush=True)
            threading.Event().wait(60)

        def cleanup(self, error=None):
            pathlib.Path(__file__).with_name("tidy").write_text(str(error))
"""


def test_a_slot_that_is_stopped_tidies_up_and_its_job_waits(tmp_path: Path) -> None:
    # Given a slot in the middle of its sending
    (tmp_path / "waits.py").write_text(textwrap.dedent(WAITS))
    child = start(
        "from resilient_exporters.cli.main import main; import sys; main(sys.argv[1:])",
        "jobs", "run", f"{tmp_path / 'waits.py'}:Waits", "--backlog", "b",
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "sending\n"

    # When
    child.terminate()
    child.communicate(timeout=PATIENCE)

    # Then
    assert child.returncode == 143
    assert (tmp_path / "tidy").read_text() == "interrupted by SystemExit"
    assert len(Backlog("b")) == 1
