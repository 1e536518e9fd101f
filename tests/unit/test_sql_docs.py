"""The tables of errors in docs/exporters are those of the code: every number, with its outcome."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from resilient_exporters.exporters import sql_errors

DOCS = Path(__file__).parents[2] / "docs" / "exporters"
WORDS = {
    "retry": "retry",
    "hold": "hold",
    "schema": "look again",
    "data": "dead letter",
    "split": "the batch is halved|as above",
}


def documented(page: str) -> dict[int, str]:
    """Outcome by number, as the page has it; "4054–4057" is each of them."""
    errors = (DOCS / page).read_text().partition("## Errors")[2].partition("\n## ")[0]
    found: dict[int, str] = {}
    for line in errors.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or len(cells) < 3:
            continue
        for first, last in re.findall(r"(\d{3,5})(?:–(\d{3,5}))?", cells[0]):
            found |= dict.fromkeys(range(int(first), int(last or first) + 1), cells[2])
    return found


@pytest.mark.parametrize(("page", "table"), [("mysql.md", sql_errors._MYSQL), ("sqlserver.md", sql_errors._MSSQL)])
def test_every_number_has_its_outcome_in_the_docs(page: str, table: dict[int, str]) -> None:
    said = documented(page)
    assert set(said) == set(table)
    wrong = {number: said[number] for number, each in table.items() if not re.match(WORDS[each], said[number])}
    assert wrong == {}


def test_every_sqlstate_of_postgresql_has_its_outcome_in_the_docs() -> None:
    # The page has classes as "53…"; ODBC's states are not PostgreSQL's
    page = (DOCS / "postgresql.md").read_text()
    states = [state for state in sql_errors._SQLSTATES if not state.startswith(("42S", "HYT"))]
    states += [f"{each}…" for each in sql_errors._SQLSTATE_CLASSES]
    lines = [line.split("|") for line in page.splitlines() if line.startswith("|") and line.count("|") == 4]
    outcome = {state: cells[3].strip() for cells in lines for state in states if state in cells[1]}
    assert sorted(set(states) - set(outcome)) == []
    table = {**sql_errors._SQLSTATES, **{f"{each}…": verdict for each, verdict in sql_errors._SQLSTATE_CLASSES.items()}}
    words = {**WORDS, "schema": "look again|written by INSERT", "unclear": "unclear"}
    assert {state: said for state, said in outcome.items() if not re.match(words[table[state]], said)} == {}
