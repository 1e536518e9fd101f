"""One run of a pipeline: batches, commits, and how it ends."""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import threading
import time
import traceback
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from resilient_exporters.delivery.directory import state_root
from resilient_exporters.pipeline import bypass, retries
from resilient_exporters.pipeline.checkpoint import Checkpoint
from resilient_exporters.pipeline.errors import ItemsLimitReached, StateError
from resilient_exporters.pipeline.module import Module
from resilient_exporters.pipeline.notifications import CLIENTS, TEAM
from resilient_exporters.pipeline.progress import Progress
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.report import PipelineReport
from resilient_exporters.pipeline.stages import as_records, step_of
from resilient_exporters.pipeline.workplace import Workplace

if TYPE_CHECKING:
    from resilient_exporters.pipeline.pipeline import Pipeline

__all__ = ["Run"]

_LOOK: Final = 0.1  # seconds between two looks at whether the other threads still live
_TIMES: Final = {
    "filter_before": "filtered", "transform": "transformed", "filter_after": "filtered_after", "grouper": "grouped",
}  # fmt: skip


class _Batch(msgspec.Struct):
    """A batch between two threads of a run, with what is committed once it is written."""

    records: Iterable[BaseRecord]
    checkpoint: Checkpoint
    times: dict[str, float]


