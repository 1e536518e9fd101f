"""A file system as a power cut sees it: what is on disk for certain, and what may be.

Two models. ``POSIX`` promises what POSIX does and nothing more:

- Data, and the size of a file, are on disk once an fsync or fdatasync of it that began after them has ended.
- A name (made, renamed, removed) is on disk once an fsync of its directory has ended. Syncing a file does not sync its
  name. A directory whose name is missing takes with it all that is in it.
- Of the rest anything may be there: each name, each size and each sector of 512 bytes for itself, old or new or any
  state between. Only this is kept: a sector is written whole and as it was in memory at some moment; operations on the
  same name happen in their order; a rename is there or not. Where a file became longer and the data is not there, it
  holds zeros or noise.

``EXT4`` is the milder one of a journal with ``data=ordered``:

- Names and truncations are there in the order in which they were made, up to some moment; a sync that ended has put
  there all that was made before the last change to the file.
- Data as above, but a file is only as long as its data reaches, and never holds noise.

Both leave the contents of SQLite's ``-shm`` files to chance: they are written through memory, never synced, and made
anew by whoever opens the database first.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.laws.crash import trace
from tests.laws.crash.trace import Event

__all__ = ["EXT4", "POSIX", "Disk", "Held", "Tree", "held"]

POSIX, EXT4 = "posix", "ext4"
SECTOR, PAGE = 512, 4096

Tree = Mapping[str, bytes | None]
"""Relative paths: the bytes of a file, or None for a directory."""


class Held(NamedTuple):
    """A file (or with ``content`` None a directory) as it was at some moment. The root's path is empty."""

    path: str
    inode: tuple[int, int]
    content: bytes | None


def held(root: Path) -> list[Held]:
    """All that is under a directory, and itself; directories before what is in them."""
    found = []
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.stat()
        name = str(path.relative_to(root)) if path != root else ""
        found.append(Held(name, (status.st_dev, status.st_ino), None if path.is_dir() else path.read_bytes()))
    return found


class Change(NamedTuple):
    """Something that happened to the contents of a file: ``data`` at ``start``, or the size."""

    moment: int
    kind: str
    start: int
    data: bytes
    size: int

    @property
    def end(self) -> int:
        """The offset after the last byte that it touches."""
        return self.start + len(self.data) if self.kind == trace.WRITE else self.size


class Renaming(NamedTuple):
    """Names that get another meaning, all at once. A name is the number of its directory and a text."""

    moment: int
    names: dict[tuple[int, str], int | None]


class Inode:
    """A file or a directory: what is on disk, and what was done since."""

    def __init__(self, *, is_folder: bool, content: bytes = b"") -> None:
        self.is_folder = is_folder
        self.mapped = False
        self.content = content
        self.changes: list[Change] = []
        self.last_change = -1
        self.begun: dict[int, int] = {}

    def size(self) -> int:
        """As the program sees it."""
        size = len(self.content)
        for change in self.changes:
            size = change.size if change.kind == trace.RESIZE else max(size, change.end)
        return size


