"""The states that a power cut may leave: a trace cut at chosen moments, and for each some of what the disk may hold."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.laws.crash import trace
from tests.laws.crash.disk import EXT4, POSIX, Disk, Held, Tree
from tests.laws.crash.trace import Event

__all__ = ["State", "lay_out", "states"]

_WEIGHTS = dict.fromkeys((trace.CREATE, trace.MAKE, trace.RENAME, trace.UNLINK, trace.LINK), 4) | {
    trace.BEGIN: 2,
    trace.END: 5,
    trace.RESIZE: 3,
}


class State(NamedTuple):
    """What a cut left.

    Attributes:
        at: how many events had happened.
        time: the latest moment at which the cut may have been: the next event had not begun.
        how: "model floor", "model ceiling" or "model chance".
        tree: what is on the disk.
        digest: of the tree.
    """

    at: int
    time: float
    how: str
    tree: Tree
    digest: str


def states(
    events: Sequence[Event], start: Sequence[Held], root: Path, count: int, seed: str, *, noise: bool = True
) -> Iterator[State]:
    """Make up states, no two alike at the same moment.

    Args:
        events: the trace.
        start: what was under the root when the trace began.
        root: the directory that was traced.
        count: how many, about: fewer where there are not so many.
        seed: of the choices.
        noise: whether parts of a file that were never written may hold noise.
    """
    for model in (POSIX, EXT4):
        dice = random.Random(f"{seed} {model}")
        wanted = _moments(events, max(1, count // 2), dice)
        disk = Disk(root, start, model, dice.randbytes(1 << 16) if noise else b"")
        seen: set[tuple[int, str]] = set()
        for at, event in enumerate(events):
            disk.follow(event)
            for number in range(wanted.get(at, 0)):
                how = dice.choice(("floor", "ceiling", "chance", "chance", "chance")) if number < 2 else "chance"
                tree = disk.chance(dice) if how == "chance" else disk.floor() if how == "floor" else disk.ceiling()
                digest = _digest(tree)
                if (at, digest) not in seen:
                    time = events[at + 1].time if at + 1 < len(events) else event.time
                    yield State(at + 1, time, f"{model} {how}", tree, digest)
                    seen.add((at, digest))


def _moments(events: Sequence[Event], count: int, dice: random.Random) -> dict[int, int]:
    """How many states to make after which event: more around syncs and names."""
    weights = [_WEIGHTS.get(event.kind, 1) for event in events]
    for at, event in enumerate(events):
        if event.kind == trace.END and at:
            weights[at - 1] += 4  # all that it will have put on disk is still uncertain
    found: dict[int, int] = {}
    for at in dice.choices(range(len(events)), weights, k=count):
        found[at] = found.get(at, 0) + 1
    return found


def _digest(tree: Tree) -> str:
    summary = hashlib.blake2b(digest_size=16)
    for name, content in sorted(tree.items()):
        summary.update(f"{name}\0{-1 if content is None else len(content)}\0".encode())
        summary.update(content or b"")
    return summary.hexdigest()


def lay_out(tree: Tree, root: Path) -> None:
    """Make it so on a file system. What is there already keeps its inode."""
    root.mkdir(mode=0o700, exist_ok=True)
    for name, content in sorted(tree.items()):
        path = root / name
        if content is None:
            path.mkdir(mode=0o700, exist_ok=True)
        else:
            path.write_bytes(content)
            path.chmod(0o600)
