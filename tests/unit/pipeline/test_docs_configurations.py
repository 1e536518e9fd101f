"""The configurations in the documentation can be used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from resilient_exporters.pipeline import check_for_errors

DOCS = Path(__file__).parents[3] / "docs" / "pipeline"
BLOCK = re.compile(r"^```(?:yaml|json)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def configurations() -> list[Any]:
    found = []
    for page in sorted(DOCS.glob("*.md")):
        for number, text in enumerate(BLOCK.findall(page.read_text())):
            value = yaml.safe_load(text)
            if isinstance(value, dict) and {"reader", "writer"} & set(value):
                found.append(pytest.param(value, id=f"{page.stem}-{number}"))
    return found


@pytest.mark.parametrize("configuration", configurations())
def test_a_configuration_of_the_docs_can_be_used(configuration: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("READINGS_KEY", "key")
    monkeypatch.setenv("READINGS_SECRET", "secret")
    part = {"reader": {"name": "RandomReader"}, "writer": {"name": "ConsoleWriter"}}

    assert check_for_errors({**part, **configuration}, raise_exception=False) == {}
