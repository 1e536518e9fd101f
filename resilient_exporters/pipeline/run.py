"""One run of a pipeline: how it begins, commits and ends."""

from __future__ import annotations

import contextlib
import inspect
import logging
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from resilient_exporters.pipeline import bypass, retries
from resilient_exporters.pipeline.batches import Batch, Batches
from resilient_exporters.pipeline.checkpoint import Checkpoint
from resilient_exporters.pipeline.errors import ItemsLimitReached, StateError
from resilient_exporters.pipeline.kept import compare
from resilient_exporters.pipeline.module import LOGGER
from resilient_exporters.pipeline.notifications import CLIENTS, TEAM
from resilient_exporters.pipeline.old_persistence import adapted
from resilient_exporters.pipeline.progress import Progress
from resilient_exporters.pipeline.report import PipelineReport
from resilient_exporters.pipeline.secrets import Curtain
from resilient_exporters.pipeline.workplace import Workplace, workplace_of

if TYPE_CHECKING:
    from resilient_exporters.pipeline.pipeline import Pipeline

__all__ = ["Run"]


class Run:
    """One run of a pipeline.

    Args:
        pipeline: what is to be run.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._reader, self._writer = pipeline.reader, pipeline.writer
        self._persistence = adapted(pipeline.persistence)
        self._log = logging.getLogger(pipeline.logger_name)
        self._curtain = Curtain(text for module in pipeline.all_modules for text in module.secrets())
        self._stop = threading.Event()
        self._source = Batches(pipeline, self._stop)
        self._batches = 0
        self._uri = ""
        self._open = True
        self._progress = Progress(self._log, pipeline.reader, terminal=pipeline.progress)

    def go(self) -> PipelineReport:
        """Run to the end, or to the next commit after SIGINT or SIGTERM."""
        pipeline = self._pipeline
        pipeline.metadata.start_time = time.time()
        complete = bypassed = False
        with self._logging(), self._signals(), retries.disabled(pipeline.disable_retries):
            try:
                self._begin()
                self._notify("notify_start_dump", (CLIENTS, TEAM))
                way = bypass.chosen(pipeline, self._persistence, self._stop.is_set)
                bypassed = way is not None
                complete = self._write_all() if way is None else self._take(way)
                if complete:
                    self._finish(bypassed)
            except retries.Stopped:
                complete = False  # it waited for a source or target that is away: the last commit holds
            except BaseException as error:
                self._fail(error)
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
            read=self._source.read,
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
        if resume is None:
            persistence.generate_new_job(pipeline.configuration)
        else:
            persistence.load(resume)  # there is one: else no directory is made for it
            persistence.job = resume
        self._uri = pipeline.uri = persistence.uri
        self._writer.workplace = Workplace(workplace_of(persistence.job, pipeline.work_dir))
        self._writer.workplace.take()
        self._writer.formatter = pipeline.formatter
        for line in pipeline.unused():
            self._log.warning("EXPORTMANAGER: %s", line)
        if resume is None or not self._restore(resume):
            self._writer.begin()
            self._commit(self._source.checkpoint())

    def _restore(self, job: str) -> bool:
        """Go on with a job, now that nobody else can. False: it had not begun."""
        kept = self._persistence.load(job)
        if kept.finished:
            self._uri = self._pipeline.uri = ""
            self._writer.workplace.remove()  # a kill at the very end may have left it
            raise StateError(None, f"job {job} has run to its end: there is nothing to resume")
        compare(kept.configuration, self._pipeline.configuration, job)
        self._persistence.claim(job)
        if kept.last_committed is None:
            return False
        for part, figures in kept.figures.items():
            self._pipeline.metadata.of(part).update(figures)
        states = self._persistence.states(job)
        for module in self._pipeline.modules:
            for entries in self._persistence.journal(job, module.part):
                module.replay_journal(entries)
            if module.part in states:
                module.set_state(states[module.part])
        self._reader.set_last_position(kept.position)
        self._log.info("EXPORTMANAGER: job %s goes on at %.300r", job, kept.position)
        return True

    def _finish(self, bypassed: bool) -> None:
        if not bypassed:
            self._writer.finish_writing()
        self._persistence.finish()
        self._writer.workplace.remove()
        self._pipeline.metadata.end_time = time.time()
        self._stats("final_report")
        self._shut(self._persistence)
        self._open = False
        self._notify("notify_complete_dump", (CLIENTS, TEAM))

    def _fail(self, error: BaseException) -> None:
        self._pipeline.metadata.end_time = time.time()
        self._log.error(
            "EXPORTMANAGER: the run failed: %r; %s",
            error,
            f"resume with {self._uri}" if self._uri else "there is nothing to resume",
        )
        hide = self._curtain.hide
        self._notify("notify_failed_job", (TEAM,), hide(str(error)), hide(traceback.format_exc()))

    def _close(self) -> None:
        """Close all of it; what fails in doing so is said, and stops none of the rest."""
        pipeline = self._pipeline
        pipeline.metadata.end_time = pipeline.metadata.end_time or time.time()
        self._progress.close(self._source.read, self._writer.items_count)
        for module in (*pipeline.modules, pipeline.stats_manager, *pipeline.notifications):
            self._shut(module)
        if self._open:
            self._shut(self._persistence)
        self._writer.workplace.release()

    def _shut(self, module: Any) -> None:
        try:
            module.close()
        except Exception as error:  # noqa: BLE001 - the run has ended: the rest is to be closed all the same
            self._log.error("EXPORTMANAGER: closing %s: %s", type(module).__name__, error)

    # -- surroundings --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _logging(self) -> Iterator[None]:
        """Loggers as the run wants them, and no secret in a line of theirs."""
        loggers = {logging.getLogger(name) for name in (self._pipeline.logger_name, LOGGER)}
        levels = {logger: logger.level for logger in loggers}
        for logger in loggers:
            logger.addFilter(self._curtain)
            if self._pipeline.log_level is not None:
                logger.setLevel(self._pipeline.log_level)
        try:
            yield
        finally:
            for logger, level in levels.items():
                logger.removeFilter(self._curtain)
                logger.setLevel(level)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM asks to stop at the next commit, a second one does what it always does."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[signal.Signals, Any] = {}

        def restore() -> None:
            for each, handler in before.items():
                signal.signal(each, signal.SIG_DFL if handler is None else handler)

        def ask(number: int, _: Any) -> None:
            self._stop.set()
            retries.stop_waiting()
            restore()
            self._log.warning("EXPORTMANAGER: %s: stopping at the next commit", signal.Signals(number).name)

        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, ask)
        try:
            yield
        finally:
            restore()
            retries.stop_waiting(False)

    @staticmethod
    def _take(way: Any) -> bool:
        """Take a way past the pipeline. False: asked to stop."""
        try:
            return way.execute() is not False
        finally:
            way.close()

    # -- batches and commits -------------------------------------------------------------------------------------

    def _write_all(self) -> bool:
        """Write all batches. False: asked to stop."""
        ended = False
        with contextlib.closing(self._source.take()) as source:
            try:
                for batch in source:
                    ended = self._write(batch)
                    if ended or self._stop.is_set():
                        break
            except ItemsLimitReached as limit:  # of the reader, before it gave a record
                self._log.info("EXPORTMANAGER: %s", limit)
                ended = True
        if not ended:
            if not self._reader.is_finished():
                return False
            if self._stop.is_set() and self._pipeline.threaded:
                return False  # what the reader read ahead was not written
        self._writer.flush()
        self._commit(self._source.checkpoint())
        self._commit(self._source.checkpoint())  # what went out with the first one is done: it is not done again
        return True

    def _write(self, batch: Batch) -> bool:
        """Write and commit one batch. True: the limit of the run is reached."""
        limit: ItemsLimitReached | None = None
        try:
            self._writer.write_batch(batch.records)
        except ItemsLimitReached as reached:
            limit = reached
        batch.drop()
        limit = limit or batch.limit
        batch.times["written"] = time.time()
        self._commit(batch.checkpoint or self._source.checkpoint())
        batch.times["persisted"] = time.time()
        self._batches += 1
        self._stats("iteration_report", batch.times)
        self._progress.update(self._source.read, self._writer.items_count)
        if limit is not None:
            self._log.info("EXPORTMANAGER: %s", limit)
        return limit is not None

    def _commit(self, checkpoint: Checkpoint) -> None:
        self._writer.prepare()
        for module in (self._pipeline.formatter, self._writer):
            self._source.add(checkpoint, module)
        late = {self._writer.part, self._pipeline.formatter.part}
        checkpoint.dead += self._pipeline.bad_records.drain(of=late)
        self._persistence.commit(checkpoint)
        self._writer.committed()
        self._reader.committed(checkpoint.position)

    # -- others --------------------------------------------------------------------------------------------------

    def _notify(self, event: str, receivers: tuple[int, ...], *args: str) -> None:
        for notifier in self._pipeline.notifications:
            try:
                getattr(notifier, event)(*args, receivers=receivers, info=self._pipeline.metadata.to_dict())
            except (Exception, retries.Stopped) as error:  # noqa: BLE001 - whoever is told must not be able to end the run
                self._log.error("EXPORTMANAGER: %s could not be told: %s", type(notifier).__name__, error)

    def _stats(self, event: str, *args: Any) -> None:
        """Say figures: as the old documents have it with the aggregated ones too, as the old code had it without."""
        try:
            method = getattr(self._pipeline.stats_manager, event)
            if len(inspect.signature(method).parameters) > len(args):
                args = (*args, self._pipeline.metadata.to_dict())
            method(*args)
        except Exception as error:  # noqa: BLE001 - figures must not be able to end the run
            self._log.error("STATS MANAGER: %s", error)
