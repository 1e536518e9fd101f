"""What every bypass is."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import urlsplit

import msgspec

from resilient_exporters.errors import ResilientExporterException
from resilient_exporters.pipeline.catalogue import find
from resilient_exporters.pipeline.checkpoint import Checkpoint
from resilient_exporters.pipeline.errors import RequisitesNotMet

if TYPE_CHECKING:
    from resilient_exporters.pipeline.pipeline import Pipeline

__all__ = ["BaseBypass", "Copied", "class_of"]

_NEUTRAL: Final = {
    "filter": "NoFilter", "filter_before": "NoFilter", "transform": "NoTransform", "filter_after": "NoFilter",
    "grouper": "NoGrouper",
}  # fmt: skip
_LIMITS: Final = ("items_limit", "items_per_buffer_write", "size_per_buffer_write")
_BUFFER: Final = "WriteBuffer"
_CONVERTING: Final = ("decompressor", "deserializer")
_OTHERS: Final = ("reader", "writer", "persistence", "stats_manager", "exporter_options", "formatter")


class Copied(msgspec.Struct, frozen=True):
    """What was copied.

    Attributes:
        size: bytes.
        records: in it; None: nobody knows.
    """

    size: int
    records: int | None = None


class BaseBypass:
    """Copies what the reader would read to where the writer would write, as it is, one stream after the other.

    What is to be copied, and under which names, is planned and committed before the first copy, and each copy is
    committed: a resume goes on with the next one. A copy that was under way is made again, under the same name.

    A subclass writes ``check`` and ``copy``. The old forms do, too: ``meets_conditions(config)`` that returns a bool or
    raises ``RequisitesNotMet``, and ``execute`` or ``bypass``.

    Args:
        pipeline: that is bypassed.
        persistence: of its job.
        stopping: whether to stop before the next copy.
    """

    part: ClassVar[str] = "bypass"

    def __init__(self, pipeline: Pipeline, persistence: Any, stopping: Callable[[], bool] = lambda: False) -> None:
        self.pipeline = pipeline
        self.reader: Any = pipeline.reader
        self.writer: Any = pipeline.writer
        self.metadata = pipeline.metadata
        self._persistence = persistence
        self._stopping = stopping
        self._files = 0
        self._records = 0
        self._bytes = 0
        self._known = True

    # -- conditions ----------------------------------------------------------------------------------------------

    @classmethod
    def meets_conditions(cls, config: Mapping[str, Any]) -> bool:
        """Whether it can be taken with a configuration."""
        try:
            cls.check(config)
        except RequisitesNotMet:
            return False
        return True

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> None:
        """See whether nothing in a configuration asks for records to be looked at.

        Raises:
            RequisitesNotMet: something does, and what it is.
        """
        options = config.get("exporter_options") or {}
        if options.get("prevent_bypass"):
            raise RequisitesNotMet(None, "prevent_bypass is set")
        for section, given in config.items():
            if not given or section in _OTHERS:
                continue
            name = _name(given)
            if section in _CONVERTING or name != _NEUTRAL.get(section):
                raise RequisitesNotMet(None, f"{section}: {name} has to see the records")
        formatter = options.get("formatter") or config.get("formatter")
        if formatter and (_name(formatter) != "JsonExportFormatter" or formatter.get("options")):
            raise RequisitesNotMet(None, f"formatter: {_name(formatter)} has to see the records")
        writer = (config.get("writer") or {}).get("options") or {}
        for name in _LIMITS:
            if writer.get(name):
                raise RequisitesNotMet(None, f"writer: {name} counts records")
        if str(writer.get("write_buffer") or _BUFFER).rpartition(".")[2] != _BUFFER:
            raise RequisitesNotMet(None, f"writer: {writer['write_buffer']} has to see the records")
        if writer.get("generate_md5"):
            raise RequisitesNotMet(None, "writer: generate_md5 has to see what is written")
        if "{groups" in str(writer.get("filebase", "")):
            raise RequisitesNotMet(None, "writer: filebase has groups")

    # -- copying -------------------------------------------------------------------------------------------------

    def copy(self, name: str, target: str) -> Copied:
        """Copy one stream, under a name that the plan fixed; called again for the same one after a crash."""
        raise NotImplementedError(f"{type(self).__name__} must define copy(name, target)")

    def complete(self) -> None:
        """All is copied: say so at the target."""

    def bypass(self) -> bool:
        """Copy all. False: asked to stop, and not done."""
        self.metadata.bypassed_pipeline = True
        plan, done = self._plan()
        for number, (name, target) in enumerate(plan):
            if number in done:
                continue
            if self._stopping():
                return False
            copied = self.copy(name, target)
            self._count(copied)
            self._commit(journal=[[number, copied.size, copied.records]])
        self.complete()
        return True

    def execute(self) -> bool:
        """The same, by its other name."""
        return self.bypass()

    def close(self) -> None:
        """Clean up."""

    # -- state ---------------------------------------------------------------------------------------------------

    def _plan(self) -> tuple[list[tuple[str, str]], set[int]]:
        job = self._persistence.job
        kept = self._persistence.states(job).get(self.part)
        if kept is None:
            plan = planned(self.reader.get_read_streams())
            self._commit(state={"bypass": type(self).__name__, "plan": plan})
            return plan, set()
        done = set()
        for entries in self._persistence.journal(job, self.part):
            for number, size, records in entries:
                done.add(number)
                self._count(Copied(size, records))
        return [(name, target) for name, target in kept["plan"]], done

    def _count(self, copied: Copied) -> None:
        self._bytes += copied.size
        self._records += copied.records or 0
        self._known = self._known and copied.records is not None
        self.metadata.accurate_items_count = self._known
        self._files += 1
        self.metadata.of(self.part).update({"files": self._files, "bytes_copied": self._bytes})
        if self._known:
            self.writer.items_count = self._records
            self.writer.set_metadata("items_count", self._records)

    def _commit(self, state: Any = None, journal: list[Any] | None = None) -> None:
        self._persistence.commit(
            Checkpoint(
                states={} if state is None else {self.part: state},
                journals={} if journal is None else {self.part: journal},
                figures=dict(self.metadata.modules),
            )
        )


def planned(names: Iterable[str]) -> list[tuple[str, str]]:
    """Streams and the names of their copies: the last part of each; more of it where two would have the same."""
    streams = list(names)
    paths = [urlsplit(name).path if "://" in name else name for name in streams]
    last = [posixpath.basename(path) for path in paths]
    if len(set(last)) == len(last):
        return list(zip(streams, last, strict=True))
    common = posixpath.commonpath([posixpath.dirname(posixpath.join("/", path)) for path in paths])
    return [
        (name, posixpath.relpath(posixpath.join("/", path), common)) for name, path in zip(streams, paths, strict=True)
    ]


def class_of(config: Mapping[str, Any], section: str) -> type | None:
    """The class of a section; None: there is none of this name."""
    given = config.get(section)
    made = given.get("class") if isinstance(given, Mapping) else None
    if isinstance(made, type):
        return made  # the pipeline was made in code
    try:
        return find(section, given.get("name") if isinstance(given, Mapping) else None)
    except ResilientExporterException:
        return None


def _name(given: Any) -> str:
    name = given.get("name") if isinstance(given, Mapping) else given
    return str(name).rpartition(".")[2]
