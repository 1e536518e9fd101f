from __future__ import annotations

from resilient_exporters.delivery import history as module
from resilient_exporters.delivery.history import History, Verdict


def test_what_is_not_remembered_was_delivered() -> None:
    assert History().verdict(7) == Verdict(None, True, "")


def test_return_values_and_reasons() -> None:
    history = History()
    history.returned(10, ["a", "b"])
    history.odd(12, 14, "overflow")
    history.odd(14, 15, "overflow")
    history.odd(20, 21, "bad")
    assert [history.verdict(at) for at in (9, 10, 11, 12, 14, 15, 20)] == [
        Verdict(None, True, ""), Verdict("a", True, ""), Verdict("b", True, ""), Verdict(None, False, "overflow"),
        Verdict(None, False, "overflow"), Verdict(None, True, ""), Verdict(None, False, "bad"),
    ]  # fmt: skip


def test_the_latest_word_counts() -> None:
    history = History()
    history.returned(0, ["first"])
    history.returned(0, ["second"])
    assert history.verdict(0).returned == "second"
    history.odd(0, 1, "one")
    history.odd(0, 1, "two")
    assert history.verdict(0).reason == "two"


def test_it_is_bounded_and_says_how_far_it_reaches() -> None:
    history = History()
    for at in range(module._ODD + 50):
        history.odd(2 * at, 2 * at + 1, f"reason {at}")
    for at in range(500):
        history.returned(at, [at])
    assert history.horizon == 99
    assert len(history._odd) == module._ODD
    assert history.verdict(100).reason == "reason 50"
    assert history.verdict(499).returned == 499
    assert history.verdict(11).returned is None
    # Neighbours with one reason take one place
    for at in range(50_000):
        history.odd(100_000 + at, 100_001 + at, "age")
    assert history.verdict(120_000).reason == "age"
    assert len(history._odd) <= module._ODD