class Disk:
    """Follows a trace, and makes up what a cut may leave.

    Args:
        root: the directory that was traced.
        start: what was under it when the trace began.
        model: ``POSIX`` or ``EXT4``.
        noise: what unwritten parts of a file may hold under ``POSIX``; empty: zeros only.
    """

    def __init__(self, root: Path, start: Sequence[Held], model: str, noise: bytes) -> None:
        self.model = model
        self._root = str(root)
        self._noise = noise
        self._inodes = [Inode(is_folder=True)]
        self._numbers: dict[tuple[int, int], int] = {}
        self._names: dict[tuple[int, str], int] = {}  # on disk
        self._now: dict[tuple[int, str], int] = {}  # as the program sees it
        self._pending: list[Renaming] = []
        self._committed = -1  # EXT4: names and truncations up to here are on disk
        self._at = -1

        for one in start:
            number = 0
            if one.path:
                number = self._add(Inode(is_folder=one.content is None, content=one.content or b""))
                self._set_on_disk(f"{root}/{one.path}", number)
            self._numbers[one.inode] = number

    def _set_on_disk(self, path: str, number: int) -> None:
        self._names[self._name(path)] = self._now[self._name(path)] = number

    # -- following ---------------------------------------------------------------------------------------------------

    def follow(self, event: Event) -> None:
        """The next event of the trace."""
        self._at += 1
        if event.kind == trace.UNMODELLED:
            raise NotImplementedError(f"the program does what the model of the disk does not know: {event.path}")
        if event.kind in (trace.CREATE, trace.MAKE):
            number = self._add(Inode(is_folder=event.kind == trace.MAKE))
            self._numbers[event.inode] = number
            self._inodes[number].last_change = self._at
            self._rename({self._name(event.path): number})
        elif event.kind == trace.UNLINK:
            self._rename({self._name(event.path): None})
        elif event.kind == trace.LINK:
            self._rename({self._name(event.second): self._now[self._name(event.path)]})
        elif event.kind == trace.RENAME:
            old, new = self._name(event.path), self._name(event.second)
            self._rename({old: None, new: self._now[old]})
        elif event.inode in self._numbers:
            self._change(event, self._inodes[self._numbers[event.inode]])

    def _change(self, event: Event, inode: Inode) -> None:
        if event.kind == trace.WRITE:
            inode.changes.append(Change(self._at, trace.WRITE, event.a, event.data, 0))
        elif event.kind == trace.RESIZE:
            inode.changes.append(Change(self._at, trace.RESIZE, event.a, b"", event.a))
            inode.last_change = self._at
        elif event.kind == trace.ALLOCATE:
            inode.changes.append(Change(self._at, trace.ALLOCATE, event.a, b"", event.a + event.b))
            inode.last_change = self._at
        elif event.kind == trace.MAP:
            inode.mapped = True
        elif event.kind == trace.BEGIN:
            inode.begun[event.thread] = self._at
        elif event.kind == trace.END:
            self._sync(inode, inode.begun.pop(event.thread))

    def _sync(self, inode: Inode, until: int) -> None:
        if inode.is_folder:
            if self.model == POSIX:
                self._keep_names(lambda folder, _: self._inodes[folder] is inode, until)
        else:
            done = [change for change in inode.changes if change.moment < until]
            inode.changes = inode.changes[len(done) :]
            inode.content = _content(inode.content, done, {}, len(done), None)
        if self.model == EXT4:
            self._committed = max(self._committed, inode.last_change if inode.last_change < until else -1)
            self._keep_names(lambda *_: True, self._committed + 1)

    def _keep_names(self, wanted: Callable[[int, str], bool], until: int) -> None:
        left = []
        for renaming in self._pending:
            rest = {}
            for name, number in renaming.names.items():
                if renaming.moment < until and wanted(*name):
                    _set(self._names, name, number)
                else:
                    rest[name] = number
            if rest:
                left.append(Renaming(renaming.moment, rest))
        self._pending = left

    def _rename(self, names: dict[tuple[int, str], int | None]) -> None:
        self._pending.append(Renaming(self._at, names))
        for name, number in names.items():
            _set(self._now, name, number)
            self._inodes[name[0]].last_change = self._at
            if number is not None:
                self._inodes[number].last_change = self._at

    def _add(self, inode: Inode) -> int:
        self._inodes.append(inode)
        return len(self._inodes) - 1

    def _name(self, path: str) -> tuple[int, str]:
        folder = 0
        *parents, last = path[len(self._root) + 1 :].split("/")
        for part in parents:
            folder = self._now[folder, part]
        return folder, last

    # -- cutting -----------------------------------------------------------------------------------------------------

    @property
    def uncertain(self) -> int:
        """How many operations are not on disk for certain."""
        reached = set(self._now.values()) | set(self._names.values())
        return len(self._pending) + sum(len(self._inodes[number].changes) for number in reached)

    def floor(self) -> Tree:
        """Nothing but what is certain."""
        return self._tree(self._names, lambda inode: self._choose(inode, "none", self._committed, None))

    def ceiling(self) -> Tree:
        """Everything, as after an orderly reboot."""
        return self._tree(self._now, lambda inode: self._choose(inode, "all", self._at, None))

    def chance(self, dice: random.Random) -> Tree:
        """One of all the others."""
        until = dice.choice((self._at, self._committed, dice.randint(self._committed, self._at)))
        names = dict(self._names)
        touched: set[tuple[int, str]] = set()
        share = dice.choice((0.0, 0.5, 1.0))
        for renaming in self._pending:
            happened = renaming.moment <= until if self.model == EXT4 else dice.random() < share
            if happened and not touched & renaming.names.keys():
                for name, number in renaming.names.items():
                    _set(names, name, number)
            else:
                touched |= renaming.names.keys()
        at_once = dice.choice(("prefix", None, None))  # the disk got everything up to a moment; each file for itself
        moment = dice.randint(self._committed, self._at)

        def content(inode: Inode) -> bytes:
            how = at_once or dice.choice(("none", "all", "prefix", "some", "some", "pages", "sectors"))
            when = moment if at_once else dice.randint(inode.changes[0].moment - 1, self._at) if inode.changes else 0
            return self._choose(inode, how, until, dice, when)

        return self._tree(names, content)

    def _tree(self, names: Mapping[tuple[int, str], int], content: Callable[[Inode], bytes]) -> Tree:
        tree: dict[str, bytes | None] = {}

        def walk(folder: int, above: str) -> None:
            for (parent, text), number in sorted(names.items()):
                if parent != folder:
                    continue
                inode = self._inodes[number]
                if inode.is_folder:
                    tree[above + text] = None
                    walk(number, f"{above}{text}/")
                else:
                    tree[above + text] = content(inode)

        walk(0, "")
        return tree

    def _choose(self, inode: Inode, how: str, until: int, dice: random.Random | None, moment: int = 0) -> bytes:
        """The contents of a file, in one of the ways that it may be left."""
        if inode.mapped and dice is not None:
            size = inode.size()
            return dice.choice((b"", bytes(size), dice.randbytes(size)))
        changes = inode.changes
        levels: dict[int, int] = {}  # by sector, how many of the changes it has seen
        usual = {"none": 0, "all": len(changes)}.get(how, 0)
        if dice is not None and how not in ("none", "all"):
            levels, usual = _levels(inode, how, dice, moment)
        length: int | None = None
        fill = b""
        if self.model == POSIX and dice is not None:
            sizes = [len(inode.content)]
            for change in changes:
                sizes.append(change.size if change.kind == trace.RESIZE else max(sizes[-1], change.end))
            length = dice.choice((sizes[usual], sizes[-1], dice.choice(sizes)))
            fill = self._part_of_noise(length, dice) if self._noise and dice.random() < 0.2 else b""
        elif self.model == POSIX and how == "none":
            length = len(inode.content)
        if self.model == EXT4:
            levels = _in_order(inode, levels, usual, until)
        return _content(inode.content, changes, levels, usual, length, fill, until if self.model == EXT4 else None)

    def _part_of_noise(self, size: int, dice: random.Random) -> bytes:
        start = dice.randrange(len(self._noise))
        return (self._noise[start:] + self._noise * (size // len(self._noise) + 1))[:size]


def _set(names: dict[tuple[int, str], int], name: tuple[int, str], number: int | None) -> None:
    if number is None:
        names.pop(name, None)
    else:
        names[name] = number


def _sectors(change: Change, size: int) -> Iterator[int]:
    """Which sectors a change touches, in a file of this size."""
    start, end = change.start, change.end
    if change.kind != trace.WRITE:
        start, end = min(size, change.size), max(size, change.size)
    return iter(range(start // SECTOR, -(-end // SECTOR)))


def _touched(inode: Inode) -> list[set[int]]:
    """Which sectors each of the changes touches."""
    found, size = [], len(inode.content)
    for change in inode.changes:
        found.append(set(_sectors(change, size)))
        size = change.size if change.kind == trace.RESIZE else max(size, change.end)
    return found


def _levels(inode: Inode, how: str, dice: random.Random, moment: int) -> tuple[dict[int, int], int]:
    """By sector, how many of the changes it has seen; and how many the others have."""
    touched = _touched(inode)
    sectors = sorted(set().union(*touched))
    if how == "prefix":  # up to a moment, and the next one in part
        until = sum(change.moment <= moment for change in inode.changes)
        if until < len(touched):
            return {sector: until + 1 for sector in touched[until] if dice.random() < 0.5}, until
        return {}, until
    if how == "some":  # each write for itself, and what the same sectors had seen before it
        share, levels = dice.random(), {}
        for at, those in enumerate(touched):
            if dice.random() < share:
                levels.update(dict.fromkeys(those, at + 1))
        return levels, 0
    size = PAGE // SECTOR if how == "pages" else 1
    share, chosen = dice.random(), dict[int, int]()
    for sector in sectors:
        unit = sector // size
        if unit not in chosen:
            chosen[unit] = len(touched) if dice.random() < share else dice.randint(0, len(touched))
    return {sector: chosen[sector // size] for sector in sectors}, 0


def _in_order(inode: Inode, levels: dict[int, int], usual: int, until: int) -> dict[int, int]:
    """Bring levels in line with which truncations have happened: those up to ``until``, and no other."""
    found = dict(levels)
    for at, (change, those) in enumerate(zip(inode.changes, _touched(inode), strict=True)):
        if change.kind == trace.WRITE:
            continue
        for sector in those:
            level = found.get(sector, usual)
            # What was cut off is gone; what was written after a cut that has not happened is nowhere yet.
            found[sector] = max(level, at + 1) if change.moment <= until else min(level, at)
    return found


def _content(
    content: bytes,
    changes: list[Change],
    levels: Mapping[int, int],
    usual: int,
    size: int | None,
    fill: bytes = b"",
    until: int | None = None,
) -> bytes:
    """The bytes of a file after some of the changes.

    Args:
        content: before them.
        changes: in their order.
        levels: by sector, how many of them it has seen.
        usual: the same for all other sectors.
        size: of the file; None: as long as its data reaches.
        fill: what stands where nothing was ever written.
        until: truncations after this moment have not happened; None: they go by ``usual``.
    """
    most = max([len(content), *(change.end for change in changes), size or 0])
    data = bytearray(content) + (fill[len(content) : most] if fill else b"")
    data += bytes(most - len(data))
    reached = now = len(content)
    for at, change in enumerate(changes):
        if change.kind != trace.WRITE:
            happened = change.moment <= until if until is not None else at < usual
            before, now = now, change.size if change.kind == trace.RESIZE else max(now, change.size)
            if happened:
                reached = change.size if change.kind == trace.RESIZE else max(reached, change.size)
            if levels or happened:
                for sector in range(min(before, now) // SECTOR, -(-max(before, now) // SECTOR)):
                    if at < levels.get(sector, usual):
                        start, end = (
                            max(min(before, now), sector * SECTOR),
                            min(max(before, now), (sector + 1) * SECTOR),
                        )
                        data[start:end] = bytes(max(0, end - start))
            continue
        now = max(now, change.end)
        first, last = change.start // SECTOR, -(-change.end // SECTOR)
        if not levels and at < usual:
            data[change.start : change.end] = change.data
            reached = max(reached, change.end)
        elif levels:
            for sector in range(first, last):
                if at < levels.get(sector, usual):
                    start, end = max(change.start, sector * SECTOR), min(change.end, (sector + 1) * SECTOR)
                    data[start:end] = change.data[start - change.start : end - change.start]
                    reached = max(reached, end)
    return bytes(data[: reached if size is None else size])
