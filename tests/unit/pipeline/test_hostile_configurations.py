"""Options that cannot be, files that are none: said before anything runs, and never with a traceback."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_exporters.pipeline import ConfigurationError, check_for_errors
from resilient_exporters.pipeline.catalogue import classes
from resilient_exporters.pipeline.configuration import read

RANDOM = {"name": "RandomReader"}
CONSOLE = {"name": "ConsoleWriter"}


def section(name: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "options": options}


FILES = section("FSReader", input="x.jl")
# Each: what was accepted once, and what is said of it now.
ONCE_ACCEPTED: list[tuple[dict[str, Any], str]] = [
    ({"writer": section("ConsoleWriter", items_limit=-1)}, "items_limit=-1"),
    ({"reader": section("RandomReader", batch_size=10**30)}, "batch_size="),
    ({"reader": section("FSReader", input=[])}, "the list is empty"),
    ({"reader": section("FSReader", input="a\0b")}, "no file of this system"),
    ({"reader": section("FSReader", input={"dir": "\ud800"})}, "no file of this system"),
    ({"reader": section("FsspecReader", url=[])}, "give one at least"),
    ({"reader": FILES, "deserializer": section("CSVDeserializer", delimiter="\n")}, "give one character"),
    ({"reader": FILES, "deserializer": section("CSVDeserializer", delimiter='"')}, "give one character"),
    ({"reader": FILES, "deserializer": section("CSVDeserializer", fields=["a", "a"])}, "a twice"),
    ({"reader": FILES, "deserializer": section("CSVDeserializer", encoding="base64")}, "not a text encoding"),
    ({"reader": FILES, "deserializer": section("TextLinesDeserializer", encoding="utf-16")}, "lines end otherwise"),
    ({"reader": FILES, "deserializer": section("JsonLinesDeserializer", max_line=0)}, "max_line=0"),
    ({"reader": {"name": "RandomReader", "options": []}}, "is no mapping"),
    ({"exporter_options": []}, "is no mapping"),
    ({"exporter_options": {"notifications": [section("WebhookNotifier", timeout=-1.0)]}}, "timeout=-1.0"),
    ({"reader": section("StdinReader"), "deserializer": {"name": "CSVDeserializer"}}, "reads lines"),
    ({"reader": section("IterableReader", function="..x")}, "cannot be loaded"),
    ({"writer": section("FSWriter", filebase="x", write_buffer="../../x")}, "cannot be loaded"),
]


@pytest.mark.parametrize(("sections", "said"), ONCE_ACCEPTED, ids=range(len(ONCE_ACCEPTED)))
def test_an_option_that_cannot_be_is_said_before_anything_runs(sections: dict[str, Any], said: str) -> None:
    found = json.dumps(check_for_errors({"reader": RANDOM, "writer": CONSOLE, **sections}, raise_exception=False))
    assert said in found
    assert "cannot be made" not in found


@pytest.mark.parametrize(
    ("text", "said"),
    [("[" * 100_000, "nested too deeply"), ("{", "is no JSON"), ("", "is no JSON"), ("[1]", "give a mapping")],
    ids=["deep", "broken", "empty", "list"],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        read(path)


def test_a_json_file_with_comments_is_read_as_the_old_system_read_it(tmp_path: Path) -> None:
    # FACTS B.2: JSON and YAML were read by the same YAML parser
    path = tmp_path / "c.json"
    path.write_text('# sensors\n{"reader": {"name": "RandomReader"}, "writer": {"name": "ConsoleWriter"},}\n')
    assert read(path) == {"reader": RANDOM, "writer": CONSOLE}


def test_a_module_that_ends_the_program_when_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ends_the_program.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found = check_for_errors({"reader": {"name": "ends_the_program.X"}, "writer": CONSOLE}, raise_exception=False)
    assert "ends the program" in found["reader"]


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3), st.dates(),
        st.sampled_from([10**30, "\ud800", "\0", "../../x", "{", "(", "1e400 MB", {"env": "NO_SUCH"}]),
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
FAMILIES = {
    "reader": "reader", "filter": "filter_before", "transform": "transform", "grouper": "grouper",
    "persistence": "persistence", "stats_manager": "stats_manager", "writer": "writer",
}  # fmt: skip
OPTIONS = [
    (part, name, option)
    for family, part in FAMILIES.items()
    for name, cls in classes(family).items()
    if "Mongo" not in name and not name.startswith(("Kafka", "MQTT"))  # these load large libraries
    for option in cls.supported_options
]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(OPTIONS), VALUES)
def test_no_value_of_any_option_gets_past_the_check_as_a_defect(which: tuple[str, str, str], value: Any) -> None:
    part, name, option = which
    sections = {"reader": RANDOM, "writer": CONSOLE, part: {"name": name, "options": {option: value}}}
    found = check_for_errors(sections, raise_exception=False)
    assert "cannot be made" not in str(found)
