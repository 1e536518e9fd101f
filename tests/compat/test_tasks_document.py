"""The task document: its example runs, and what it says holds."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from resilient_exporters import compat, tasks
from tests.compat.etl import old_names, run_the_document


def test_its_example_runs_end_to_end_on_sqlite(tmp_path: Path):
    run_the_document(f"sqlite:///{tmp_path}/etl.db")


def test_the_old_names_are_there_on_request_only():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("bigrays")
    with old_names():
        old = importlib.import_module("bigrays")
        assert importlib.import_module("bigrays.tasks") is old.tasks is tasks
        assert importlib.import_module("bigrays.config").BigRaysConfig is tasks.BigraysConfig
        assert importlib.import_module("bigrays.exceptions").TaskInterfaceError is tasks.TaskInterfaceError
        assert importlib.import_module("bigrays.resources").SQLSession is tasks.SQLSession
        assert importlib.import_module("bigrays.run").bigrays_run is old.bigrays_run is tasks.bigrays_run
        compat.install("bigrays")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("bigrays.tasks")


def test_without_installing_they_are_in_compat():
    code = (
        "from resilient_exporters.compat.bigrays.config import BigraysConfig\n"
        "from resilient_exporters.compat.bigrays import tasks, bigrays_run\n"
        "from resilient_exporters.compat import bigrays\n"
        "assert bigrays.tasks.update_format_kws and bigrays.sql_query and BigraysConfig\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_another_package_of_the_old_name_is_not_hidden(monkeypatch, tmp_path):
    (tmp_path / "bigrays.py").write_text("mine = True")
    monkeypatch.syspath_prepend(str(tmp_path))
    compat.install()
    theirs = importlib.import_module("bigrays")
    try:
        assert theirs.mine
        with pytest.raises(ImportError, match="bigrays is imported already"):
            compat.install("bigrays")
    finally:
        del sys.modules["bigrays"]
    with pytest.raises(ImportError, match="compat knows no 'nothing'"):
        compat.install("nothing")


def test_the_logger_is_silent_until_somebody_listens(capfd, caplog):
    class One(tasks.Task, register=False):
        def run(self):
            raise ValueError

    with pytest.raises(tasks.TasksFailed):
        tasks.bigrays_run(One)
    assert capfd.readouterr() == ("", "")
    with caplog.at_level(logging.INFO, "bigrays"), pytest.raises(tasks.TasksFailed):
        tasks.bigrays_run(One)
    assert "running task: One" in caplog.text
