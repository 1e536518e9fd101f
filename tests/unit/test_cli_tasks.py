from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click.testing
import pytest
from rich.console import Console

from resilient_exporters.cli.root import rexport
from resilient_exporters.cli.tasks import Progress
from resilient_exporters.tasks import BaseTask, BigraysConfig, Task, TasksFailed, bigrays_run
from resilient_exporters.tasks.registry import TASK_REGISTER

MODULE = """
from resilient_exporters.tasks import SQLExecute, SQLQuery, Task, ToCSV, bigrays_run, update_format_kws

class Make(SQLExecute):
    statement = "create table if not exists t as select 1 as a"

class Read(SQLQuery):
    query = "select a from t where a = {wanted}"
    results = "rows"

class Write(ToCSV):
    input = Read.output
    filename = "{name}.csv"

if __name__ == "__main__":
    raise SystemExit("this is not for rexport")
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(BaseTask, "format_kws", {})
    BigraysConfig.reset()
    monkeypatch.setenv("BIGRAYS_DB_URL", f"sqlite:///{tmp_path}/x.db")
    (tmp_path / "etl_job.py").write_text(MODULE)
    before = len(TASK_REGISTER)
    yield tmp_path
    for name in ("etl_job", "empty"):
        sys.modules.pop(name, None)
    BigraysConfig.reset()
    assert len(TASK_REGISTER) == before


def run(*arguments: str) -> click.testing.Result:
    return click.testing.CliRunner().invoke(rexport, ["tasks", "run", *arguments])


@pytest.mark.parametrize("module", ["etl_job", "etl_job.py"])
def test_the_tasks_of_a_module_run(place, module):
    result = run(module, "--set", "wanted=1", "--set", "name=out")

    assert result.exit_code == 0, result.output
    assert (place / "out.csv").read_text() == "a\n1\n"
    assert [line.split()[:2] for line in result.stderr.splitlines()] == [
        ["done", "Make"],
        ["done", "Read"],
        ["done", "Write"],
    ]
    assert result.stdout == ""


def test_a_dry_run_shows_them_and_what_is_missing(place):
    result = run("etl_job.py", "--dry-run", "--set", "wanted=1")
    assert result.exit_code == 1
    assert "query: select a from t where a = 1" in result.stdout
    assert "Write.filename: no format keyword 'name'" in result.stdout
    assert not (place / "x.db").exists()

    result = run("etl_job.py", "--dry-run", "--set", "wanted=1", "--set", "name=x")
    assert result.exit_code == 0


def test_some_of_them_in_an_order_of_ones_own(place):
    result = run("etl_job.py", "--only", "Make", "--only", "Read", "--set", "wanted=1", "--quiet")
    assert result.exit_code == 0
    assert result.output == ""
    result = run("etl_job.py", "--only", "Write", "--only", "Read")
    assert result.exit_code == 2
    assert "Write.input uses Read.output, but Read runs later" in result.stderr
    result = run("etl_job.py", "--only", "Rad")
    assert result.exit_code == 2
    assert "there is no such task; there are: Make, Read, Write" in result.stderr


def test_a_failure_is_said_once_with_what_was_skipped(place):
    (place / "x.db").mkdir()
    result = run("etl_job.py")
    assert result.exit_code == 1
    assert [line.split()[:2] for line in result.stderr.splitlines()[:3]] == [
        ["failed", "Make"], ["skipped", "Read"], ["skipped", "Write"],
    ]  # fmt: skip
    assert "Make: ResourceError: SQLSession could not be opened" in result.stderr
    assert "skipped: Read, Write" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere.py"], "there is no file nowhere.py"),
        (["no.such.module"], "there is no module no"),
        (["empty.py"], "empty.py defines no task"),
        (["etl_job.py", "--set", "x"], "--set 'x' is not possible; give NAME=VALUE"),
    ],
)
def test_wrong_use_has_exit_code_2(place, arguments, text):
    (place / "empty.py").write_text("")
    result = run(*arguments)
    assert result.exit_code == 2
    assert text in result.stderr


@pytest.mark.parametrize("call", ["bigrays_run()", "bigrays_run(dry_run=True)", "sql_query(query='select 1')"])
def test_a_module_that_runs_tasks_while_it_is_imported_is_not_run_twice_nor_in_a_dry_run(place, call):
    (place / "empty.py").write_text(f"from resilient_exporters.tasks import *\nprint('first')\n{call}\nprint('second')")
    for arguments in (["empty.py"], ["empty.py", "--dry-run"]):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "empty.py runs tasks while it is imported; put bigrays_run()" in result.stderr
        assert "second" not in result.stdout


def test_on_a_terminal_the_task_that_runs_is_shown():
    shown = io.StringIO()
    progress = Progress(Console(file=shown, force_terminal=True, width=80, color_system=None))

    class First(Task, register=False):
        def run(self):
            return None

    class Second(First, register=False):
        def run(self):
            raise ValueError

    with pytest.raises(TasksFailed):
        bigrays_run(First, Second, First, watcher=progress)
    text = shown.getvalue()
    assert "1/3 First" in text
    assert "2/3 Second" in text
    assert "3/3" not in text
    assert re.findall("done|failed|skipped", text) == ["done", "failed", "skipped"]


def test_a_missing_setting_has_exit_code_2(place, monkeypatch):
    monkeypatch.delenv("BIGRAYS_DB_URL")
    result = run("etl_job.py")
    assert result.exit_code == 2
    assert "SQLSession requires the setting(s) DB_URL" in result.stderr