class Run:
    """One run of a pipeline.

    Args:
        pipeline: what is to be run.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._reader, self._writer = pipeline.reader, pipeline.writer
        self._persistence = pipeline.persistence
        self._steps = [(stage.part, step_of(stage)) for stage in pipeline.stages]
        self._log = logging.getLogger(pipeline.logger_name)
        self._stop = threading.Event()
        self._abort = threading.Event()
        self._reader.stopping = lambda: self._stop.is_set() or self._abort.is_set()
        self._read = 0
        self._batches = 0
        self._uri = ""
        self._position: Any = None
        self._progress = Progress(self._log)

    def go(self) -> PipelineReport:
        """Run to the end, or to the next commit after SIGINT or SIGTERM."""
        pipeline = self._pipeline
        if pipeline.log_level is not None:
            self._log.setLevel(pipeline.log_level)
        pipeline.metadata.start_time = time.time()
        complete = bypassed = False
        try:
            with self._signals(), retries.disabled(pipeline.disable_retries):
                self._begin()
                self._notify("notify_start_dump", (CLIENTS, TEAM))
                bypassed = bypass.take(pipeline)
                complete = bypassed or self._write_all()
                if complete:
                    self._finish(bypassed)
        except BaseException as error:
            self._log.error(
                "EXPORTMANAGER: the run failed: %r; resume with %s", error, self._uri or "nothing: it never began"
            )
            self._notify("notify_failed_job", (TEAM,), str(error), traceback.format_exc())
            raise
        finally:
            self._close()
        if not complete:
            self._log.warning("EXPORTMANAGER: stopped; resume with %s", self._uri)
        return self._report(complete, bypassed)

    def _report(self, complete: bool, bypassed: bool) -> PipelineReport:
        metadata = self._pipeline.metadata
        return PipelineReport(
            job=self._persistence.job,
            uri=self._uri,
            read=self._read,
            written=metadata.of(self._writer.part).get("items_count", 0),
            bad=dict(self._pipeline.bad_records.count),
            batches=self._batches,
            seconds=metadata.elapsed_time,
            complete=complete,
            bypassed=bypassed,
            figures=metadata.modules,
        )

    # -- begin and end -------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        pipeline, persistence = self._pipeline, self._persistence
        resume = pipeline.resume
        if resume is not None:
            job = persistence.store.load(resume)
            if job.finished:
                raise StateError(None, f"job {resume} has run to its end: there is nothing to resume")
            _compare(job.configuration, pipeline.configuration, resume)
            persistence.job = resume
        else:
            persistence.generate_new_job(pipeline.configuration)
        self._uri = persistence.uri
        place = pipeline.work_dir or state_root() / "pipelines" / "work"
        self._writer.workplace = Workplace(place / persistence.job)
        self._writer.workplace.take()
        self._writer.formatter = pipeline.formatter
        states = {} if resume is None else persistence.store.states(resume)
        if states:
            assert resume is not None  # noqa: S101 - else there are no states
            self._restore(resume, states)
        else:
            self._writer.begin()
            self._commit(self._checkpoint())

    def _restore(self, job: str, states: dict[str, Any]) -> None:
        kept = self._persistence.store.load(job)
        for part, figures in kept.figures.items():
            self._pipeline.metadata.of(part).update(figures)
        for module in self._pipeline.modules:
            for entries in self._persistence.store.journal(job, module.part):
                module.replay_journal(entries)
            if module.part in states:
                module.set_state(states[module.part])
        self._reader.set_last_position(kept.position)
        self._position = kept.position
        self._log.info("EXPORTMANAGER: job %s goes on at %.300r", job, kept.position)

    def _finish(self, bypassed: bool) -> None:
        if not bypassed:
            self._writer.finish_writing()
        self._persistence.finish()
        self._writer.workplace.remove()
        self._pipeline.metadata.end_time = time.time()
        self._stats("final_report")
        self._notify("notify_complete_dump", (CLIENTS, TEAM))

    def _close(self) -> None:
        """Close all of it; what fails in doing so is said, and stops none of the rest."""
        pipeline = self._pipeline
        pipeline.metadata.end_time = pipeline.metadata.end_time or time.time()
        self._progress.close()
        for module in (*pipeline.modules, pipeline.stats_manager, *pipeline.notifications, self._persistence):
            try:
                module.close()
            except Exception as error:  # noqa: BLE001 - the run has ended: the rest is to be closed all the same
                self._log.error("EXPORTMANAGER: closing %s: %s", type(module).__name__, error)
        self._writer.workplace.release()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM asks to stop at the next commit, a second one does what it always does."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[signal.Signals, Any] = {}

        def ask(number: int, _: Any) -> None:
            self._log.warning("EXPORTMANAGER: %s: stopping at the next commit", signal.Signals(number).name)
            self._stop.set()
            for each, handler in before.items():
                signal.signal(each, handler)

        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # -- batches -------------------------------------------------------------------------------------------------

    def _write_all(self) -> bool:
        """Write all batches. False: asked to stop."""
        source = self._threaded() if self._pipeline.threaded else self._direct()
        ended = False
        with contextlib.closing(source):
            for batch in source:
                ended = self._write(batch)
                if ended or self._stop.is_set():
                    break
        if not ended and not self._reader.is_finished():
            return False
        if self._stop.is_set() and not ended and self._pipeline.threaded:
            return False  # what the reader read ahead was not written
        self._writer.flush()
        self._commit(self._checkpoint())
        self._commit(self._checkpoint())  # what went out with the first one is done: it is not done again
        return True

    def _write(self, batch: _Batch) -> bool:
        """Write and commit one batch. True: the limit of the run is reached."""
        ended = False
        try:
            self._writer.write_batch(batch.records)
        except ItemsLimitReached as limit:
            self._log.info("EXPORTMANAGER: %s", limit)
            ended = True
        batch.times["written"] = time.time()
        if not self._pipeline.threaded:
            batch.checkpoint = self._checkpoint()
        self._commit(batch.checkpoint)
        batch.times["persisted"] = time.time()
        self._batches += 1
        self._stats("iteration_report", batch.times)
        self._progress.update(self._read, self._writer.items_count)
        return ended

    def _direct(self) -> Generator[_Batch, None, None]:
        while not self._stop.is_set() and not self._reader.is_finished():
            batch = self._next()
            batch.records = self._staged(batch)
            yield batch

    def _next(self) -> _Batch:
        times = {"started": time.time()}
        records: Iterable[BaseRecord] = self._counted(as_records(self._reader.get_next_batch()))
        if self._pipeline.forced_reads or self._pipeline.threaded:
            records = list(records)
        times["read"] = time.time()
        return _Batch(records, Checkpoint(), times)

    def _staged(self, batch: _Batch) -> Iterable[BaseRecord]:
        records = batch.records
        for part, step in self._steps:
            records = step(records)
            batch.times[_TIMES.get(part, part)] = time.time()
        return records

    def _counted(self, batch: Iterable[BaseRecord]) -> Iterator[BaseRecord]:
        number = 0
        try:
            for record in batch:
                number += 1
                yield record
        finally:
            self._read += number
            figures = self._pipeline.metadata.of(self._reader.part)
            figures["read_items"] = figures.get("read_items", 0) + number

    # -- commits -------------------------------------------------------------------------------------------------

    def _checkpoint(self) -> Checkpoint:
        """Where reader and stages stand, once a batch has passed them."""
        checkpoint = Checkpoint(position=self._reader.get_last_position(), states={}, journals={})
        self._add(checkpoint, self._reader)
        for stage in self._pipeline.stages:
            self._add(checkpoint, stage)
        return checkpoint

    @staticmethod
    def _add(checkpoint: Checkpoint, module: Module) -> None:
        state = module.get_state()
        if state is not None:
            checkpoint.states[module.part] = state
        entries = module.drain_journal()
        if entries:
            checkpoint.journals[module.part] = entries

    def _commit(self, checkpoint: Checkpoint) -> None:
        self._writer.prepare()
        self._add(checkpoint, self._writer)
        checkpoint.dead = self._pipeline.bad_records.drain()
        checkpoint.figures = self._pipeline.metadata.modules
        self._persistence.commit(checkpoint)
        self._position = checkpoint.position
        self._writer.committed()
        self._reader.committed(checkpoint.position)

    # -- threads -------------------------------------------------------------------------------------------------

    def _threaded(self) -> Generator[_Batch, None, None]:
        """Batches that a reader thread reads and a second one takes through the stages; the caller's thread writes."""
        size = self._pipeline.thread_queue_size
        read: queue.Queue[Any] = queue.Queue(size)
        staged: queue.Queue[Any] = queue.Queue(size)
        threads = [
            threading.Thread(target=self._work, args=(self._read_on, None, read), name="pipeline-reader", daemon=True),
            threading.Thread(
                target=self._work, args=(self._stage_on, read, staged), name="pipeline-stages", daemon=True
            ),
        ]
        for thread in threads:
            thread.start()
        try:
            yield from self._taken(staged)
        finally:
            self._abort.set()
            for thread in threads:
                thread.join()

    def _work(self, function: Any, source: queue.Queue[Any] | None, target: queue.Queue[Any]) -> None:
        try:
            for batch in function(source):
                self._put(target, batch)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that writes
            self._put(target, error)
        else:
            self._put(target, None)

    def _read_on(self, _: object) -> Iterator[_Batch]:
        while not self._stop.is_set() and not self._abort.is_set() and not self._reader.is_finished():
            batch = self._next()
            batch.checkpoint = Checkpoint(position=self._reader.get_last_position(), states={}, journals={})
            self._add(batch.checkpoint, self._reader)
            yield batch

    def _stage_on(self, source: queue.Queue[Any]) -> Iterator[_Batch]:
        for batch in self._taken(source):
            batch.records = list(self._staged(batch))
            for stage in self._pipeline.stages:
                self._add(batch.checkpoint, stage)
            yield batch

    def _put(self, target: queue.Queue[Any], what: object) -> None:
        while not self._abort.is_set():
            with contextlib.suppress(queue.Full):
                target.put(what, timeout=_LOOK)
                return

    def _taken(self, source: queue.Queue[Any]) -> Iterator[_Batch]:
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

    # -- others --------------------------------------------------------------------------------------------------

    def _notify(self, event: str, receivers: tuple[int, ...], *args: str) -> None:
        for notifier in self._pipeline.notifications:
            try:
                getattr(notifier, event)(*args, receivers=receivers, info=self._pipeline.metadata.to_dict())
            except Exception as error:  # noqa: BLE001 - whoever is told must not be able to end the run
                self._log.error("EXPORTMANAGER: %s could not be told: %s", type(notifier).__name__, error)

    def _stats(self, event: str, *args: Any) -> None:
        try:
            getattr(self._pipeline.stats_manager, event)(*args)
        except Exception as error:  # noqa: BLE001 - figures must not be able to end the run
            self._log.error("STATS MANAGER: %s", error)


def _compare(kept: dict[str, Any], given: dict[str, Any], job: str) -> None:
    """Whether a job was begun with this configuration: else its positions and buffers mean something else.

    Raises:
        StateError: with the first difference.
    """
    for section in sorted({*kept, *given} - {"exporter_options", "persistence", "stats_manager"}):
        before, now = _plain(kept.get(section)), _plain(given.get(section))
        if before == now:
            continue
        differing = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        raise StateError(
            None,
            f"job {job} was begun with another configuration: {section}: "
            + "; ".join(f"{name} was {before.get(name)!r:.60}, now is {now.get(name)!r:.60}" for name in differing[:3]),
        )


def _plain(section: Any) -> dict[str, Any]:
    """Name and options of a section, as JSON keeps them, without what is secret."""
    if not isinstance(section, dict):
        return {}
    options = section.get("options") or {}
    shown = {
        name: msgspec.json.decode(msgspec.json.encode(value, enc_hook=str))
        for name, value in options.items()
        if not (isinstance(value, dict) and set(value) in ({"env"}, {"secret"}))
    }
    return {"name": str(section.get("name")).rpartition(".")[2], **shown}
