"""The documentation does not lie: its Python runs, its links lead somewhere, the tests it names exist.

Every Python block of the pages in ``RUN`` is run, in order and in one namespace per page, in a folder of its own. On
other pages, those that come after ``<!-- run -->``.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

import resilient_exporters

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
RUN = {"README.md", "index.md", "choosing.md", "writing-an-exporter.md"}

BLOCK = re.compile(r"(?P<mark><!-- run -->\n+)?^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|mailto:)(?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")
NAMED = re.compile(r"`(?P<file>tests/[\w/]+\.py)(?:::(?P<test>\w+))?`")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[tuple[int, str]]:
    text = page.read_text()
    return [
        (text.count("\n", 0, found.start("code")), found["code"])
        for found in BLOCK.finditer(text)
        if page.name in RUN or found["mark"]
    ]


def anchors(page: Path) -> set[str]:
    """Of the headings, as they are made for links."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name_of)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an empty folder
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    namespace: dict[str, Any] = {"__name__": "page"}

    # When a page is read from top to bottom by somebody who runs what stands there
    for line, code in blocks(page):
        exec(compile("\n" * line + code, name_of(page), "exec"), namespace)

    # Then nothing fails. What is not closed there is closed here.
    for value in namespace.values():
        if isinstance(value, resilient_exporters.Exporter):
            value.close(0)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_python_of_a_page_is_python(page: Path) -> None:
    for found in BLOCK.finditer(page.read_text()):
        ast.parse(found["code"])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for found in LINK.finditer(page.read_text()):
        there = (page.parent / found["path"]).resolve() if found["path"] else page
        assert there.exists(), f"{name_of(page)} links to {found['path']}, which is not there"
        if found["anchor"]:
            assert found["anchor"] in anchors(there), f"{name_of(page)} links to #{found['anchor']}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_tests_that_a_page_names_exist(page: Path) -> None:
    for found in NAMED.finditer(page.read_text()):
        file = ROOT / found["file"]
        assert file.exists(), f"{name_of(page)} names {found['file']}"
        if found["test"]:
            there = rf"^(?:(?:async )?def |class )?{found['test']}\b"
            assert re.search(there, file.read_text(), re.MULTILINE), f"{name_of(page)} names {found.group()}"


def test_every_law_names_its_tests() -> None:
    laws = re.split(r"^## ", (DOCS / "guarantees.md").read_text(), flags=re.MULTILINE)
    numbered = [law for law in laws if re.match(r"\d+\. ", law)]
    assert len(numbered) == 11
    for law in numbered:
        assert NAMED.search(law.split("Held by:")[1]), f"law {law[:2]} names no test"


def test_the_complete_exporter_of_the_page_is_the_example() -> None:
    example = (ROOT / "examples" / "webhook.py").read_text()
    assert example in {code for _, code in blocks(DOCS / "writing-an-exporter.md")}


def test_the_reference_has_every_public_name() -> None:
    described = set(re.findall(r"^\.\. (?:auto)?\w+:: ([\w]+)", (DOCS / "api.md").read_text(), re.MULTILINE))
    assert set(resilient_exporters.__all__) <= described
