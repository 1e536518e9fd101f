"""A scenario from its recording to what its states show."""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from resilient_exporters.delivery.ring import ring_path
from tests.laws.crash import trace
from tests.laws.crash.disk import Held, Tree, held
from tests.laws.crash.judge import NEW, Judge
from tests.laws.crash.law import Finding, Story, broken
from tests.laws.crash.scenario import SCENARIOS
from tests.laws.crash.states import State, lay_out, states
from tests.laws.crash.target import Journal
from tests.laws.crash.trace import Event

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Recording", "Report", "Rig", "told"]

_PATIENCE = 100
_AT_ONCE = 64  # states, so that memory holds no more of them


class Recording(NamedTuple):
    """A scenario as it ran."""

    scenario: str
    root: Path
    start: list[Held]
    events: list[Event]
    story: Story
    seed: str


class Report(NamedTuple):
    """What the states of a recording show.

    Attributes:
        scenario: whose.
        cuts: states that were judged: a moment, and what the disk held.
        states: how many of them differ by more than the moment.
        events: in the trace.
        found: laws that were broken: the state, the laws, and what was seen.
        redelivered: records that came again after a cut, summed over the states; each marked, under its old id.
        oldest: how many seconds before the cut the oldest of them had been taken.
        aside: states in which a file was set aside as damaged.
        late: saves that the queue counted as late: the promise of the loss window was off then.
    """

    scenario: str
    cuts: int
    states: int
    events: int
    found: list[tuple[State, list[Finding], dict[str, Any]]]
    redelivered: int
    oldest: float
    aside: list[State]
    late: int

    def __str__(self) -> str:
        laws = Counter(finding.law for _, findings, _ in self.found for finding in findings)
        return (
            f"{self.scenario}: {self.cuts} cuts that leave {self.states} states, of {self.events} events, "
            f"{len(self.found)} break a law {dict(laws)}, {self.redelivered} records came again "
            f"(taken {self.oldest:.1f} s before at most), {len(self.aside)} set something aside, "
            f"{self.late} late saves"
        )


