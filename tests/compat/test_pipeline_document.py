"""The document of the old pipeline: its configuration runs as it stands there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from resilient_exporters.pipeline import BasicExporter
from tests.programs import environment

# As the document has it, with its indentation and its empty mapping of options.
SIMPLEST = """
    {

        "reader": {
            "name": "exporters.readers.random_reader.RandomReader",
            "options": {
                "number_of_items": 1000,
                "batch_size": 10
            }
        },
        "writer":{
            "name": "exporters.writers.console_writer.ConsoleWriter",
            "options": {
            }
        }
   }
"""


@pytest.mark.parametrize("form", [["--config"], []])
def test_the_simplest_configuration_prints_a_thousand_lines_and_exits_with_0(form: list[str], tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(SIMPLEST)

    done = subprocess.run(
        [sys.executable, "-m", "resilient_exporters.cli", "run", *form, str(path)],
        env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["key"] for record in records] == list(range(1000))
    assert set(records[0]) == {"key", "country_code", "state", "city", "value"}


def test_the_same_in_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.json"
    path.write_text(SIMPLEST)

    report = BasicExporter.from_file_configuration(str(path)).export()

    assert (report.read, report.written, report.batches, report.complete) == (1000, 1000, 100, True)
    assert len(capsys.readouterr().out.splitlines()) == 1000


def test_every_attribute_that_the_document_lists_is_a_section() -> None:
    listed = "reader writer exporter_options filter_before filter_after transform persistence stats_manager grouper"
    sections = {name: {"name": ""} for name in listed.split()}
    with pytest.raises(ValueError, match="Module name is missing") as caught:
        BasicExporter({**sections, "exporter_options": {}})
    assert set(re.findall(r"^  (\w+):", str(caught.value), re.MULTILINE)) == {*sections} - {"exporter_options"}
