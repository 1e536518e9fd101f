"""A configuration is checked before anything runs: all that is wrong, at once, in the nested form of the old system."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click.testing
import pytest

from resilient_exporters.cli.root import rexport
from resilient_exporters.pipeline import BasicExporter, ConfigCheckError, ConfigurationError, check_for_errors
from resilient_exporters.pipeline.configuration import read
from resilient_exporters.pipeline.module import Module
from resilient_exporters.pipeline.readers import BaseReader
from resilient_exporters.pipeline.writers import BaseWriter

HERE = __name__


class Reader(BaseReader):
    supported_options = {
        "path": {"type": str},
        "batch_size": {"type": int, "default": 100},
        "api_key": {"type": str, "env_fallback": "SOME_API_KEY"},
    }


class Writer(BaseWriter):
    pass


class Press(Module):
    family = "decompressor"


class Exploding(BaseReader):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        raise KeyError("surprise")


READER = {"name": f"{HERE}.Reader", "options": {"path": "x", "api_key": "k"}}
WRITER = {"name": f"{HERE}.Writer", "options": {}}


def reader(**options: Any) -> dict[str, Any]:
    return {"name": f"{HERE}.Reader", "options": options}


# Each: a broken configuration, and what is said of it.
BROKEN: dict[str, tuple[Any, dict[str, Any]]] = {
    "nothing": ({}, {"reader": "Missing section", "writer": "Missing section"}),
    "a list": ([READER, WRITER], {"configuration": "a list: give a mapping with reader and writer"}),
    "no reader": ({"writer": WRITER}, {"reader": "Missing section"}),
    "no name": ({"reader": {"options": {}}, "writer": WRITER}, {"reader": "Module name is missing"}),
    "a section that is a text": (
        {"reader": "RandomReader", "writer": WRITER},
        {"reader": "'RandomReader' is no section: give {\"name\": …, \"options\": {…}}"},
    ),
    "an option that is missing": (
        {"reader": reader(api_key="k"), "writer": WRITER}, {"reader": {"path": "Option path is missing"}},
    ),
    "an option that is missing, in the environment too": (
        {"reader": reader(path="x"), "writer": WRITER},
        {"reader": {"api_key": "Option api_key is missing (or set SOME_API_KEY)"}},
    ),
    "a wrong type": (
        {"reader": reader(path="x", api_key="k", batch_size="many"), "writer": WRITER},
        {"reader": {"batch_size": "Wrong type: found str ('many'), expected int"}},
    ),
    "true is no number": (
        {"reader": reader(path="x", api_key="k", batch_size=True), "writer": WRITER},
        {"reader": {"batch_size": "Wrong type: found bool (True), expected int"}},
    ),
    "an unknown option": (
        {"reader": reader(path="x", api_key="k", bach_size=3, colour="red"), "writer": WRITER},
        {"reader": {"unsupported_options": ["bach_size (did you mean batch_size?)", "colour"]}},
    ),
    "an unknown section": (
        {"reader": READER, "writer": WRITER, "filter_bevore": {}},
        {"unsupported_sections": "filter_bevore (did you mean filter_before?)"},
    ),
    "an unknown key in a section": (
        {"reader": {**READER, "option": {}}, "writer": WRITER},
        {"reader": "option (did you mean options?): a section has name and options only"},
    ),
    "a class that does not load": (
        {"reader": {"name": "no.such.Reader"}, "writer": WRITER},
        {"reader": "no.such.Reader cannot be loaded: No module named 'no'"},
    ),
    "a class of the wrong family": (
        {"reader": WRITER, "writer": WRITER}, {"reader": f"{HERE}.Writer is no reader but a writer"},
    ),
    "no class at all": (
        {"reader": {"name": "os.path.join"}, "writer": WRITER}, {"reader": "os.path.join is no reader but a function"},
    ),
    "a constructor that raises": (
        {"reader": {"name": f"{HERE}.Exploding"}, "writer": WRITER},
        {"reader": f"{HERE}.Exploding cannot be made: KeyError: 'surprise'"},
    ),
    "a decompressor for a reader of no streams": (
        {"reader": READER, "writer": WRITER, "decompressor": {"name": f"{HERE}.Press"}},
        {"decompressor": "Reader reads no streams: it takes no decompressor"},
    ),
    "the filter's alias, grouper and stats manager": (
        {
            "reader": READER, "writer": WRITER, "filter": {"name": "no.Filter"}, "grouper": {"options": {}},
            "stats_manager": {"name": "LoggingStatsManager", "options": {"every": 3}},
        },
        {
            "filter": "no.Filter cannot be loaded: No module named 'no'",
            "grouper": "Module name is missing",
            "stats_manager": {"unsupported_options": ["every"]},
        },
    ),
    "formatter and notifications": (
        {
            "reader": READER, "writer": WRITER,
            "exporter_options": {
                "formatter": {"name": "JsonExportFormatter", "options": {"pretty_print": "yes"}},
                "notifications": [{"name": "no.Notifier"}, {}],
            },
        },
        {
            "formatter": {"pretty_print": "Wrong type: found str ('yes'), expected bool"},
            "notifications_0": "no.Notifier cannot be loaded: No module named 'no'",
            "notifications_1": "Module name is missing",
        },
    ),
    "options of the run": (
        {
            "reader": READER, "writer": WRITER,
            "exporter_options": {
                "log_level": "VERBOSE", "thread_queue_size": 0, "on_bad_record": "deadd", "resum": True,
            },
        },
        {
            "exporter_options": {
                "log_level": "log_level='VERBOSE' is none of DEBUG, INFO, WARNING, ERROR, CRITICAL",
                "thread_queue_size": "thread_queue_size=0 is not possible; give a whole number, 1 or more",
                "on_bad_record": "on_bad_record='deadd' is none of fail, skip, dead; did you mean dead?",
                "unsupported_options": ["resum (did you mean resume?)"],
            }
        },
    ),
    "resume what": (
        {"reader": READER, "writer": WRITER, "exporter_options": {"resume": True}},
        {
            "exporter_options": {
                "persistence_state_id": "Option persistence_state_id is missing: resume needs the id of the job"
            }
        },
    ),
    "everything at once": (
        {
            "reader": reader(batch_size=1.5), "writer": {"name": "FSWritter"}, "transform": 7,
            "persistence": {"name": "SqlitePersistence", "options": {"database": 3}},
        },
        {
            "reader": {
                "path": "Option path is missing",
                "batch_size": "Wrong type: found float (1.5), expected int",
                "api_key": "Option api_key is missing (or set SOME_API_KEY)",
            },
            "transform": "7 is no section: give {\"name\": …, \"options\": {…}}",
            "writer": "there is no writer FSWritter",
            "persistence": {"database": "Wrong type: found int (3), expected str"},
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_all_that_is_wrong_is_said(what: str) -> None:
    configuration, expected = BROKEN[what]

    errors = check_for_errors(configuration, raise_exception=False)

    if what == "everything at once":  # which writers there are is another test's
        assert errors["writer"].startswith(expected["writer"])
        errors["writer"] = expected["writer"]
    assert errors == expected
    with pytest.raises(ConfigCheckError) as caught:
        BasicExporter(configuration)
    assert set(caught.value.errors) == set(expected)


@pytest.mark.parametrize("what", BROKEN)
def test_the_command_says_it_and_exits_with_2(what: str, tmp_path: Path) -> None:
    """Fault 7: the old command exited with 0."""
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(BROKEN[what][0]))

    checked = click.testing.CliRunner().invoke(rexport, ["check", str(path)])
    ran = click.testing.CliRunner().invoke(rexport, ["run", str(path)])

    for result in (checked, ran):
        assert result.exit_code == 2, result.output
        for section in BROKEN[what][1]:
            assert section in result.output


def test_a_good_configuration_is_checked_without_opening_anything(tmp_path: Path, own_queues: Path) -> None:
    path = tmp_path / "good.json"
    path.write_text(json.dumps({"reader": READER, "writer": WRITER, "persistence": {"name": "SqlitePersistence"}}))

    result = click.testing.CliRunner().invoke(rexport, ["check", str(path)])

    assert (result.exit_code, result.output) == (0, f"{path}: can be used\n")
    assert not own_queues.exists()


@pytest.mark.parametrize(
    "writer",
    [
        {"name": "FileExporter", "options": {"target_file": "out.jl"}},
        {"name": "FSWriter", "options": {"filebase": "out/x_"}},
        {"name": "ExporterPool", "options": {"exporters": [{"name": "FileExporter", "options": {"target_file": "o"}}]}},
        {"name": "SQLExporter", "options": {"url": "sqlite:///a.db", "table": "t"}},
    ],
)
def test_a_check_leaves_no_trace(
    writer: Any, tmp_path: Path, own_queues: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert check_for_errors({"reader": READER, "writer": writer}, raise_exception=False) == {}

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("writer", "said"),
    [
        ({"name": "FileExporter", "options": {}}, "FileExporter: Option target_file is missing"),
        ({"name": "FileExporter", "options": {"target_file": "x", "max_memry": 1}}, "max_memry"),
        ({"name": "FileExporter", "options": {"target_file": "x", "max_memory": "much"}}, "max_memory"),
        ({"name": "ExporterPool", "options": {"exporters": [{"name": "FSWriter"}]}}, "FSWriter is no exporter"),
        ({"name": "ExporterPool", "options": {"exporters": 3}}, "exporters=3: give a list of sections"),
        ({"name": "FileExporter", "options": {"target_file": {"env": "NO_SUCH"}}}, "NO_SUCH"),
        ({"name": "FileExportr", "options": {}}, "there is no writer FileExportr"),
    ],
)
def test_exporters_are_checked_as_writers(writer: Any, said: str) -> None:
    errors = check_for_errors({"reader": READER, "writer": writer}, raise_exception=False)

    assert said in str(errors["writer"])


def test_check_as_json_has_the_nested_form(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text(json.dumps({"writer": WRITER}))

    result = click.testing.CliRunner().invoke(rexport, ["check", "--json", str(path)])

    assert result.exit_code == 2
    assert json.loads(result.output) == {str(path): {"reader": "Missing section"}}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{", "is no JSON"),
        ("a.yaml", "reader: [", "is neither JSON nor YAML"),
        ("a.yaml", "- 1", "is a list: give a mapping"),
        ("a.yaml", "", "is a NoneType: give a mapping"),
        ("a.yaml", "!!python/object/apply:os.getcwd []", "is neither JSON nor YAML"),
    ],
)
def test_a_file_that_is_no_configuration(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)

    with pytest.raises(ConfigurationError, match=said):
        read(tmp_path / name)
    assert click.testing.CliRunner().invoke(rexport, ["check", str(tmp_path / name)]).exit_code == 2


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.json"):
        read("nowhere.json")


def test_yaml_and_json_with_a_mark_at_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("reader:\n  name: X\nwriter:\n  name: Y\n")
    (tmp_path / "b.json").write_bytes(b'\xef\xbb\xbf{"reader": {"name": "X"}, "writer": {"name": "Y"}}')

    assert read(tmp_path / "a.yaml") == read(tmp_path / "b.json") == {"reader": {"name": "X"}, "writer": {"name": "Y"}}


def test_the_text_has_a_line_for_each_error() -> None:
    with pytest.raises(ConfigCheckError) as caught:
        check_for_errors({"reader": reader(batch_size="x"), "filter_after": {}})
    assert str(caught.value).splitlines() == [
        "the configuration cannot be used:",
        "  reader:",
        "    path: Option path is missing",
        "    batch_size: Wrong type: found str ('x'), expected int",
        "    api_key: Option api_key is missing (or set SOME_API_KEY)",
        "  filter_after: Module name is missing",
        "  writer: Missing section",
    ]
