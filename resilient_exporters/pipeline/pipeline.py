"""Pipeline: records from a reader, through stages, to a writer; resumable to the record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilient_exporters.exporter import Exporter
from resilient_exporters.pipeline import bypass
from resilient_exporters.pipeline.bad_records import CHOICES, BadRecords
from resilient_exporters.pipeline.configuration import SECTIONS, Parts, read
from resilient_exporters.pipeline.errors import ConfigurationError, PipelineError
from resilient_exporters.pipeline.formatters.base import BaseFormatter
from resilient_exporters.pipeline.formatters.json import JsonExportFormatter
from resilient_exporters.pipeline.groupers import BaseGrouper, NoGrouper
from resilient_exporters.pipeline.kept import described, stored
from resilient_exporters.pipeline.metadata import ExportMetadata
from resilient_exporters.pipeline.module import LOGGER, Module
from resilient_exporters.pipeline.notifications import BaseNotifier
from resilient_exporters.pipeline.persistence import BasePersistence, SqlitePersistence, persistence_of
from resilient_exporters.pipeline.readers.base import BaseReader
from resilient_exporters.pipeline.readers.iterable import IterableReader
from resilient_exporters.pipeline.report import PipelineReport
from resilient_exporters.pipeline.run import Run
from resilient_exporters.pipeline.stages import stage_of
from resilient_exporters.pipeline.stats import BaseStatsManager, BasicStatsManager
from resilient_exporters.pipeline.writers.base import BaseWriter
from resilient_exporters.pipeline.writers.exporter_writer import ExporterWriter
from resilient_exporters.units import parse_choice, parse_count

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BasicExporter", "Pipeline"]

_STAGES = ("filter_before", "transform", "filter_after", "grouper")


class Pipeline:
    """One run of records from a reader through stages to a writer.

    After each batch the reader's position, the state of the stages and that of the writer are committed together: a
    run that ends in any way (an exception, a kill, a power cut) and is resumed gives every record once.

    Args:
        reader: a reader, or any iterable of records.
        *stages: filters, transforms, groupers, and plain callables (see ``CallableStage``), in their order.
        writer: a writer, or any exporter or pool.
        formatter: for writers of files; default ``JsonExportFormatter``.
        persistence: where the job's state is kept; default ``SqlitePersistence``, a file in the state folder.
        notifications: who is told of start, end and failure.
        stats_manager: gets the times of each batch; default ``BasicStatsManager``.
        on_bad_record: "fail", "skip" or "dead": what becomes of a record that cannot be read or changed.
        resume: id of a job that was interrupted; it goes on where it was last committed.
        work_dir: directory for buffers; default: in the state folder, beside the jobs.
        threaded: reader, stages and writer in a thread each.
        thread_queue_size: batches that may wait between two of these threads.
        forced_reads: read each batch whole before its records go on.
        prevent_bypass: never copy from source to target past the pipeline.
        stream_bypass: copy whole streams where nothing asks for records, between any two stores.
        disable_retries: readers and writers try once only.
        progress: show a moving line on stderr; None: if that is a terminal and no writer prints there.
        log_level, logger_name: of the log.

    Attributes:
        uri: what ``rexport resume`` takes to go on with the job; empty before it began.

    Raises:
        ConfigurationError: an argument cannot be what was given.

    Example:
        >>> from resilient_exporters.pipeline import Pipeline
        >>> from resilient_exporters.testing import RecordingExporter
        >>> report = Pipeline([{"n": 1}, {"n": 2}], lambda record: record["n"] > 1, writer=RecordingExporter()).run()
        >>> report.written
        1
    """

    def __init__(
        self,
        reader: BaseReader | Iterable[Any],
        *stages: Any,
        writer: BaseWriter | Exporter,
        formatter: BaseFormatter | None = None,
        persistence: BasePersistence | None = None,
        notifications: Sequence[BaseNotifier] = (),
        stats_manager: BaseStatsManager | None = None,
        on_bad_record: str = "fail",
        resume: str | None = None,
        work_dir: str | Path | None = None,
        threaded: bool = False,
        thread_queue_size: int = 100,
        forced_reads: bool = False,
        prevent_bypass: bool = False,
        stream_bypass: bool = False,
        disable_retries: bool = False,
        progress: bool | None = None,
        log_level: str | None = None,
        logger_name: str = LOGGER,
        configuration: Mapping[str, Any] | None = None,
        metadata: ExportMetadata | None = None,
    ) -> None:
        self.metadata = metadata or ExportMetadata()
        self.reader = reader if isinstance(reader, BaseReader) else IterableReader(reader)
        self.stages = [stage_of(stage) for stage in stages]
        if len({id(stage) for stage in self.stages}) < len(self.stages):
            raise ConfigurationError(None, "a stage is there twice: make two of it, each keeps figures and a state")
        self.writer = ExporterWriter(exporter=writer) if isinstance(writer, Exporter) else writer
        _check(self.writer, BaseWriter, "writer", "a writer or an exporter")
        self._formatter_given = formatter is not None
        self.formatter = formatter or JsonExportFormatter()
        _check(self.formatter, BaseFormatter, "formatter", "a formatter")
        self.persistence = persistence or SqlitePersistence()
        _check(self.persistence, BasePersistence, "persistence", "a persistence")
        self.notifications = list(notifications)
        for one in self.notifications:
            _check(one, BaseNotifier, "notifications", "a notifier")
        self.stats_manager = stats_manager or BasicStatsManager()
        self.bad_records = BadRecords(parse_choice(on_bad_record, "on_bad_record", CHOICES))
        self.resume = resume
        self.work_dir = None if work_dir is None else Path(work_dir)
        self.threaded = threaded
        self.thread_queue_size = parse_count(thread_queue_size, "thread_queue_size")
        self.forced_reads = forced_reads
        self.prevent_bypass = prevent_bypass
        self.stream_bypass = stream_bypass
        self.disable_retries = disable_retries
        self.progress = False if progress is None and self.writer.prints else progress
        self.log_level = log_level
        self.logger_name = logger_name
        self._ran = False
        self.uri = ""
        self._name_parts()
        self.configuration = described(self.modules) if configuration is None else stored(configuration, SECTIONS)
        self.metadata.configuration = self.configuration

    def _name_parts(self) -> None:
        seen: set[str] = set()
        for number, stage in enumerate(self.stages):
            if stage.part not in _STAGES or stage.part in seen:
                stage.part = f"stage_{number}"
            seen.add(stage.part)
        for module in self.all_modules:
            module.metadata = self.metadata
            module.bad_records = self.bad_records
            module.use_logger(self.logger_name)

    @property
    def all_modules(self) -> list[Module]:
        """Those that records pass, and the rest."""
        inner = [getattr(self.reader, name, None) for name in ("decompressor", "deserializer")]
        others = [self.persistence, self.stats_manager, *self.notifications]
        return [*self.modules, *(one for one in inner if isinstance(one, Module)), *others]

    @property
    def modules(self) -> list[Module]:
        """Reader, stages, formatter and writer."""
        return [self.reader, *self.stages, self.formatter, self.writer]

    def unused(self) -> list[str]:
        """What was given and changes nothing, because the writer does not look at it; for the log."""
        writer = type(self.writer).__name__
        if isinstance(self.writer, ExporterWriter):
            writer = type(self.writer.exporter).__name__
        lines = [f"{writer} does not use {name}: it changes nothing" for name in self.writer.unused()]
        if self._formatter_given and not self.writer.formats:
            lines.append(f"{writer} takes records as they are: {type(self.formatter).__name__} changes nothing")
        if not self.writer.groups:
            groupers = [one for one in self.stages if isinstance(one, BaseGrouper) and not isinstance(one, NoGrouper)]
            lines += [f"{writer} knows no groups: {type(one).__name__} changes nothing" for one in groupers]
        return lines

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """From a mapping with sections.

        Raises:
            ConfigCheckError: all that is wrong with it.
        """
        metadata = ExportMetadata()
        parts = Parts(configuration, metadata)
        options, modules = parts.options, parts.modules
        made = cls.__new__(cls)
        job = options.read_option("persistence_state_id") if options.read_option("resume") else None
        Pipeline.__init__(
            made,
            modules["reader"],
            *(modules[section] for section in _STAGES if section in modules),
            writer=modules["writer"],
            formatter=modules.get("formatter"),
            persistence=modules.get("persistence"),
            notifications=parts.notifications,
            stats_manager=modules.get("stats_manager"),
            resume=job,
            configuration=configuration,
            metadata=metadata,
            **{
                name: options.read_option(name)
                for name in (
                    "on_bad_record", "work_dir", "threaded", "thread_queue_size", "forced_reads", "prevent_bypass",
                    "stream_bypass", "disable_retries", "log_level", "logger_name",
                )
            },
        )  # fmt: skip
        return made

    @classmethod
    def from_file_configuration(cls, path: str | Path) -> Self:
        """From a JSON or YAML file.

        Raises:
            ConfigurationError: it cannot be read, or used.
        """
        return cls.from_configuration(read(path))

    @classmethod
    def from_persistence_configuration(cls, uri: str, configuration: Mapping[str, Any] | None = None) -> Self:
        """Go on with a stored job, for instance ``sqlite://path.db:JOB``.

        Args:
            uri: as the log and the report of the interrupted run have it.
            configuration: given again, where it holds secrets; they are not kept with the job.

        Raises:
            ConfigurationError: no such URI; or a secret is to be set in the environment.
            StateError: no such job.
        """
        found = persistence_of(uri).configuration_from_uri(uri, configuration=configuration)
        return cls.from_configuration(found)

    def run(self) -> PipelineReport:
        """Run to the end, or until SIGINT or SIGTERM: then up to the next commit.

        Returns:
            What came of it.

        Raises:
            Exception: what went wrong in a module; the job can be resumed.
            PipelineError: it ran already; a pipeline runs once, because its reader is at its end then.
        """
        if self._ran:
            raise PipelineError(None, "this pipeline ran already: make another one, with resume to go on with its job")
        self._ran = True
        return Run(self).go()

    export = run

    def bypass(self) -> bool:
        """Run it, if data can go from source to target as it is; False: nothing was done, as it cannot."""
        if not bypass.possible(self):
            return False
        self.run()
        return True


class BasicExporter(Pipeline):
    """The old system's name: made from a configuration, a mapping."""

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        made = type(self).from_configuration(configuration)
        self.__dict__.update(made.__dict__)


def _check(value: object, kind: type, option: str, right: str) -> None:
    if not isinstance(value, kind):
        raise ConfigurationError(None, f"{option}={value!r:.80} is not {right}")
