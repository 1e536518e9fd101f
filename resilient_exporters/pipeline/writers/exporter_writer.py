"""Any exporter, or a pool, as the writer of a pipeline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from resilient_exporters.exporter import Exporter
from resilient_exporters.pipeline.catalogue import find
from resilient_exporters.pipeline.errors import ConfigurationError, PipelineError
from resilient_exporters.pipeline.metadata import ExportMetadata
from resilient_exporters.pipeline.option import Option, resolved
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.writers.base import BaseWriter

__all__ = ["ExporterWriter"]

_CHUNK = 500


class ExporterWriter(BaseWriter):
    """Hands records to an exporter, which delivers them in its own time.

    A batch is committed once its records are in the exporter's durable queue, not when they are delivered. A resume
    after a crash asks the queue how many records it took since the last commit, and leaves out as many: each record is
    there once, if nobody else sends to this exporter and the source gives the same records again. After a reboot
    (with a queue that was never on disk, because all was delivered) that cannot be told: then the last batch may come
    twice, which ids do not absorb, and the log says so.

    Args:
        exporter: an exporter or pool; or a section ``{"name": …, "options": {…}}``; a pool's ``exporters`` is a list of
            sections.
        config, metadata: as of every module.
        **options: ``items_limit``, ``save_timeout``, ``close_timeout``.
    """

    supported_options = {
        "exporter": Option(type=(Exporter, dict), help="An exporter, a pool, or a section that names one."),
        "save_timeout": Option(type=float, default=60.0, help="Seconds that a commit waits for the queue's disk."),
        "close_timeout": Option(
            type=float, default=5.0, help="Seconds at the end in which to deliver what waits; the rest stays queued."
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

    def write_batch(self, batch: Iterable[BaseRecord]) -> None:
        """Queue records. Waits where the queue is full and ``on_full`` is "block", its default here."""
        chunk: list[dict[str, Any]] = []
        try:
            for record in self.counted(batch):
                if self._skip:
                    self._skip -= 1  # the queue has it already
                    continue
                chunk.append(record)
                if len(chunk) == _CHUNK:
                    full, chunk = chunk, []
                    self.exporter.send(full)
        finally:
            if chunk:
                self.exporter.send(chunk)

    def prepare(self) -> None:
        """Wait until all of it is durable."""
        if not self.exporter.save(self.read_option("save_timeout")):
            trouble = self.exporter.stats().disk_trouble or "its disk did not answer in time"
            raise PipelineError(None, f"the queue of {self.exporter.name} cannot be saved: {trouble}")
        self._mark = self.exporter.mark()

    def get_state(self) -> Any:
        """Where the queue stands."""
        return {**super().get_state(), "mark": self._mark, "skip": self._skip}

    def set_state(self, state: Any) -> None:
        """See what the queue took after the last commit."""
        super().set_state(state)
        self._skip = state["skip"]
        if state["mark"] is not None:
            more = self.exporter.accepted_since(state["mark"])
            if more is None:
                self.logger.warning(
                    "the queue of %s was begun anew: what it took after the last commit comes again", self.exporter.name
                )
            self._skip += more or 0

    def begin(self) -> None:
        """Note where the queue stands before the first batch."""
        self._mark = self.exporter.mark()

    def finish_writing(self) -> None:
        """Deliver what the targets take; the rest stays in the queue and is counted."""
        report = self.exporter.flush(self.read_option("close_timeout"))
        self.update_metadata({"delivered": report.delivered, "pending": report.pending, "dead": report.dead})

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
        options["exporters"] = [made(one) for one in options["exporters"]]
    try:
        return cls(**options)
    except TypeError as error:
        raise ConfigurationError(None, f"{cls.__name__}: {error}") from error
