"""The batches of a run on their way from the reader through the stages, in one thread or in three."""

from __future__ import annotations

import contextlib
import copy
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from resilient_exporters.pipeline.checkpoint import Checkpoint
from resilient_exporters.pipeline.errors import ItemsLimitReached
from resilient_exporters.pipeline.module import Module
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.stages import Step, as_records, step_of

if TYPE_CHECKING:
    from resilient_exporters.pipeline.pipeline import Pipeline

__all__ = ["Batch", "Batches"]

_PATIENCE: Final = 10.0  # seconds that threads have to end
_LOOK: Final = 0.1  # seconds between two looks at whether the other threads still live
_TIMES: Final = {
    "filter_before": "filtered", "transform": "transformed", "filter_after": "filtered_after", "grouper": "grouped",
}  # fmt: skip


class Batch(msgspec.Struct):
    """A batch, with what is committed once it is written.

    Attributes:
        records: a generator, unless it was read whole.
        times: seconds since the epoch at which each step was done.
        checkpoint: where reader and stages stood after it; None: where they stand once it is written.
        limit: the reader or a stage said that this is the last one.
    """

    records: Iterable[BaseRecord]
    times: dict[str, float]
    checkpoint: Checkpoint | None = None
    limit: ItemsLimitReached | None = None

    def drop(self) -> None:
        """Let go of the generators: those that were not asked for the end count what they gave."""
        close = getattr(self.records, "close", None)
        if close is not None:
            close()


