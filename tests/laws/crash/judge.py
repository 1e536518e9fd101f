"""What a queue is after a cut: opened in a process of its own, emptied, and opened once more.

Run as ``python -m`` it is a server that reads a task a line (scenario and root, as JSON) and answers with a line. The
package is imported once; each task is a fork of its own, so that no task knows of another.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resilient_exporters.delivery.place import Place
from resilient_exporters.delivery.ring import ring_path
from tests.laws.crash.scenario import SCENARIOS, Scenario, exporters_of
from tests.laws.crash.target import content

__all__ = ["Judge", "observe"]

NEW = 10**9
"""Number of the record that is sent after the cut."""
_PATIENCE = 60


class Judge:
    """A server of observations.

    Args:
        environment: of its process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._alone = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.laws.crash.judge"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            text=True,
        )

    def observe(self, scenario: str, root: Path) -> dict[str, Any]:
        """What is seen of a queue that lies under a root. It is empty afterwards."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._alone:
            self._process.stdin.write(json.dumps([scenario, str(root)]) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise EOFError(f"the judge ended: {self._process.wait()}")
        seen: dict[str, Any] = json.loads(line)
        return seen

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(_PATIENCE)
        self._process.stdout.close()


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def observe(scenario: Scenario, root: Path) -> dict[str, Any]:
    """Open what a cut left, deliver all of it, send one more, close, and open it again.

    Returns:
        got: by target, what came: number, id and whether it was marked as redelivered.
        altered: numbers of records that are not what was sent.
        letters: by target, number and id of the dead letters.
        counts: by target, accepted, delivered, dropped, dead and pending.
        trouble: what else is wrong.
        aside: files that were set aside as damaged.
        again: what the second opening delivered.
        errors: what was logged as an error.
    """
    errors = _Errors()
    logging.getLogger("resilient_exporters").addHandler(errors)
    os.environ["RESILIENT_EXPORTERS_DIR"] = str(root / "state")
    trouble: list[str] = []
    exporter, targets = exporters_of(scenario, root)
    if not exporter.flush(_PATIENCE / 3).complete:
        trouble.append("not all was delivered")
    letters: dict[str, list[tuple[int, str]]] = {name: [] for name in targets}
    for letter in exporter.dead_letters():
        letters[letter.target].append((letter.data["n"], letter.id))
        if letter.data != content(letter.data["n"], scenario.size):
            trouble.append(f"a dead letter was altered: {letter.id}")
    if disk := exporter.stats().disk_trouble:
        trouble.append(disk)
    exporter.send(content(NEW + 1, scenario.size))  # of a number that no target refuses
    if not exporter.flush(_PATIENCE / 3).complete or any(t.got[-1:] == [] for t in targets.values()):
        trouble.append("delivery does not go on")
    elif {target.got[-1][0] for target in targets.values()} != {NEW + 1}:
        trouble.append("a new record is not the last one")
    counts = {}
    for name, one in exporter.stats().targets.items():
        counts[name] = [one.accepted, one.delivered, one.dropped, one.dead, one.pending]
        if one.accepted != one.delivered + sum(one.dropped.values()) + one.dead + one.pending:
            trouble.append(f"the counters of {name} do not add up: {counts[name]}")
    if (report := exporter.close()).pending:
        trouble.append(f"left at close: {report}")
    got = {name: list(target.got) for name, target in targets.items()}  # a file is tidied with the next line
    altered = [number for target in targets.values() for number in target.altered]
    later, others = exporters_of(scenario, root)
    for other in others.values():
        if scenario.file:
            other.look_on()
    if not later.flush(_PATIENCE / 3).complete:
        trouble.append("not all was delivered by the second start")
    later.close()
    return {
        "got": got,
        "altered": altered,
        "letters": letters,
        "counts": counts,
        "trouble": trouble,
        "aside": [str(path.relative_to(root)) for sign in ("damaged*", "quarantine/*") for path in root.rglob(sign)],
        "again": {name: target.got for name, target in others.items()},
        "errors": errors.texts,
    }


def _forget_rings(root: Path) -> None:
    for lock in root.rglob("lock"):
        ring = ring_path(lock.parent)
        if ring is not None:
            ring.unlink(missing_ok=True)


def _serve() -> None:
    while line := sys.stdin.readline():
        scenario, root = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            _answer(SCENARIOS[scenario], Path(root), writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as answer:
            said = answer.read()
        _, status = os.waitpid(child, 0)
        _forget_rings(Path(root))
        if not said:
            said = json.dumps({"failed": f"it ended with status {status}, or hung"}).encode()
        sys.stdout.write(said.decode() + "\n")
        sys.stdout.flush()


def _answer(scenario: Scenario, root: Path, writing: int) -> None:
    Place.forked = False  # as far as the queue is concerned this is no fork: nothing was opened before it
    signal.alarm(_PATIENCE)
    try:
        seen = observe(scenario, root)
    except BaseException:
        seen = {"failed": traceback.format_exc()}
    with os.fdopen(writing, "wb") as answer:
        answer.write(json.dumps(seen).encode())
    os._exit(0)


if __name__ == "__main__":
    _serve()
