"""The field: what a month and a year on a bad link come to. See ``field.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.laws.field import Field
from tests.laws.field_figures import Figures, draw

BUILD = Path(__file__).parents[2] / "build"


def nothing_lost(figures: Figures) -> None:
    """What holds however long it took."""
    assert figures.lost == 0
    assert figures.doubled == 0
    assert figures.altered == 0
    assert figures.unlawful == 0
    assert not figures.dropped
    # Weather that does nothing would show nothing.
    assert figures.ends["killed"]
    assert figures.ends["cut"]
    assert figures.dead
    assert figures.most_backlog > 1000
    assert {state for one in figures.samples for state in one.states} >= {"closed", "open", "held"}


# A killed program's threads end by an exception, as nothing else would stop them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
    pytest.mark.timeout(600),
]


def test_a_month_in_the_field(tmp_path: Path) -> None:
    # Given the weather of a year, pressed into a month
    figures = Field(tmp_path, days=30, bundle=600, loss_window=600).run()
    print(figures)

    # Then
    nothing_lost(figures)
    # A cut takes at most what the window allows: readings every ten seconds, and a burst.
    assert figures.in_window <= figures.ends["cut"] * 2 * (600 / 10 + 500)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_a_year_in_the_field(tmp_path: Path) -> None:
    # When
    figures = Field(tmp_path, days=365, bundle=300, loss_window=600).run()
    BUILD.mkdir(exist_ok=True)
    (BUILD / "field.md").write_text(f"{figures}\n")
    draw(figures, BUILD / "field.png")
    print(figures)

    # Then
    nothing_lost(figures)
    first, last = (sorted(one.rss for one in part) for part in (figures.samples[100:300], figures.samples[-200:]))
    assert last[len(last) // 2] < 1.5 * first[len(first) // 2]