class Rig:
    """Records scenarios and judges what cuts leave of them. Use it in a ``with``.

    Args:
        library: the interposer.
        folder: for everything.
        judges: processes.
    """

    def __init__(self, library: Path, folder: Path, judges: int = 2) -> None:
        self._library = library
        self._folder = folder
        self._numbers = itertools.count()
        boot = folder / "boot"
        boot.write_text("the boot after the cut")
        quick = trace.traced(library, folder, None, sync=False, boot=boot)  # what is judged need not outlive a cut
        self._judges = [Judge(quick) for _ in range(judges)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for judge in self._judges:
            judge.close()

    def record(self, name: str, seed: str, *, mutation: str = "") -> Recording:
        """Run a scenario.

        Args:
            name: of the scenario.
            seed: of its choices.
            mutation: what is broken in it.
        """
        place = self._folder / f"recording-{next(self._numbers)}"
        root, journal = place / "root", place / "journal"
        root.mkdir(parents=True)
        journal.touch()
        first = 0
        if SCENARIOS[name].after:
            first = self._leave(SCENARIOS[name].after, root, journal, seed)
        if SCENARIOS[name].prepare is not None:
            self._run(name, root, journal, seed, "prepare", None)
            first = len(Story(journal).sent)
        self._forget_rings(root)
        start = held(root)
        try:
            self._run(name, root, journal, seed, str(first), place / "log", mutation)
        finally:
            self._forget_rings(root)
        return Recording(name, root, start, trace.read(place / "log"), Story(journal), seed)

    def _leave(self, name: str, root: Path, journal: Path, seed: str) -> int:
        """Put under the root what a cut left of a scenario, and into the journal what it still knows.

        Returns:
            A number that no record has yet.
        """
        before = self.record(name, seed)
        dice = random.Random(seed)
        made = [
            one for one in self._states(before, 60) if one.how.endswith("chance") and one.at > len(before.events) / 4
        ]
        state = dice.choice(made)
        copy = root.with_name("copy")
        lay_out(state.tree, copy)
        seen = self._judges[0].observe(name, copy)
        lay_out(state.tree, root)
        lines = Journal(journal)
        for got in seen["got"].values():
            for number, id_, _ in got:
                if number < NEW:
                    lines.note("begin", number, at=0.0)
                    lines.note("sent", number, id_, at=0.0)
        return max(before.story.begun) + 1

    @staticmethod
    def _states(recording: Recording, count: int) -> Iterator[State]:
        noise = not SCENARIOS[recording.scenario].file
        return states(recording.events, recording.start, recording.root, count, recording.seed, noise=noise)

    def _run(
        self, name: str, root: Path, journal: Path, seed: str, part: str, log: Path | None, mutation: str = ""
    ) -> None:
        words = [name, str(root), str(journal), seed, part, mutation]
        environment = trace.traced(self._library, root, log, sync=log is not None and mutation != "without any sync")
        command = [sys.executable, "-W", "error", "-m", "tests.laws.crash.program", *words]
        ran = subprocess.run(
            command, env=dict(environment), timeout=_PATIENCE, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, f"{name} failed:\n{ran.stderr}"

    @staticmethod
    def _forget_rings(root: Path) -> None:
        for lock in root.rglob("lock"):
            if (ring := ring_path(lock.parent)) is not None:
                ring.unlink(missing_ok=True)

    def judge(self, recording: Recording, count: int) -> Report:
        """Make up states of a recording, and look at each."""
        scenario, story = SCENARIOS[recording.scenario], recording.story
        made = self._states(recording, count)
        found: list[tuple[State, list[Finding], dict[str, Any]]] = []
        digests: set[str] = set()
        cuts = redelivered = 0
        aside: list[State] = []
        oldest = 0.0
        for state, seen in self._observed(recording, made):
            cuts += 1
            digests.add(state.digest)
            findings = broken(scenario, story, state, seen)
            if findings:
                found.append((state, findings, seen))
            if "failed" in seen:
                continue
            if seen["aside"]:
                aside.append(state)
            for name, got in seen["got"].items():
                again = [story.taken.get((name, number), state.time) for number, _, _ in got if number < NEW]
                redelivered += sum(time < state.time for time in again)
                oldest = max([oldest, *(state.time - time for time in again)])
        return Report(
            recording.scenario,
            cuts,
            len(digests),
            len(recording.events),
            found,
            redelivered,
            oldest,
            aside,
            len(story.late),
        )

    def _observed(self, recording: Recording, made: Iterable[State]) -> Iterator[tuple[State, dict[str, Any]]]:
        """Each state with what is seen of it. The same disk at another moment is looked at once."""
        name, in_place = recording.scenario, SCENARIOS[recording.scenario].file
        judges = self._judges[:1] if in_place else self._judges
        free: SimpleQueue[Judge] = SimpleQueue()
        for judge in judges:
            free.put(judge)
        known: dict[str, Future[dict[str, Any]]] = {}

        def look(tree: Tree) -> dict[str, Any]:
            judge = free.get()
            root = self._folder / f"state-{next(self._numbers)}"
            if in_place:
                root = recording.root
                _make_way(root / "out" / "log", tree, root)
            try:
                lay_out(tree, root)
                return judge.observe(name, root)
            finally:
                free.put(judge)
                if not in_place:
                    shutil.rmtree(root, ignore_errors=True)

        made = iter(made)
        with ThreadPoolExecutor(len(judges)) as pool:
            while batch := list(itertools.islice(made, _AT_ONCE)):
                for state in batch:
                    if state.digest not in known:
                        known[state.digest] = pool.submit(look, state.tree)
                for state in batch:
                    yield state, known[state.digest].result()


def _make_way(file: Path, tree: Tree, root: Path) -> None:
    """Clear a root for another state. One file, known by its inode, stays; where the state lacks it, it is parked."""
    parked = root.with_name("parked")
    if not parked.exists():  # else what is there was made by the judge of a state without it
        file.replace(parked)
    shutil.rmtree(root)
    root.mkdir(mode=0o700)
    if str(file.relative_to(root)) in tree:
        file.parent.mkdir(mode=0o700)
        parked.replace(file)


def told(found: Sequence[tuple[State, list[Finding], dict[str, Any]]], most: int = 5) -> str:
    """The first of what was found, in words."""
    return "\n".join(
        f"after {state.at} events, {state.how}, {sorted(state.tree)}: {findings[:4]}"
        for state, findings, _ in found[:most]
    )
