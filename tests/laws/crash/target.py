"""What a recorded program sends, where it sends it, and the journal that it keeps."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resilient_exporters import Exporter, FileExporter, Reject
from resilient_exporters.delivery.outcome import Batch, Outcome

__all__ = ["Collector", "Journal", "Lines", "content"]


def content(number: int, size: Callable[[int], int]) -> dict[str, Any]:
    """The record with a number: the same in every process, and no two alike."""
    chance = random.Random(number)
    pad = chance.randbytes(size(number) // 2).hex()
    return {"n": number, "value": chance.random(), "text": f"reading {chance.getrandbits(64):x}", "pad": pad}


class Journal:
    """Lines on another disk: what happened, to which record, when, and a word more.

    ``begin`` before a send and ``sent`` after it; ``taken`` or ``refused`` by a target, whose ``next`` batch says that
    the queue noted the one before; ``quiet``: it has noted all; ``let`` go: dropped on purpose; ``wrote``: a
    transaction was on disk; ``saved``: records from an offset on were in it; ``late``: the queue counted it as late.
    """

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def note(self, what: str, number: int = -1, word: str = "-", at: float | None = None) -> None:
        """One line."""
        os.write(self._handle, f"{what} {number} {time.monotonic() if at is None else at!r} {word}\n".encode())


class Collector(Exporter):
    """A target that takes what comes, unless it is away.

    Args:
        size: how many bytes of padding a record has, by its number.
        journal: where it notes what it took, or None.
        rejects: which numbers it refuses.
        **options: those of ``Exporter``.

    Attributes:
        got: number, id, and whether the batch was marked as redelivered.
        altered: numbers of records that are not what was sent.
    """

    def __init__(
        self,
        *,
        size: Callable[[int], int],
        journal: Journal | None,
        rejects: Callable[[int], bool] | None = None,
        **options: Any,
    ) -> None:
        self.size = size
        self.away = False
        self.rejects = rejects or (lambda _: False)
        self.got: list[tuple[int, str, bool]] = []
        self.altered: list[int] = []
        self.journal = journal
        super().__init__(**options)

    def export(self, batch: Batch) -> list[Outcome | None]:
        if self.away:
            raise ConnectionError("no link")
        if self.journal is not None:
            self.journal.note("next", 0, self.name)
        answers: list[Outcome | None] = []
        for record in batch:
            number = record.data["n"]
            if record.data != content(number, self.size):
                self.altered.append(number)
            if self.rejects(number):
                if self.journal is not None:
                    self.journal.note("refused", number)
                answers.append(Reject("poison"))
                continue
            if self.journal is not None:
                self.journal.note("taken", number, f"{self.name}/{record.id}")
            self.got.append((number, record.id, batch.redelivered))
            answers.append(None)
        return answers


class Lines(FileExporter):
    """A file as the target: what it got is what stands in it.

    Args:
        file: which.
        size, journal: as for a ``Collector``.
        **options: those of ``FileExporter``.
    """

    def __init__(self, file: Path, *, size: Callable[[int], int], journal: Journal | None, **options: Any) -> None:
        self.path = file
        self.size = size
        self.away = False
        self.journal = journal
        self._known = 0
        super().__init__(file, fsync="batch", **options)

    def export(self, batch: Batch) -> Any:
        if self.away:
            raise ConnectionError("no link")
        answers = super().export(batch)
        if self.journal is not None:
            for record in batch:
                self.journal.note("taken", record.data["n"], f"{self.name}/{record.id}")
        return answers

    @property
    def altered(self) -> list[int]:
        """Places of lines that are not what was sent."""
        return [at for at, line in enumerate(self._there()) if self._number(line) < 0]

    @property
    def got(self) -> list[tuple[int, str, bool]]:
        """The lines in the file since ``look_on``. They have no ids."""
        return [(self._number(line), "", True) for line in self._there()[self._known :]]

    def look_on(self) -> None:
        """What is in the file now is known."""
        self._known = len(self._there())

    def _there(self) -> list[bytes]:
        return self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []

    def _number(self, line: bytes) -> int:
        try:
            number = int(json.loads(line)["n"])
        except (ValueError, KeyError, TypeError):
            return -1
        return number if line == json.dumps(content(number, self.size), separators=(",", ":")).encode() + b"\n" else -1
