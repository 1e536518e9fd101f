"""Modules of other packages, found by their entry points."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click.testing
import pytest

from resilient_exporters.cli.root import rexport
from resilient_exporters.pipeline import BasicExporter, check_for_errors, module_options
from resilient_exporters.pipeline.schema import configuration_schema

CODE = '''
from resilient_exporters.pipeline.readers import BaseReader
from resilient_exporters.pipeline.writers import BaseWriter

class CounterReader(BaseReader):
    """Counts to a number."""

    supported_options = {"to": {"type": int, "help": "The last one."}}

    def get_next_batch(self):
        self.finished = True
        return [{"n": n} for n in range(self.read_option("to"))]

class SumWriter(BaseWriter):
    """Adds up."""

    sums = []

    def write_batch(self, batch):
        self.sums.append(sum(record["n"] for record in batch))
'''
POINTS = """
[resilient_exporters.readers]
CounterReader = counting_plugin:CounterReader
BrokenReader = counting_plugin:NoSuchReader
NotAReader = counting_plugin:SumWriter

[resilient_exporters.writers]
SumWriter = counting_plugin:SumWriter
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A tiny package, installed as far as Python can tell."""
    site = tmp_path / "site"
    info = site / "counting_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "counting_plugin.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: counting-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(site))
    yield
    sys.modules.pop("counting_plugin", None)


def test_they_run_by_their_names(plugin: Any) -> None:
    BasicExporter(
        {"reader": {"name": "CounterReader", "options": {"to": 5}}, "writer": {"name": "SumWriter", "options": {}}}
    ).export()

    assert sys.modules["counting_plugin"].SumWriter.sums == [0 + 1 + 2 + 3 + 4]


def test_they_are_in_catalogue_schema_and_command(plugin: Any) -> None:
    assert module_options()["reader"]["CounterReader"]["options"]["to"]["help"] == "The last one."
    assert "CounterReader" in json.dumps(configuration_schema())
    result = click.testing.CliRunner().invoke(rexport, ["modules", "CounterReader"])
    assert result.exit_code == 0
    assert "The last one." in result.output


def test_one_that_does_not_load_takes_no_other_with_it(plugin: Any, caplog: pytest.LogCaptureFixture) -> None:
    configuration = {"reader": {"name": "BrokenReader"}, "writer": {"name": "SumWriter"}}
    errors = check_for_errors(configuration, raise_exception=False)

    assert list(errors) == ["reader"]
    assert errors["reader"].startswith("there is no reader BrokenReader")
    assert "plugin BrokenReader of counting_plugin:NoSuchReader cannot be loaded" in caplog.text
    assert "NotAReader is no reader but a writer" in caplog.text


def test_without_the_package_the_name_is_unknown() -> None:
    errors = check_for_errors({"reader": {"name": "CounterReader"}, "writer": {"name": "x"}}, raise_exception=False)
    assert errors["reader"].startswith("there is no reader CounterReader")
