from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient_exporters.tasks.errors import TaskError
from resilient_exporters.tasks.formatting import fields, format_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing", "nothing"),
        ("{a}/{b}", "1/x"),
        ("{a:03d} {b!r}", "001 'x'"),
        ("{{a}}", "{a}"),
        ('{{"k": {a}}}', '{"k": 1}'),
        # What str.format cannot take: braces that are no fields stay as they are.
        ('{"k": {a}}', '{"k": 1}'),
        ('{"k": {"l": 2}}', '{"k": {"l": 2}}'),
        ("'{1,2}'::int[]", "'{1,2}'::int[]"),
        ("'{}' {b}", "'{}' x"),
        ("{0} {b}", "{0} x"),
        ("a } b {b}", "a } b x"),
        ('{"k": 1} {{b}} {b}', '{"k": 1} {b} x'),
    ],
)
def test_fields_are_replaced_and_other_braces_are_not(text: str, expected: str) -> None:
    assert format_text(text, {"a": 1, "b": "x"}) == expected


@pytest.mark.parametrize("text", ["{missing}", '{"k": 1} {missing}', "{a} {missing}"])
def test_a_name_that_is_no_keyword_is_named(text: str) -> None:
    with pytest.raises(TaskError, match=r"Upload\.key: there is no format keyword 'missing' \(there are: a, b\)"):
        format_text(text, {"a": 1, "b": 2}, "Upload.key")


def test_a_format_that_cannot_be_is_named() -> None:
    with pytest.raises(TaskError, match=r"\{a:q\} cannot be formatted"):
        format_text("{a:q}", {"a": 1})


@given(st.text(alphabet="{}ab 1:!.\"'[]", max_size=20))
def test_a_text_that_str_format_takes_is_formatted_by_it(text: str) -> None:
    try:
        expected = text.format(a="A", b="B")
    except (LookupError, ValueError, AttributeError, TypeError):
        return
    assert format_text(text, {"a": "A", "b": "B"}) == expected


@given(st.text(alphabet="{}ab 1:!.\"'[]", max_size=20))
def test_no_text_raises_anything_else_than_a_task_error(text: str) -> None:
    try:
        format_text(text, {"a": "A"})
    except TaskError:
        assert "{" in text


def test_fields_are_found() -> None:
    assert fields("{a} {b.c} {a} {d[0]:>3}") == ["a", "b", "d"]
    assert fields('{"k": 1} {a}') == ["a"]
    assert fields("}") == []
