"""Names of files after `filebase`: the rules of the old system, without its two faults."""

from __future__ import annotations

import datetime as dt
from pathlib import PurePosixPath

import pytest

from resilient_exporters.pipeline import ConfigurationError, PipelineError
from resilient_exporters.pipeline.writers.naming import Filebase, Names

NOW = dt.datetime(2026, 11, 21, 12, 30)


def names(filebase: str, *groups: tuple[str, ...], start: int = 0, salt: str = "salt") -> list[str]:
    given = Names(Filebase(filebase, NOW), start, salt)
    return [given.next(group) for group in groups or [()]]


@pytest.mark.parametrize(
    ("filebase", "groups", "expected"),
    [
        ("out_", [()], ["out_0000"]),
        ("out_", [(), ()], ["out_0000", "out_0001"]),
        ("dir/%Y/{file_number}_r", [(), ()], ["dir/2026/0_r", "dir/2026/1_r"]),
        ("dir/", [()], ["dir/0000"]),
        ("/", [()], ["/0000"]),
        ("%Y-%m-%d/x", [()], ["2026-11-21/x0000"]),
        ("out_{file_number:06d}", [()], ["out_000000"]),
        ("out_", [("es",), ("uk",), ("es",)], ["out_0000-es", "out_0000-uk", "out_0001-es"]),
        ("out_", [("es", "Madrid")], ["out_0000-esMadrid"]),
        ("{groups[0]}/out_", [("es",), ("uk",)], ["es/out_0000", "uk/out_0000"]),
        ("{groups[1]}/{groups[0]}_{file_number}", [("es", "a")], ["a/es_0"]),
        ("{groups[0]}/{file_number}", [("a/b",)], ["a/b/0"]),
    ],
)
def test_names_of_the_old_system(filebase: str, groups: list[tuple[str, ...]], expected: list[str]) -> None:
    assert names(filebase, *groups) == expected


def test_the_first_number_can_be_another() -> None:
    assert names("out_", (), (), start=7) == ["out_0007", "out_0008"]


def test_a_template_without_a_number_overwrites_nothing() -> None:
    """Fault 5 of the old system: 100 records written, 10 on disk."""
    assert names("{groups[0]}", ("es",), ("es",), ("uk",), ("es",)) == ["es", "es-0001", "uk", "es-0002"]


def test_a_group_that_is_called_like_a_second_file_overwrites_nothing() -> None:
    given = names("{groups[0]}", ("es",), ("es-0001",), ("es",), ("es-0001",))
    assert len(set(given)) == 4
    assert given[:3] == ["es", "es-0001", "es-0002"]


def test_groups_that_the_template_does_not_tell_apart_overwrite_nothing() -> None:
    given = names("{groups[0]}", ("es", "a"), ("es", "b"), ("es", "a"))
    assert given == ["es", "es-0001", "es-0002"]


@pytest.mark.parametrize(
    "group",
    [
        "../../x", "..", ".", "/etc/passwd", "a/../../b", "a//b", "x\0y", "", " ", "...", "a\nb", "a/", "x" * 300,
        "a\\b", "C:x", "\udc80",
    ],
)  # fmt: skip
def test_no_group_leaves_the_directory(group: str) -> None:
    """Fault 6 of the old system."""
    for template in ("base/{groups[0]}/x_", "base/{groups[0]}/{groups[0]}", "base/x_", "base/{groups[0]}{groups[0]}"):
        (name,) = names(template, (group,))
        parts = PurePosixPath(name).parts
        assert parts[0] == "base", name
        assert not {"..", "."} & set(parts), name
        assert all(0 < len(part) < 255 and part.isprintable() for part in parts), name


def test_two_dots_twice_make_no_way_out() -> None:
    (name,) = names("base/{groups[0]}{groups[1]}/x", (".", "."))
    assert ".." not in PurePosixPath(name).parts


def test_an_unsafe_group_has_one_token_for_the_whole_run_and_another_in_the_next() -> None:
    first, second = names("x_", ("a/b",), ("a/b",))
    (other,) = names("x_", ("a/b",), salt="another")
    assert first[:7] == "x_0000-"
    assert len(first) == 7 + 7
    assert second == first.replace("0000", "0001")
    assert other != first


@pytest.mark.parametrize(
    "filebase", ["{file_number}/x", "x/{file_number}/{groups[0]}", "x/{nothing}", "{groups.x}", "{}"]
)
def test_a_placeholder_in_the_wrong_place_is_named(filebase: str) -> None:
    with pytest.raises(ConfigurationError, match="filebase=") as caught:
        Filebase(filebase, NOW)
    assert isinstance(caught.value, KeyError)


@pytest.mark.parametrize("filebase", ["x{", "x}", "x{groups[0]", "x\0"])
def test_a_template_that_is_none_is_refused(filebase: str) -> None:
    with pytest.raises(ConfigurationError, match="filebase="):
        Filebase(filebase, NOW)


def test_a_group_that_there_is_not_is_said() -> None:
    with pytest.raises(PipelineError, match="names more groups than a record has: 1"):
        names("{groups[1]}/x", ("es",))


def test_a_resumed_run_goes_on_with_its_names() -> None:
    # Given: names that were given before a crash, and kept
    before = Names(Filebase("{groups[0]}", NOW), 0, "salt")
    entries = [before.entry(key, before.next(key)) for key in [("es",), ("a/b",), ("es",)]]
    # When: another process goes on
    after = Names(Filebase("other", NOW), 0, "another")
    for entry in entries:
        after.restore(entry)
    after.go_on(Filebase("{groups[0]}"), "salt")
    # Then: the next ones are those that would have come
    for key in [("es",), ("a/b",), ("uk",), ("es",)]:
        assert after.next(key) == before.next(key)


@pytest.mark.parametrize(
    ("filebase", "base"),
    [
        ("a/b/x_", "a/b"), ("/a/{groups[0]}/x", "/a"), ("{groups[0]}/x", ""), ("x", ""), ("/x", "/"),
        ("/{groups[0]}/x", "/"),
    ],
)  # fmt: skip
def test_what_all_files_have_in_common(filebase: str, base: str) -> None:
    assert Filebase(filebase, NOW).base == base
