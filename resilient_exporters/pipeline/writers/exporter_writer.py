"""Any exporter, or a pool, as the writer of a pipeline."""

from __future__ import annotations

import hashlib
import inspect
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from resilient_exporters.delivery.directory import make_directory, state_root
from resilient_exporters.errors import EncodingError, TransformError
from resilient_exporters.exporter import Exporter
from resilient_exporters.pipeline.catalogue import find
from resilient_exporters.pipeline.errors import ConfigurationError, PipelineError
from resilient_exporters.pipeline.metadata import ExportMetadata
from resilient_exporters.pipeline.option import Option, resolved
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.writers.base import BaseWriter
from resilient_exporters.units import parse_seconds

__all__ = ["ExporterWriter"]

_CHUNK = 500
_GIVEN = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class ExporterWriter(BaseWriter):
    """Hands records to an exporter, which delivers them in its own time.

    A batch is committed once its records are in the exporter's durable queue, not when they are delivered. A resume
    after a kill asks the queue how many records it took since the last commit, and leaves out as many: each record is
    there once, if no other program sends to the same queue and the source gives the same records again. Give each
    pipeline an exporter of its own ``name`` (or ``directory``); if another pipeline has used the queue meanwhile, that
    is noticed, and nothing is left out.

    A power cut loses nothing that is committed: it is on disk, or with its targets. But what was accepted after the
    last commit, and delivered without ever being on disk, is known to nobody after a reboot: it comes again, under new
    ids. That is one batch at most (with ``threaded``, too: only one is written at a time). Where the whole queue is
    gone, which is what a queue without a disk is after a reboot, the log says so.

    A full queue holds the run up (``on_full="block"``, the default of exporters that are made from a section); where an
    exporter is told to drop instead, the log warns, and the figure ``dropped`` says how many by reason.

    Args:
        exporter: an exporter or pool; or a section ``{"name": …, "options": {…}}``; a pool's ``exporters`` is a list of
            sections.
        config, metadata: as of every module.
        **options: ``items_limit``, ``save_timeout``, ``close_timeout``.
    """

    formats = groups = False
    supported_options = {
        "exporter": Option(type=(Exporter, dict), help="An exporter, a pool, or a section that names one."),
        "save_timeout": Option(
            type=float, default=60.0, check=lambda value: parse_seconds(value, "save_timeout"),
            help="Seconds that a commit waits for the queue's disk.",
        ),
        "close_timeout": Option(
            type=float, default=5.0, check=lambda value: parse_seconds(value, "close_timeout"),
            help="Seconds at the end in which to deliver what waits; the rest stays queued."
        ),
    }

    def __init__(
        self, config: Mapping[str, Any] | None = None, metadata: ExportMetadata | None = None, **options: Any
    ) -> None:
        super().__init__(config, metadata, **options)
        given = self.read_option("exporter")
        self._own = not isinstance(given, Exporter)
        self.exporter: Exporter = given if isinstance(given, Exporter) else made(given)
        self._mark: str | None = None
        self._skip = 0
        self._user = uuid.uuid4().hex
        self._before: dict[str, int] = {}

    def write_batch(self, batch: Iterable[BaseRecord]) -> None:
        """Queue records. Waits where the queue is full and ``on_full`` is "block", its default here."""
        chunk: list[dict[str, Any]] = []
        try:
            for record in self.counted(batch):
                if self._skip:
                    self._skip -= self._can_be_kept(record)  # the queue has it already, if it could be kept
                    continue
                chunk.append(record)
                if len(chunk) == _CHUNK:
                    full, chunk = chunk, []
                    self._send(full)
        finally:
            if chunk:
                self._send(chunk)

    def _send(self, chunk: list[dict[str, Any]]) -> None:
        try:
            self.exporter.send(chunk)
        except (EncodingError, TransformError):  # none of it is queued
            for record in chunk:
                try:
                    self.exporter.send(record)
                except (EncodingError, TransformError) as error:
                    self._refuse(record, error)

    def _can_be_kept(self, record: dict[str, Any]) -> bool:
        try:
            self.exporter._encode(record, {}, "record")
        except (EncodingError, TransformError) as error:
            self._refuse(record, error)
            return False
        return True

    def _refuse(self, record: dict[str, Any], error: Exception) -> None:
        self.bad_records.add(record, error, part=self.part)
        self.items_count -= 1
        self.set_metadata("items_count", self.items_count)

    def prepare(self) -> None:
        """Wait until all of it is durable."""
        if not self.exporter.save(self.read_option("save_timeout")):
            trouble = self.exporter.stats().disk_trouble or "its disk did not answer in time"
            raise PipelineError(None, f"the queue of {self.exporter.name} cannot be saved: {trouble}")
        self._mark = self.exporter.mark()

    def get_state(self) -> Any:
        """Where the queue stands."""
        return {
            **super().get_state(), "mark": self._mark, "skip": self._skip, "user": self._user, "before": self._before,
        }  # fmt: skip

    def set_state(self, state: Any) -> None:
        """See what the queue took after the last commit."""
        super().set_state(state)
        self._skip, self._user, self._before = state["skip"], state["user"], state["before"]
        if state["mark"] is None:
            return
        more = self.exporter.accepted_since(state["mark"])
        why = "was begun anew" if more is None else None
        if self._last_user() != self._user:
            more, why = None, "was used by another pipeline since"
        if why is not None:
            self.logger.warning("the queue of %s %s: what it took after the last commit comes again", self._name, why)
        self._skip += more or 0
        self._claim()

    def begin(self) -> None:
        """Note where the queue stands before the first batch."""
        self._mark = self.exporter.mark()
        self._before = self._dropped()
        self._claim()
        if self.exporter._settings.on_full.startswith("drop"):
            self.logger.warning("%s drops records when its queue is full: on_full='block' would wait", self._name)

    @property
    def _name(self) -> str:
        return self.exporter.name

    def _note(self) -> Path | None:
        """Where the pipeline that used the queue last is noted: its counts mean nothing to any other."""
        directory = self.exporter.directory
        if directory is None:
            return None
        place = state_root() / "pipelines" / "queues"
        return place / hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:24]

    def _claim(self) -> None:
        path = self._note()
        if path is not None and self._last_user() != self._user:  # else a kill just here would blot it out
            make_directory(path.parent)
            path.write_text(self._user, encoding="ascii")

    def _last_user(self) -> str | None:
        path = self._note()
        try:
            return self._user if path is None else path.read_text(encoding="ascii")
        except FileNotFoundError:
            return None

    def _dropped(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for target in self.exporter.stats().targets.values():
            for reason, number in target.dropped.items():
                found[reason] = found.get(reason, 0) + number
        return found

    def finish_writing(self) -> None:
        """Deliver what the targets take; the rest stays in the queue and is counted."""
        report = self.exporter.flush(self.read_option("close_timeout"))
        dropped = {reason: number - self._before.get(reason, 0) for reason, number in self._dropped().items()}
        self.update_metadata({
            "delivered": report.delivered, "pending": report.pending, "dead": report.dead,
            "dropped": {reason: number for reason, number in dropped.items() if number},
        })  # fmt: skip

    def close(self) -> None:
        """Close an exporter that was made here."""
        if self._own:
            self.exporter.close(0)


def made(section: Any) -> Exporter:
    """An exporter from a section.

    Raises:
        ConfigurationError: it names none, or its options cannot be.
    """
    if not isinstance(section, Mapping) or set(section) - {"name", "options"}:
        raise ConfigurationError(None, f'exporter={section!r:.80}: give {{"name": …, "options": {{…}}}}')
    cls = find("writer", section.get("name"))
    if not issubclass(cls, Exporter):
        raise ConfigurationError(None, f"{section.get('name')} is no exporter")
    options = {name: resolved(value, name) for name, value in (section.get("options") or {}).items()}
    options.setdefault("on_full", "block")
    if "exporters" in options:
        if not isinstance(options["exporters"], list):
            raise ConfigurationError(None, f"exporters={options['exporters']!r:.80}: give a list of sections")
        options["exporters"] = [made(one) for one in options["exporters"]]
    parameters = inspect.signature(cls).parameters.values()
    needed = [one.name for one in parameters if one.default is one.empty and one.kind in _GIVEN]
    if missing := [name for name in needed if name not in options]:
        raise ConfigurationError(None, f"{cls.__name__}: Option {', '.join(missing)} is missing")
    try:
        return cls(**options)
    except TypeError as error:
        raise ConfigurationError(None, f"{cls.__name__}: {error}") from error
