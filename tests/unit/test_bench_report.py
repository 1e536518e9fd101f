"""The report of the benchmarks: what was measured is what the tables say, and old figures stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.goals import GOALS, Goal
from benchmarks.harness import quartiles, spread


def found(name: str, *rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "benchmark": name, "question": "How?", "smoke": False, "failed": False, "date": "2026-01-02T03:04:05+00:00",
        "seconds": 12.0, "python": "3.11.7", "machine": "x86_64", "cpus": 2, "cpu": "A CPU", "kernel": "6",
        "load": [0.5, 1, 1], "others": 0.0123456789, "rows": list(rows), "samples": {}, **more,
    }  # fmt: skip


def row(figure: str, ours: list[float], limit: list[float], goal: str = "", met: bool | None = None) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(ours, limit, strict=True)]
    return {
        "figure": figure, "unit": "us", "ours": ours, "beside": "Queue.put", "limit": limit, "ratio": None,
        "ratios": ratios, "goal": goal, "goal_of": "ours", "met": met,
    }  # fmt: skip


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "bench").mkdir()
    return tmp_path / "bench", tmp_path / "docs"


def put(place: Path, result: dict[str, Any]) -> None:
    (place / f"{result['benchmark']}{'-smoke' if result['smoke'] else ''}.json").write_text(json.dumps(result))


def test_the_spread_is_median_and_quartiles() -> None:
    assert quartiles([1, 2, 3, 4, 5]) == (2, 4)
    assert spread([5, 1, 2, 4, 3]) == "3 (2–4)"
    assert spread([3, 3, 3]) == "3"
    assert spread([2], "x") == "2x"


def test_a_table_has_the_ratio_of_each_round_and_says_what_was_missed(places: tuple[Path, Path]) -> None:
    # Given a machine that was half as fast in the second round
    bench, docs = places
    put(bench, found("send", row("p50", [2, 4, 2], [1, 2, 1], "<= 1", met=False)))
    # When
    report.main(bench, docs)
    # Then the ratio has no spread, and ours has
    table = (docs / "tables" / "send.md").read_text()
    assert "| p50 | 2 (2–3) [us] | Queue.put 1 (1–1.5) | 2x | ≤ 1, **missed** |" in table
    assert "2026-01-02" in table
    assert "others used 0.0123 of them" in table


def test_what_was_not_run_again_keeps_its_figures(places: tuple[Path, Path]) -> None:
    # Given two benchmarks, reported
    bench, docs = places
    put(bench, found("send", row("p50", [2], [1])))
    put(bench, found("idle", row("wakes", [7], [1])))
    report.main(bench, docs)
    # When one runs again, and the other's file is gone
    (bench / "idle.json").unlink()
    put(bench, found("send", row("p50", [3], [1]), date="2027-01-01T00:00:00+00:00"))
    report.main(bench, docs)
    # Then
    assert "| p50 | 3 [us] " in (docs / "tables" / "send.md").read_text()
    assert "| wakes | 7 [us] " in (docs / "tables" / "idle.md").read_text()
    assert "2026-01-02" in (docs / "tables" / "idle.md").read_text()


@pytest.mark.parametrize("flaw", [{"smoke": True}, {"failed": True}])
def test_a_smoke_run_and_one_that_failed_are_not_reported(places: tuple[Path, Path], flaw: dict[str, Any]) -> None:
    bench, docs = places
    put(bench, found("send", row("p50", [2], [1]), **flaw))
    report.main(bench, docs)
    assert list((docs / "results").iterdir()) == []


def test_goals_are_held_against_what_was_measured(places: tuple[Path, Path]) -> None:
    # Given the figure of one goal above its bar, and no other
    goal = GOALS[0][1][0]
    assert goal.most is not None
    bench, docs = places
    put(bench, found(goal.benchmark, row(goal.figure, [goal.most * 2], [1])))
    # When
    report.main(bench, docs)
    # Then it is missed, and none is left out
    table = (docs / "tables" / "goals.md").read_text()
    assert f"| {goal.text} | ≤ {goal.most:.3g} µs | {goal.most * 2:.3g} µs | **missed** |" in table
    assert table.count("not measured") >= len([goal for _, chapter in GOALS for goal in chapter]) - 2


def test_how_many_times_less_is_asked_for() -> None:
    goal = Goal("cheaper", "send", "p50", least=6, of="times")
    measured = goal.find({"send": found("send", row("p50", [1], [8]))})
    assert measured is not None
    assert measured.samples == [8]
    assert measured.unit == "x"


def test_the_committed_tables_are_made_of_the_committed_results() -> None:
    # Given what was committed
    docs = Path(report.__file__).parent.parent / "docs" / "performance"
    results = {path.stem: json.loads(path.read_text()) for path in sorted((docs / "results").glob("*.json"))}
    # Then no table was changed by hand
    assert results
    for name, result in results.items():
        assert (docs / "tables" / f"{name}.md").read_text().endswith(report.table(result)), name
    assert (docs / "tables" / "goals.md").read_text().endswith(report.goals(results)), (
        "run: python -m benchmarks report"
    )
