"""The queue of an exporter as a source: what waits in it, or its dead letters."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from resilient_exporters.delivery.deadletters import DeadLetter, Letter
from resilient_exporters.delivery.inspection import Inspection, WaitingRecord
from resilient_exporters.delivery.interval import IntervalSet
from resilient_exporters.delivery.maintenance import Maintenance
from resilient_exporters.errors import EncodingError, QueueLockedError
from resilient_exporters.pipeline.errors import ConfigurationError, PipelineError
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.readers.base import BaseReader
from resilient_exporters.units import parse_count

__all__ = ["QueueReader"]


def _counting(value: int) -> int:
    return parse_count(value, "batch_size")


class QueueReader(BaseReader):
    """Reads what waits in the directory of an exporter's or a pool's queue, or its dead letters, and leaves it there.

    The directory may be in use: then it is read as it is at one moment. With ``discard``, dead letters are discarded
    once they are committed; that needs a directory that no program holds, and counts them as discarded there. The
    position is the ids that were given, as ranges.
    """

    supported_options = {
        "directory": Option(type=(str, Path), help="Directory of the queue; rexport queue ls shows those there are."),
        "what": Option(type=str, default="pending", choices=("pending", "dead"), help="What waits, or dead letters."),
        "target": Option(
            type=str, default=None, help="Only what concerns this target; default: all, each record once."
        ),
        "discard": Option(type=bool, default=False, help="Discard dead letters once they are committed."),
        "value_field": Option(
            type=str, default="value", help="A record that is no mapping becomes one with this one field."
        ),
        "about_field": Option(
            type=str, default="", help='Field for id, targets, reason, attempts and time; "": no such field.'
        ),
        "batch_size": Option(type=int, default=1000, check=_counting, help="Records in a batch."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._directory = Path(self.read_option("directory"))
        self._dead: bool = self.read_option("what") == "dead"
        self._target: str | None = self.read_option("target")
        self._discard: bool = self.read_option("discard")
        if self._discard and not self._dead:
            raise ConfigurationError(
                None, 'discard=True is for what="dead": what waits is its exporter\'s to deliver. '
                "To give it up: rexport queue discard --pending"
            )  # fmt: skip
        self._size: int = self.read_option("batch_size")
        self._given = _Given()
        self._inspection: Inspection | None = None
        self._waiting: Iterator[WaitingRecord] = iter(())
        self._left: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._changing = threading.Lock()  # a threaded run looks and discards in two threads

    def get_next_batch(self) -> Iterator[dict[str, Any]]:
        """The next records."""
        return self._next_letters() if self._dead else self._next_waiting()

    # -- what waits ------------------------------------------------------------------------------------------------

    def _next_waiting(self) -> Iterator[dict[str, Any]]:
        if self._inspection is None:
            self._inspection = self._looked()
            self._waiting = self._inspection.records(self._target)
        number = 0
        for record in self._waiting:
            if self._given.add("", record.id):
                number += 1
                yield self._record(record.data, record)
                if number == self._size:
                    return
        self.finished = True
        if self._inspection.unreadable and not self._inspection.live:
            for _ in range(self._inspection.unreadable):
                self.bad_records.add(None, "it is damaged: see rexport queue verify", part=self.part, where=self._where)

    # -- dead letters ----------------------------------------------------------------------------------------------

    def _next_letters(self) -> Iterator[dict[str, Any]]:
        """Looks anew for each batch: what was discarded meanwhile is gone from the rows."""
        number = 0
        with self._changing, self._looked() as found:
            if self._discard and found.live:
                raise PipelineError(None, f"discard=True: {self._where} is in use by {found.holder}: stop that first")
            letters = [one for one in found.picture.letters() if self._target in (None, one.target)]
        for letter in letters:
            fresh = self._given.add(letter.target, letter.id)
            if self._discard:
                with self._lock:
                    self._left.append((letter.target, letter.id))
            if not fresh:
                continue  # given before an interruption, and not discarded yet
            number += 1
            record = self._opened(letter)
            if record is not None:
                yield record
            if number == self._size:
                return
        self.finished = True

    def _opened(self, letter: Letter) -> dict[str, Any] | None:
        try:
            opened = letter.open()
        except EncodingError as error:
            self.bad_records.add(letter.payload, error, part=self.part, where=f"{self._where}, record {letter.id}")
            return None
        return self._record(opened.data, opened)

    def committed(self, position: Any) -> None:
        """Discard the dead letters up to this position."""
        given = _Given(position)
        with self._lock:
            done = {one for one in self._left if one in given}
            self._left = [one for one in self._left if one not in done]
        if not done:
            return
        try:
            with self._changing, Maintenance(self._directory) as queue:
                for target in {target for target, _ in done}:
                    queue.discard_letters(ids={name for of, name in done if of == target}, target=target)
        except (QueueLockedError, OSError) as error:
            raise PipelineError(
                None, f"dead letters of {self._where} are written and committed, and cannot be discarded: {error}. "
                "A resume does that"
            ) from error  # fmt: skip

    # -- both ------------------------------------------------------------------------------------------------------

    @property
    def _where(self) -> str:
        return f"the queue {self._directory}"

    def _looked(self) -> Inspection:
        try:
            found = Inspection(self._directory)
        except OSError as error:
            raise PipelineError(None, str(error)) from error
        if self._target is not None and self._target not in found.targets:
            names = ", ".join(found.targets)
            found.close()
            raise PipelineError(None, f"target={self._target!r}: {self._where} knows {names or 'none'}")
        return found

    def _record(self, data: Any, about: WaitingRecord | DeadLetter) -> dict[str, Any]:
        record = dict(data) if isinstance(data, Mapping) else {self.read_option("value_field"): data}
        field = self.read_option("about_field")
        if field:
            record[field] = {"id": about.id, "options": dict(about.options)}
            if isinstance(about, WaitingRecord):
                record[field]["targets"] = list(about.targets)
            else:
                more = {"reason": about.reason, "attempts": about.attempts, "time": about.time}
                record[field].update(more, targets=[about.target])
        return record

    def get_last_position(self) -> Any:
        """The ids that were given, by target and run."""
        return self._given.plain()

    def set_last_position(self, position: Any) -> None:
        """Leave these out."""
        self._given = _Given(position)

    def close(self) -> None:
        """Let go of the files."""
        self._waiting = iter(())
        if self._inspection is not None:
            self._inspection.close()
            self._inspection = None


class _Given:
    """Ids of records (a run and an offset), by a name, as ranges.

    Args:
        plain: as ``plain`` gave it, or None.
    """

    def __init__(self, plain: Any = None) -> None:
        self._sets = {
            name: {run: IntervalSet((start, stop) for start, stop in ranges) for run, ranges in runs.items()}
            for name, runs in (plain or {}).items()
        }

    def add(self, name: str, record: str) -> bool:
        """Put one in. False: it is there already."""
        if (name, record) in self:
            return False
        run, _, offset = record.rpartition("-")
        self._sets.setdefault(name, {}).setdefault(run, IntervalSet()).add(int(offset), int(offset) + 1)
        return True

    def __contains__(self, one: tuple[str, str]) -> bool:
        name, record = one
        run, _, offset = record.rpartition("-")
        found = self._sets.get(name, {}).get(run)
        return found is not None and int(offset) in found

    def plain(self) -> dict[str, dict[str, list[list[int]]]]:
        return {
            name: {run: [[start, stop] for start, stop in ranges] for run, ranges in runs.items()}
            for name, runs in self._sets.items()
        }
