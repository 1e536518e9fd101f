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


def test_features_of_the_list(tmp_path: Path) -> None:
    """Grouping, filtering, changing, formats, stats and a state that is kept, in one configuration."""
    configuration = {
        "reader": {
            "name": "exporters.readers.random_reader.RandomReader", "options": {"number_of_items": 60, "batch_size": 7}
        },
        "filter_before": {
            "name": "exporters.filters.pythonexp_filter.PythonexpFilter",
            "options": {"python_expression": "item['key'] % 2 == 0"},
        },
        "transform": {
            "name": "exporters.transform.pythonexp_transform.PythonexpTransform",
            "options": {"python_expressions": ["item.update({'tenfold': item['key'] * 10})"]},
        },
        "filter_after": {
            "name": "exporters.filters.key_value_regex_filter.KeyValueRegexFilter",
            "options": {"keys": [{"name": "tenfold", "value": "[0-9]*$"}]},
        },
        "grouper": {
            "name": "exporters.groupers.file_key_grouper.FileKeyGrouper", "options": {"keys": ["country_code"]}
        },
        "writer": {
            "name": "exporters.writers.fs_writer.FSWriter",
            "options": {"filebase": str(tmp_path / "out" / "{groups[0]}" / "records_"), "compression": "none"},
        },
        "persistence": {
            "name": "exporters.persistence.pickle_persistence.PicklePersistence",
            "options": {"file_path": str(tmp_path)},
        },
        "stats_manager": {"name": "exporters.stats_managers.logging_stats_manager.LoggingStatsManager"},
        "exporter_options": {
            "formatter": {
                "name": "exporters.export_formatter.csv_export_formatter.CSVExportFormatter",
                "options": {"fields": ["key", "tenfold"], "show_titles": False},
            }
        },
    }  # fmt: skip

    report = BasicExporter(configuration).export()

    assert (report.read, report.written) == (60, 30)
    files = sorted((tmp_path / "out").rglob("*.csv"))
    assert {file.parent.name for file in files} <= {"es", "uk", "us"}
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert sorted(lines, key=lambda line: int(line.partition(",")[0])) == [f"{n},{n * 10}" for n in range(0, 60, 2)]