class Batches:
    """The batches of one run.

    Args:
        pipeline: that is run.
        stop: set when there is to be no further batch.

    Attributes:
        read: how many records the reader gave in this run.
    """

    def __init__(self, pipeline: Pipeline, stop: threading.Event) -> None:
        self._pipeline = pipeline
        self._reader = pipeline.reader
        self._stop = stop
        self._abort = threading.Event()
        self._reader.stopping = lambda: self._stop.is_set() or self._abort.is_set()
        self._steps = _steps(pipeline)
        self._threaded = pipeline.threaded
        self._stage_parts = {stage.part for stage in pipeline.stages}
        self._late_parts = {module.part for module in (pipeline.writer, pipeline.formatter)}
        self.read = 0

    def take(self) -> Generator[Batch, None, None]:
        """One after the other; each is to be written and committed before the next is asked for.

        With ``threaded`` a thread reads, a second one takes batches through the stages, and the caller's thread
        writes. What goes wrong in one of them is raised here.
        """
        return self._from_threads() if self._threaded else self._direct()

    def checkpoint(self) -> Checkpoint:
        """Where reader and stages stand now."""
        found = self._of_reader()
        self._add_stages(found)
        return found

    def _direct(self) -> Generator[Batch, None, None]:
        while not self._stop.is_set() and not self._reader.is_finished():
            batch = self._next()
            batch.records = self._staged(batch)
            yield batch
            batch.drop()

    def _next(self) -> Batch:
        times = {"started": time.time()}
        records: Iterable[BaseRecord] = self._counted(as_records(self._reader.get_next_batch(), self._reader))
        batch = Batch(records, times)
        if self._threaded or self._pipeline.forced_reads:
            _take_whole(batch)
        times["read"] = time.time()
        return batch

    def _staged(self, batch: Batch) -> Iterable[BaseRecord]:
        records = batch.records
        for name, step in self._steps:
            if step is not None:
                records = step(records)
            batch.times[name] = time.time()
        return records

    def _counted(self, batch: Iterable[BaseRecord]) -> Iterator[BaseRecord]:
        number = 0
        try:
            for record in batch:
                number += 1
                yield record
        finally:
            self.read += number
            figures = self._reader.get_all_metadata()
            figures["read_items"] = figures.get("read_items", 0) + number

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def _of_reader(self) -> Checkpoint:
        found = Checkpoint(position=self._own(self._reader.get_last_position()))
        self.add(found, self._reader)
        found.dead = self._pipeline.bad_records.drain(but=self._stage_parts | self._late_parts)
        return found

    def _add_stages(self, checkpoint: Checkpoint) -> None:
        for stage in self._pipeline.stages:
            self.add(checkpoint, stage)
        checkpoint.dead += self._pipeline.bad_records.drain(of=self._stage_parts)

    def add(self, checkpoint: Checkpoint, module: Module) -> None:
        """Add where a module stands."""
        state = module.get_state()
        if state is not None:
            checkpoint.states[module.part] = self._own(state)
        entries = module.drain_journal()
        if entries:
            checkpoint.journals[module.part] = entries
        checkpoint.figures[module.part] = self._own(dict(module.get_all_metadata()))

    def _own(self, value: Any) -> Any:
        """What another thread does not change before it is committed."""
        return copy.deepcopy(value) if self._threaded else value

    # -- threads -------------------------------------------------------------------------------------------------

    def _from_threads(self) -> Generator[Batch, None, None]:
        size = self._pipeline.thread_queue_size
        read: queue.Queue[Any] = queue.Queue(size)
        staged: queue.Queue[Any] = queue.Queue(size)
        threads = [
            threading.Thread(target=self._work, args=(self._read_on, read), name="pipeline-reader", daemon=True),
            threading.Thread(
                target=self._work, args=(lambda: self._stage_on(read), staged), name="pipeline-stages", daemon=True
            ),
        ]
        for thread in threads:
            thread.start()
        try:
            yield from self._taken(staged)
        finally:
            self._abort.set()
            until = time.monotonic() + _PATIENCE
            for thread in threads:
                thread.join(max(until - time.monotonic(), 0.0))
                if thread.is_alive():  # what went wrong elsewhere is to be said, whatever this one waits for
                    self._reader.logger.error("%s does not end: it waits for something; it is left behind", thread.name)

    def _work(self, function: Callable[[], Iterator[Batch]], target: queue.Queue[Any]) -> None:
        try:
            for batch in function():
                self._put(target, batch)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that writes
            self._put(target, error)
        else:
            self._put(target, None)

    def _read_on(self) -> Iterator[Batch]:
        while not self._stop.is_set() and not self._abort.is_set() and not self._reader.is_finished():
            batch = self._next()
            batch.checkpoint = self._of_reader()
            yield batch
            if batch.limit is not None:
                return

    def _stage_on(self, source: queue.Queue[Any]) -> Iterator[Batch]:
        for batch in self._taken(source):
            batch.records = self._staged(batch)
            _take_whole(batch)
            assert batch.checkpoint is not None  # noqa: S101 - the reading thread made it
            self._add_stages(batch.checkpoint)
            yield batch

    def _put(self, target: queue.Queue[Any], what: object) -> None:
        while not self._abort.is_set():
            with contextlib.suppress(queue.Full):
                target.put(what, timeout=_LOOK)
                return

    def _taken(self, source: queue.Queue[Any]) -> Iterator[Batch]:
        while not self._abort.is_set():
            try:
                what = source.get(timeout=_LOOK)
            except queue.Empty:
                continue
            if what is None:
                return
            if isinstance(what, BaseException):
                raise what
            yield what


def _steps(pipeline: Pipeline) -> list[tuple[str, Step | None]]:
    """The stages by the names of their times; those of a configuration are all there, as the old system had them."""
    steps: dict[str, Step] = {stage.part: step_of(stage) for stage in pipeline.stages}
    order = list(_TIMES)
    if [part for part in order if part in steps] == list(steps):
        return [(name, steps.get(part)) for part, name in _TIMES.items()]
    return [(_TIMES.get(part, part), step) for part, step in steps.items()]


def _take_whole(batch: Batch) -> None:
    """Make a list of the records; what came before a limit is kept."""
    found: list[BaseRecord] = []
    try:
        for record in batch.records:
            found.append(record)  # noqa: PERF402 - one by one: what came before an exception stays
    except ItemsLimitReached as limit:
        batch.limit = batch.limit or limit
    batch.records = found
