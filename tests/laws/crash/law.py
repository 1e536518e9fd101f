"""What holds after a cut: the journal of what was sent and taken, against what the queue still knew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from tests.laws.crash.judge import NEW
from tests.laws.crash.scenario import Scenario
from tests.laws.crash.states import State

__all__ = ["Finding", "Story", "broken"]

_STALL = 1.0  # seconds for which a busy machine may stand still, so that a delivery comes before a save


class Finding(NamedTuple):
    """A law that a state breaks: "lost", "invented", "altered", "order", "doubled", "unmarked", "opened" …"""

    law: str
    what: str


class Story:
    """What a journal tells.

    Attributes:
        begun, sent: by number, when ``send`` was called and when it had returned.
        ids: by number.
        taken: by target and number, when it was taken.
        noted: by target and number, when that was surely noted by the queue.
        refused: numbers that a target refused, and when.
        let: numbers that were thrown away, and when.
        wrote: when each transaction was on disk.
        saves: by id, when the record was in one.
        late: when the queue counted one as late.
    """

    def __init__(self, journal: Path) -> None:
        self.begun: dict[int, float] = {}
        self.sent: dict[int, float] = {}
        self.ids: dict[int, str] = {}
        self.taken: dict[tuple[str, int], float] = {}
        self.noted: dict[tuple[str, int], float] = {}
        self.let: dict[int, float] = {}
        self.refused: dict[int, float] = {}
        self.wrote: list[float] = []
        self.saves: dict[str, float] = {}
        self.late: list[float] = []
        open_: list[tuple[str, int]] = []
        for line in journal.read_text().splitlines():
            what, number, time, word = self._parse(line)
            if what == "begin":
                self.begun[number] = time
            elif what == "sent":
                self.sent[number], self.ids[number] = time, word
            elif what == "taken":
                target = word.partition("/")[0]
                self.taken.setdefault((target, number), time)
                open_.append((target, number))
            elif what == "refused":
                self.refused.setdefault(number, time)
            elif what in ("next", "quiet"):  # a target's next batch: the one before is noted
                done = [one for one in open_ if what == "quiet" or one[0] == word]
                open_ = [one for one in open_ if one not in done]
                self.noted.update(dict.fromkeys(done, time))
            elif what == "let":
                self.let[number] = time
            elif what == "wrote":
                self.wrote.append(time)
            elif what == "saved":
                run, _, count = word.partition("/")
                for offset in range(number, number + int(count)):
                    self.saves.setdefault(f"{run}-{offset}", time)
            elif what == "late":
                self.late.append(time)

    @staticmethod
    def _parse(line: str) -> tuple[str, int, float, str]:
        what, number, time, word = line.split()
        return what, int(number), float(time), word

    def is_late(self, number: int, window: float, cut: float) -> bool:
        """Whether this record was saved late by the queue's own count, or a target answered before it could be."""
        saves = self.saves.get(self.ids[number])
        if saves is None:
            answers = [time for (_, one), time in self.taken.items() if one == number]
            answers += [self.refused[number]] if number in self.refused else []
            return bool(answers) and max(self.sent[number] + window, cut) < max(answers) + _STALL
        then = min((time for time in self.saves.values() if time > saves), default=inf)
        return cut <= saves and any(saves <= time < then for time in self.late)


def broken(scenario: Scenario, story: Story, state: State, seen: Mapping[str, Any]) -> list[Finding]:
    """Which laws a state breaks.

    Args:
        scenario: what was traced.
        story: its journal.
        state: what the cut left.
        seen: what was observed of it.
    """
    if "failed" in seen:
        return [Finding("opened", seen["failed"])]
    found = [Finding("opened" if "disk" in text else "goes on", text) for text in seen["trouble"]]
    found += [Finding("altered", str(number)) for number in seen["altered"]]
    for name in scenario.members:
        found += _of_target(scenario, story, state, seen, name)
        if not scenario.file:
            found += _noted(story, state, seen, name)
    return found


def _of_target(scenario: Scenario, story: Story, state: State, seen: Mapping[str, Any], name: str) -> list[Finding]:
    got = [one for one in seen["got"][name] if one[0] < NEW]
    numbers = [number for number, _, _ in got]
    letters = [number for number, _ in seen["letters"][name]]
    return [
        *_kept(scenario, story, state, name, {*numbers, *letters}),
        *_marked(story, state, name, got),
        *_once(numbers, letters, name, seen["again"][name]),
        *_ordered(scenario, got, name),
        *_counted(story, state, {*numbers, *letters}, name, seen["counts"][name][2]),
    ]


