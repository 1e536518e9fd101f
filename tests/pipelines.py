"""Modules of a pipeline for tests: a reader of numbers, and a writer that keeps every rule of a resume."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from resilient_exporters.pipeline import BaseRecord
from resilient_exporters.pipeline.filters import BaseFilter
from resilient_exporters.pipeline.groupers import BaseGrouper
from resilient_exporters.pipeline.readers import BaseReader
from resilient_exporters.pipeline.transforms import BaseTransform
from resilient_exporters.pipeline.writers import BaseWriter

__all__ = ["Bomb", "Even", "Grouping", "LinesWriter", "Numbers", "Seen", "Tenfold", "written"]


class Bomb:
    """Goes off at the n-th call, once."""

    def __init__(self, at: int | None = None, error: type[Exception] = OSError) -> None:
        self.left = at
        self.error = error

    def __call__(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                self.left = None
                raise self.error("disk full")


class Numbers(BaseReader):
    """Records ``{"n": 0}``, ``{"n": 1}`` …; the position is one dict that it changes in place."""

    supported_options = {"count": {"type": int, "default": 100}, "batch_size": {"type": int, "default": 10}}

    def __init__(self, *args: Any, bomb: Bomb | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.position = {"last_read": 0}
        self.bomb = bomb or Bomb()

    def get_next_batch(self) -> Iterator[dict[str, Any]]:
        count = self.read_option("count")
        for _ in range(self.read_option("batch_size")):
            if self.position["last_read"] >= count:
                break
            self.bomb()
            yield {"n": self.position["last_read"]}
            self.position["last_read"] += 1
        self.finished = self.position["last_read"] >= count

    def get_last_position(self) -> Any:
        return self.position

    def set_last_position(self, position: Any) -> None:
        self.position = dict(position)


class Even(BaseFilter):
    """Lets even numbers pass."""

    def __init__(self, *args: Any, bomb: Bomb | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bomb = bomb or Bomb()

    def filter(self, item: BaseRecord) -> bool:
        self.bomb()
        return bool(item["n"] % 2 == 0)


class Seen(BaseFilter):
    """Lets each number pass once; the seen ones are a journal."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: set[int] = set()
        self.fresh: list[int] = []

    def filter(self, item: BaseRecord) -> bool:
        if item["n"] in self.seen:
            return False
        self.seen.add(item["n"])
        self.fresh.append(item["n"])
        return True

    def drain_journal(self) -> list[Any]:
        fresh, self.fresh = self.fresh, []
        return fresh

    def replay_journal(self, entries: list[Any]) -> None:
        self.seen.update(entries)


class Tenfold(BaseTransform):
    """Ten times each number."""

    def __init__(self, *args: Any, bomb: Bomb | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bomb = bomb or Bomb()

    def transform_batch(self, batch: Iterable[BaseRecord]) -> Iterator[dict[str, Any]]:
        for record in batch:
            self.bomb()
            record["n"] *= 10
            yield record


class Grouping(BaseGrouper):
    """By the last digit but one."""

    def __init__(self, *args: Any, bomb: Bomb | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bomb = bomb or Bomb()

    def group_batch(self, batch: Iterable[BaseRecord]) -> Iterator[BaseRecord]:
        for record in batch:
            self.bomb()
            record.group_membership = (record["n"] // 10 % 10,)
            yield record


class LinesWriter(BaseWriter):
    """JSON lines in a buffer that is part of the state; it becomes the file ``path`` when all is committed."""

    supported_options = {"path": {"type": str}}

    def __init__(self, *args: Any, bombs: dict[str, Bomb] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bombs = bombs or {}
        self.file: Any = None
        self.plan: str | None = None

    def _bomb(self, place: str) -> None:
        if place in self.bombs:
            self.bombs[place]()

    def _buffer(self) -> Path:
        return self.workplace.path / "buffer"

    def write_record(self, record: BaseRecord) -> None:
        self._bomb("write")
        if self.file is None:
            self.file = self._buffer().open("ab")
        self.file.write(json.dumps(record).encode() + b"\n")

    def prepare(self) -> None:
        self._bomb("prepare")
        if self.file is not None:
            self.file.flush()
            os.fsync(self.file.fileno())

    def flush(self) -> None:
        self._bomb("flush")
        self.plan = self.read_option("path")

    def committed(self) -> None:
        self._bomb("committed")
        if self.plan is not None and self._buffer().exists():
            self._buffer().replace(self.plan)

    def finish_writing(self) -> None:
        self._bomb("finish_writing")

    def get_state(self) -> Any:
        size = self._buffer().stat().st_size if self._buffer().exists() else 0
        return {**super().get_state(), "size": size, "plan": self.plan}

    def set_state(self, state: Any) -> None:
        super().set_state(state)
        self.plan = state["plan"]
        if self._buffer().exists():
            os.truncate(self._buffer(), state["size"])

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def written(path: Path) -> list[int]:
    """The numbers in a file of `LinesWriter`."""
    return [json.loads(line)["n"] for line in path.read_text().splitlines()]
