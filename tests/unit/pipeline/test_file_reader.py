"""Files as a source: which are read, in which order, and what is said where there is nothing to read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters.codec import decode, encode
from resilient_exporters.pipeline import check_for_errors
from resilient_exporters.pipeline.errors import BadRecordError, ConfigCheckError, UnreadableStreamError
from resilient_exporters.pipeline.readers import FSReader


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b/2.jl", "b/1.jl", "a.jl", ".dot.jl", ".hidden/x.jl", "notes.txt"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"name": name}) + "\n")
    (tmp_path / "pointer").write_text(f"{tmp_path / 'in' / 'b'}\n")
    return tmp_path / "in"


def names(given: Any) -> list[str]:
    reader = FSReader(input=given)
    return [record["name"] for record in reader.get_next_batch()]


def test_a_directory_is_read_with_all_below_it_in_order(tree: Path) -> None:
    assert names(str(tree)) == ["a.jl", "b/1.jl", "b/2.jl", "notes.txt"]
    assert names({"dir": str(tree)}) == names([str(tree)]) == names(str(tree))


def test_what_a_mapping_asks_for(tree: Path) -> None:
    assert names({"dir": str(tree), "pattern": r"b/.*\.jl$"}) == ["b/1.jl", "b/2.jl"]
    assert names({"dir": str(tree), "include_dot_files": True, "pattern": r"\.jl$"}) == [
        ".dot.jl", ".hidden/x.jl", "a.jl", "b/1.jl", "b/2.jl",
    ]  # fmt: skip
    assert names({"dir_pointer": str(tree.parent / "pointer")}) == ["b/1.jl", "b/2.jl"]
    assert names({"dir": str(tree), "pattern": "no such"}) == []


def test_what_a_pointer_named_holds_for_the_whole_job(tree: Path) -> None:
    pointer = tree.parent / "pointer"
    reader = FSReader(input={"dir_pointer": str(pointer)}, batch_size=1)
    assert reader.get_state() is None
    assert [record["name"] for record in reader.get_next_batch()] == ["b/1.jl"]
    pointer.write_text(str(tree))
    again = FSReader(input={"dir_pointer": str(pointer)})
    again.set_state(decode(encode(reader.get_state())))
    again.set_last_position(reader.get_last_position())
    assert [record["name"] for record in again.get_next_batch()] == ["b/2.jl"]


def test_pipes_and_sockets_are_no_files_and_broken_links_are_said(tree: Path) -> None:
    os.mkfifo(tree / "b/pipe")
    assert names({"dir": str(tree / "b")}) == ["b/1.jl", "b/2.jl"]
    (tree / "b/link").symlink_to("nowhere")
    with pytest.raises(BadRecordError, match="b/link"):
        names({"dir": str(tree / "b")})


def test_a_name_that_is_no_text(tree: Path) -> None:
    Path(os.fsdecode(os.fsencode(tree / "b") + b"/\xff.jl")).write_bytes(b'{"name": 1}\n' * 3)
    reader = FSReader(input=str(tree / "b"), batch_size=4)
    assert len(list(reader.get_next_batch())) == 4
    again = FSReader(input=str(tree / "b"))
    again.set_last_position(decode(encode(reader.get_last_position())))
    assert list(again.get_next_batch()) == [{"name": 1}]


def test_files_by_name_keep_their_order_and_come_once(tree: Path) -> None:
    files = [str(tree / "b/2.jl"), str(tree / "a.jl"), {"dir": str(tree / "b")}]
    assert names(files) == ["b/2.jl", "a.jl", "b/1.jl"]
    assert names(str(tree / ".dot.jl")) == [".dot.jl"]


def test_there_is_nothing_to_read(tree: Path) -> None:
    for given, words in (
        ({"dir": str(tree / "no")}, "input: there is no directory"),
        ({"dir_pointer": str(tree / "no")}, "dir_pointer=.*No such file"),
        ({"dir": ""}, "no directory is given"),
    ):
        with pytest.raises(UnreadableStreamError, match=words):
            names(given)
    with pytest.raises(BadRecordError, match=r"no\.jl.*there is no such file"):
        names(str(tree / "no.jl"))
    (tree.parent / "pointer").write_text("\n")
    with pytest.raises(UnreadableStreamError, match="the file is empty"):
        names({"dir_pointer": str(tree.parent / "pointer")})
    with pytest.raises(UnreadableStreamError, match="no directory is given"):
        list(FSReader().get_next_batch())


def test_a_file_that_disappears_while_others_are_read(tree: Path) -> None:
    reader = FSReader(input=str(tree), batch_size=1)
    reader.bad_records.choice = "skip"
    found = [record["name"] for record in reader.get_next_batch()]
    (tree / "b/1.jl").unlink()
    while not reader.is_finished():
        found += [record["name"] for record in reader.get_next_batch()]
    assert found == ["a.jl", "b/2.jl", "notes.txt"]
    assert reader.bad_records.count == {"reader": 1}
    assert reader.share_done() == 1.0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "give dir or dir_pointer"),
        ({"dir": "a", "dir_pointer": "b"}, "give dir or dir_pointer"),
        ({"dir": "a", "patern": "b"}, r"there is no patern \(did you mean pattern\?\)"),
        ({"dir": "a", "pattern": "("}, "no regular expression"),
        ({"dir": 3}, "dir=3 cannot be; give a path"),
        ([3], "3 is neither a path nor a mapping"),
        (3, "Wrong type: found int"),
    ],
)
def test_inputs_that_cannot_be_are_found_by_the_check(given: Any, words: str) -> None:
    with pytest.raises(ConfigCheckError, match=words):
        FSReader(input=given)


def test_in_a_configuration_of_the_old_system(tree: Path) -> None:
    configuration = {
        "reader": {"name": "exporters.readers.fs_reader.FSReader", "options": {"input": {"dir": str(tree)}}},
        "decompressor": {"name": "exporters.decompressors.ZLibDecompressor"},
        "deserializer": {"name": "exporters.deserializers.JsonLinesDeserializer"},
        "writer": {"name": "resilient_exporters.FileExporter", "options": {"target_file": str(tree / "out")}},
    }
    assert check_for_errors(configuration) == {}
    configuration["reader"] = {"name": "RandomReader"}
    assert "takes no decompressor" in check_for_errors(configuration, raise_exception=False)["decompressor"]