def _kept(scenario: Scenario, story: Story, state: State, name: str, there: set[int]) -> Iterator[Finding]:
    """All that was accepted before the window, and nothing that was not sent."""
    for number, time in story.sent.items():
        # What a file has taken is in it; what other targets have taken is there no more.
        taken = inf if scenario.file else story.taken.get((name, number), inf)
        gone = min(taken, story.let.get(number, inf)) < state.time
        if time >= state.time - scenario.window or gone or number in there:
            continue
        if not scenario.window or not story.is_late(number, scenario.window, state.time):
            yield Finding("lost", f"{name}: {number}, accepted {state.time - time:.3f} s before the cut")
    for number in there:
        if story.begun.get(number, inf) >= state.time:
            yield Finding("invented", f"{name}: {number}")


def _marked(story: Story, state: State, name: str, got: Sequence[tuple[int, str, bool]]) -> Iterator[Finding]:
    """Under its id; and where the target had it before, in a batch that says so."""
    for number, id_, marked in got:
        if id_ and id_ != story.ids.get(number, id_):
            yield Finding("id", f"{name}: {number} was {story.ids[number]} and came as {id_}")
        if story.taken.get((name, number), inf) < state.time and not marked:
            yield Finding("unmarked", f"{name}: {number} came again in a batch that does not say so")


def _once(
    numbers: list[int], letters: list[int], name: str, again: Sequence[tuple[int, str, bool]]
) -> Iterator[Finding]:
    if len(set(letters)) < len(letters) or len(set(numbers)) < len(numbers):
        yield Finding("doubled", f"{name}: {_twice(numbers)} delivered twice, {_twice(letters)} letters")
    if both := sorted(set(numbers) & set(letters)):
        yield Finding("doubled", f"{name}: {both} delivered, and letters")
    if doubled := [number for number, _, _ in again if number in numbers or number > NEW]:
        yield Finding("doubled", f"{name}: {doubled} delivered again by the second start")
    if later := [number for number, _, _ in again if number not in numbers and number < NEW]:
        yield Finding("goes on", f"{name}: {later} delivered by the second start only")


def _ordered(scenario: Scenario, got: Sequence[tuple[int, str, bool]], name: str) -> Iterator[Finding]:
    offsets: dict[str, int] = {}
    for number, id_, _ in got:
        if not id_:
            continue
        run, _, offset = id_.rpartition("-")
        if int(offset) < offsets.get(run, -1) and not scenario.rejects:  # what is replayed comes last
            yield Finding("order", f"{name}: {number} ({id_}) after {offsets[run]}")
        offsets[run] = int(offset)
    numbers = [number for number, _, _ in got]
    if scenario.in_order and numbers != sorted(numbers):
        yield Finding("order", f"{name}: {numbers}")


def _counted(story: Story, state: State, there: set[int], name: str, counts: Mapping[str, int]) -> Iterator[Finding]:
    """What the cut took of the window is counted where the queue can know of it: something behind it is on disk."""
    taken = sum(
        time < state.time and number not in there and story.taken.get((name, number), inf) >= state.time
        for number, time in story.begun.items()
    )
    thrown = sum(time < state.time for time in story.let.values())
    dropped = dict(counts)
    if dropped.pop("corrupt", 0) > taken or dropped.pop("discarded", 0) > thrown or dropped:
        yield Finding("dropped", f"{name}: {counts}")


def _noted(story: Story, state: State, seen: Mapping[str, Any], name: str) -> list[Finding]:
    """What was taken before the last transaction but one was begun is in the last: it does not come again."""
    times = [time for time in story.wrote if time < state.time]
    if len(times) < 2:
        return []
    again = [number for number, _, _ in seen["got"][name] if story.noted.get((name, number), inf) < times[-2]]
    return [Finding("noted", f"{name}: {again} came again, although their settlement was on disk")] if again else []


def _twice(numbers: Sequence[int]) -> list[int]:
    return sorted({number for number in numbers if numbers.count(number) > 1})
