"""What the model of ``test_model`` found, each as the shortest story that shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.laws.stage import Killed
from tests.laws.world import World

Make = Callable[..., World]


@pytest.fixture
def world() -> Iterator[Make]:
    """Make a world with one target, ``a``. In the end all is mended, and everything must find its place."""
    made: list[World] = []

    def make(*, seed: int = 0, restless: float = 0.0, **options: Any) -> World:
        one = World(seed, restless, names=["a", "b"], options=options)
        made.append(one)
        one.start(["a"])
        return one

    yield make
    try:
        for one in made:
            one.drain()
    finally:
        for one in made:
            one.close()


def records(world: World, *numbers: int) -> list[int]:
    for number in numbers:
        world.sent[number] = {"n": number}
    return list(numbers)


def replay_killed_at(world: World, steps: int, present: list[str]) -> None:
    """Replay the first dead letter, killed at one of its steps, and start again; or all of it, if it has no more."""
    world.stage.crash_in = steps
    try:
        world.replay(0)
    except Killed:
        world.bury()
        world.stage.crash_in = None
        world.start_again(present)
    world.stage.crash_in = None


def test_with_loss_window_0_and_a_full_disk_nothing_spins(world: Make) -> None:
    # Given
    one = world(loss_window=0, full_timeout=2.0)
    one.disk = "full"
    one.sites["a"].mood = "down"

    # When
    one.send(records(one, 1))
    turns = one.stage.turns
    one.stage.advance(60)

    # Then: it waited for the next try of the disk and of the target, and for nothing in between
    assert one.stage.turns - turns < 200
    one.judge()


def test_a_refused_record_is_one_dead_letter_after_a_power_cut(world: Make) -> None:
    # Given a letter that is on disk, and a cursor there that does not know of it yet
    one = world(loss_window=0)
    one.sites["a"].mood = "refuses"
    one.send(records(one, 1))
    one.judge()

    # When
    one.end(power=True)
    one.start(["a"])

    # Then
    figures = one.judge().targets["a"]
    assert (figures.accepted, figures.dead, figures.pending) == (1, 1, 0)
    assert len(list(one.exporter.dead_letters())) == 1


def test_close_counts_only_what_waits(world: Make) -> None:
    # Given three records, of which the first and the last are delivered
    one = world()
    one.sites["a"].mood = "partly"
    one.send(records(one, 1, 2, 3))
    one.judge()

    # When
    report = one.exporter.close(0.0)

    # Then
    assert (report.pending, report.saved) == (1, 1)
    one.start(["a"])


def test_dead_letters_are_not_forgotten_while_the_disk_cannot_be_read(world: Make) -> None:
    # Given
    one = world()
    one.sites["a"].mood = "refuses"
    one.send(records(one, 1))
    one.judge()

    # When: at the next start the disk is away, and then comes back
    one.disk = "failing"
    one.end()
    one.start(["a"])
    one.judge()
    assert one.exporter.stats().targets["a"].dead == 1
    one.disk = "ok"
    one.stage.advance(120)

    # Then
    assert one.judge().targets["a"].dead == 1


def test_a_letter_that_was_being_discarded_at_a_kill_is_counted(world: Make) -> None:
    # Given a letter that the disk has let go of, while it said that it failed
    one = world(loss_window=0)
    one.sites["a"].mood = "refuses"
    one.send(records(one, 1))
    one.judge()
    one.disk = "lying"
    one.discard(0)

    # When
    one.disk = "ok"
    one.end()
    one.start(["a"])

    # Then
    figures = one.judge().targets["a"]
    assert (figures.accepted, figures.dead, figures.dropped) == (1, 0, {"discarded": 1})


@pytest.mark.parametrize("mood", ["refuses", "ok"])
def test_a_replay_on_a_disk_that_takes_nothing_keeps_the_letter_and_counts_it(world: Make, mood: str) -> None:
    # Given
    one = world()
    one.sites["a"].mood = "refuses"
    one.send(records(one, 1))
    one.judge()

    # When
    one.disk = "full"
    one.sites["a"].mood = mood
    one.replay(0)
    one.judge()
    one.disk = "ok"
    one.stage.advance(120)

    # Then
    figures = one.judge().targets["a"]
    assert figures.dead == len(list(one.exporter.dead_letters())) == 1
    assert (figures.accepted, figures.delivered) == (1, 0)


@pytest.mark.parametrize("seed", range(2))
def test_a_letter_beyond_max_dead_whose_record_was_given_up_meanwhile_counts_once(world: Make, seed: int) -> None:
    # Given nine records that are refused, of which two may be letters
    one = world(seed=seed, loss_window=0, max_dead=2, max_disk=300_000, save_unsent_data=False)
    one.sites["a"].mood = "refuses"
    one.send(records(one, *range(1, 10)))

    # When: the queue is closed while the letters are on their way to disk
    one.shut(0.0)
    one.start(["a"])

    # Then
    figures = one.judge().targets["a"]
    assert figures.accepted == 9


def test_a_target_that_joins_after_a_power_cut_counts_its_letters(world: Make) -> None:
    # Given letters on disk, of a target whose cursor was never saved
    one = world(loss_window=None)
    one.join("b")
    one.sites["b"].mood = "refuses"
    one.send(records(one, 1, 2))
    one.judge()
    one.end(power=True)

    # When: it joins while the program runs
    one.start(["a"])
    one.judge()
    one.join("b")

    # Then
    assert one.judge().targets["b"].dead == len(list(one.exporter.dead_letters())) == 2


@pytest.mark.parametrize("steps", range(1, 16))
def test_a_kill_at_any_step_of_a_replay_leaves_the_letter_or_its_record(world: Make, steps: int) -> None:
    # Given a letter, and another target that had the record
    one = world(loss_window=None)
    one.join("b")
    one.sites["a"].mood = "refuses"
    one.send(records(one, 1))
    one.judge()

    # When: killed between any two steps of its replay; a place that was reserved for it may stay empty
    replay_killed_at(one, steps, ["a", "b"])

    # Then: it is refused again, and once
    one.judge()
    assert [letter.data for letter in one.exporter.dead_letters()] == [{"n": 1}]


def test_a_power_cut_brings_back_a_target_that_was_forgotten(world: Make) -> None:
    # Given a target with a dead letter, as the disk has it
    one = world(loss_window=None)
    one.join("b")
    one.sites["a"].mood, one.sites["b"].mood = "refuses", "held"
    one.send(records(one, 1))
    one.judge()
    one.shut(0.0)
    one.start(["a"])

    # When: it is discarded, and the target is not there after a power cut
    one.judge()
    one.discard(0)
    one.judge()
    one.end(power=True)
    one.start(["b"])

    # Then
    assert set(one.judge().targets) == {"b"}


@pytest.mark.parametrize("seed", range(8))
def test_a_letter_that_its_cursor_does_not_know_is_counted_once_at_a_start(world: Make, seed: int) -> None:
    # Given a letter that was written, though the disk said that it was not
    one = world(seed=seed, restless=0.3, loss_window=None)
    one.join("b")
    one.sites["a"].mood, one.disk = "refuses", "lying"
    one.send(records(one, 1))
    one.judge()

    # When
    one.end()
    one.start(["a"])

    # Then
    figures = one.judge().targets["a"]
    assert (figures.accepted, figures.dead, figures.dropped) == (1, 1, {})


def test_an_answer_that_came_too_late_is_nobody_elses(world: Make) -> None:
    # Given a call of b that is given up, and a that cannot be connected to
    one = world(loss_window=None)
    one.join("b")
    one.sites["a"].mood, one.sites["b"].mood = "no connection", "too slow"
    one.send(records(one, 1))
    one.judge()

    # When: the thread that b had comes back, and tries a
    one.stage.advance(75.0)

    # Then
    assert one.judge().targets["a"].pending == 1


def test_a_record_that_waits_twice_and_is_refused_twice_is_one_dead_letter(world: Make) -> None:
    # Given a power cut that leaves a letter, and the row of its replay
    one = world(loss_window=None)
    one.sites["a"].mood = "refuses"
    one.send(records(one, 1))
    one.judge()
    one.replay(0)
    one.judge()
    one.disk = "full"
    one.end(power=True)
    one.start(["a"])
    one.judge()

    # When: both are refused in one batch
    one.disk = "ok"
    one.replay(0)
    one.stage.advance(400.0)

    # Then
    figures = one.judge().targets["a"]
    assert (figures.accepted, figures.dead, figures.pending) == (1, 1, 0)


@pytest.mark.parametrize("steps", range(1, 24))
def test_a_kill_in_a_replay_of_what_is_just_refused_leaves_the_letter(world: Make, steps: int) -> None:
    # Given a power cut that leaves a letter, and the row of its replay
    one = world(loss_window=None)
    one.sites["a"].mood = "refuses"
    one.send(records(one, 1))
    one.judge()
    one.replay(0)
    one.judge()
    one.disk = "full"
    one.end(power=True)
    one.start(["a"])
    one.judge()

    # When: killed in the next replay, while the row is refused once more
    replay_killed_at(one, steps, ["a"])

    # Then
    assert one.judge().targets["a"].dead == 1


def test_a_record_that_one_waits_for_and_another_has_back_is_there_twice(world: Make) -> None:
    # Given a target that is away, and one that refuses
    one = world(loss_window=None)
    one.join("b")
    one.sites["a"].mood, one.sites["b"].mood = "down", "refuses"
    one.send(records(one, 1))
    one.judge()

    # When
    one.sites["b"].mood = "down"
    one.replay(0)
    one.judge()

    # Then: the report, which ``shut`` looks at, counts both
    one.shut(0.0)
    one.start(["a", "b"])
    assert {name: figures.pending for name, figures in one.judge().targets.items()} == {"a": 1, "b": 1}
