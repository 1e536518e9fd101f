"""What do senders lose when their target is away, when they are closed, and when they are killed?

Each sender of ``outage_sender`` runs with its defaults, four readings a second, in a process of its own, all at the
same time. The target is a port that nothing listens on, until the outage is over. A reading is lost if the sender took
it and the target has not got it at the end, after the program was started once more.

* outage: away for 60 s and for 420 s; then a minute of going on, ``close``, and one more start
  with one reading.
* close: 40 readings with the target away, then ``close``; the target comes, and the program is started again.
* kill: the same with SIGKILL in place of ``close``.
"""

from __future__ import annotations

import importlib.util
import math
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.harness import Bench, fresh_directory, number, remove
from benchmarks.outage_receiver import Receiver
from benchmarks.outage_sender import SENDERS

_EVERY = 0.25
_AFTER = 60.0
_AGAIN = 30.0
_PATIENCE = 120.0
_START = 120.0
_ROOT = Path(__file__).parent.parent


def run(bench: Bench) -> None:
    outages = [2.0] if bench.smoke else [60.0, 420.0]
    after, again, patience = (3.0, 3.0, 10.0) if bench.smoke else (_AFTER, _AGAIN, _PATIENCE)
    there = [name for name, sender in SENDERS.items() if all(map(_installed, sender.packages))]
    for name in SENDERS.keys() - there:
        bench.note(f"{SENDERS[name].title} is not installed")
    ends = [(f"outage {number(outage)} s", outage, after) for outage in outages]
    ends += [(end, 1.0 if bench.smoke else 10.0, 0.0) for end in ("close", "kill -9")]
    cases = [Case(name, title, outage, going_on, again, patience) for name in there for title, outage, going_on in ends]
    with ThreadPoolExecutor(len(cases)) as threads:
        done = [threads.submit(case.run) for case in cases]
    for case, future in zip(cases, done, strict=True):
        future.result()
        case.report(bench)
    _table(bench, cases, there)


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _table(bench: Bench, cases: list[Case], there: list[str]) -> None:
    """The same as a table for the documentation."""
    titles = list(dict.fromkeys(case.title for case in cases))
    rows = [["sender", *(f"{title}: lost of" for title in titles), "close(), s", "gone after, s", "longest send, ms"]]
    rows.append(["---"] * len(rows[0]))
    for name in there:
        mine = {case.title: case for case in cases if case.name == name}
        cells = [f"{mine[title].lost:,} of {len(mine[title].taken):,}" for title in titles]
        closing = mine["close"]
        longest = max(case.longest for case in mine.values())
        times = [number(one) for one in (closing.closing, closing.seconds, 1000 * longest)]
        rows.append([SENDERS[name].title, *cells, *times])
    for row in rows:
        bench.note(f"| {' | '.join(row)} |")


class Case:
    """One sender in one scenario.

    Args:
        name: of the sender.
        title: of the scenario.
        outage: seconds that the target is away from the beginning.
        after: seconds that sending goes on when it is back; 0: it ends while the target is away.
        again: seconds that the program runs when it is started once more.
        patience: seconds that an end may take before the program is killed.

    Attributes:
        taken: readings whose ``send`` returned.
        refused: how many raised.
        closing: seconds that its ``close`` took, as it says; infinite if it was killed.
        seconds: that the end took, until the process was gone.
        longest: call of ``send``, seconds.
    """

    def __init__(self, name: str, title: str, outage: float, after: float, again: float, patience: float) -> None:
        self.name = name
        self.title = title
        self.taken: set[int] = set()
        self.refused = 0
        self.closing = math.nan
        self.seconds = math.nan
        self.longest = 0.0
        self._outage = outage
        self._after = after
        self._again = again
        self._patience = patience
        self._receiver = Receiver(lines=SENDERS[name].lines)
        self._directory = fresh_directory()

    @property
    def lost(self) -> int:
        """Readings that it took and that never came."""
        return len(self.taken - self._receiver.readings.keys())

    @property
    def doubled(self) -> int:
        """Readings that came more than once."""
        return sum(1 for count in self._receiver.readings.values() if count > 1)

    def run(self) -> None:
        """From the first reading to the end."""
        numbers = iter(range(10**6))
        program = Program(self.name, self._receiver.port, self._directory)
        try:
            self._send(program, numbers, self._outage)
            if self._after:
                self._receiver.start()
                self._send(program, numbers, self._after)
            self.seconds = program.kill() if self.title == "kill -9" else program.close(self._patience)
            self._note(program)
            if math.isnan(self.closing):
                self.closing = math.inf  # it was killed
            if not self._after:
                self._receiver.start()
            program = Program(self.name, self._receiver.port, self._directory)
            self._send(program, numbers, _EVERY)  # one more, since some look into what they kept only then
            self._wait(self._again)
            program.close(self._patience)
            self._note(program)
        finally:
            program.kill()
            self._receiver.stop()
            remove(self._directory)

    def _send(self, program: Program, numbers: Iterator[int], seconds: float) -> None:
        end = time.monotonic() + seconds
        due = time.monotonic()
        while due < end:
            self._wait(due - time.monotonic())
            program.tell(str(next(numbers)))
            self._note(program)
            due += _EVERY

    def _note(self, program: Program) -> None:
        for word, *rest in program.answers():
            if word == "taken":
                self.taken.add(int(rest[0]))
                self.longest = max(self.longest, float(rest[1]))
            elif word == "refused":
                self.refused += 1
            elif word == "closed" and math.isnan(self.closing):
                self.closing = float(rest[0])

    @staticmethod
    def _wait(seconds: float) -> None:
        time.sleep(max(0.0, seconds))

    def report(self, bench: Bench) -> None:
        """Its line."""
        end = f", {self.title}: " + ("ended after" if self._after else "end took") + f" {number(self.seconds)} s"
        ours = self.name == "ours"
        bench.row(f"{SENDERS[self.name].title}, {self.title}: lost", [float(self.lost)], most=0 if ours else None,
                  beside=("taken", [float(len(self.taken))]))  # fmt: skip
        bench.note(f"{SENDERS[self.name].title}{end}; refused {self.refused}, doubled {self.doubled}, "
                   f"close() {number(self.closing)} s, longest send {number(1000 * self.longest)} ms")  # fmt: skip


class Program:
    """A sender's process."""

    def __init__(self, name: str, port: int, directory: Path) -> None:
        log = (directory.parent / f"outage-{name}.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.outage_sender", name, str(port), str(directory)],
                cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1,
            )  # fmt: skip
        self._said: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._said.get(timeout=_START)  # "ready", so that the start is not measured

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(line.split())

    def tell(self, command: str) -> None:
        """Give it a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")

    def answers(self) -> Iterator[list[str]]:
        """What it has said since."""
        while not self._said.empty():
            yield self._said.get()

    def close(self, patience: float) -> float:
        """End it as its documentation says, or after ``patience`` seconds by force. Returns the seconds it took."""
        began = time.monotonic()
        self.tell("close")
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        return time.monotonic() - began

    def kill(self) -> float:
        """End it with SIGKILL, wherever it is."""
        began = time.monotonic()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        return time.monotonic() - began
