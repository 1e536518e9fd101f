"""The stages between reader and writer: modules and plain callables, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from resilient_exporters.pipeline.errors import BadRecordError, ConfigurationError, ItemsLimitReached, PipelineError
from resilient_exporters.pipeline.filters.base import BaseFilter
from resilient_exporters.pipeline.groupers.base import BaseGrouper
from resilient_exporters.pipeline.module import Module
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.transforms.base import BaseTransform

__all__ = ["CallableStage", "Step", "as_records", "stage_of", "step_of"]

Step = Callable[[Iterable[BaseRecord]], Iterable[BaseRecord]]


class CallableStage(BaseTransform):
    """A plain callable as a stage: it gets a record and returns one (the same or another), or whether it passes.

    False leaves the record out; None is an error, because it is what a function forgets to return. An exception
    makes the record a bad one.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def transform_batch(self, batch: Iterable[BaseRecord]) -> Iterator[dict[str, Any]]:
        """The records that the callable returns."""
        function = self.function
        for record in batch:
            try:
                found = function(record)
            except (BadRecordError, ItemsLimitReached):
                raise
            except Exception as error:  # noqa: BLE001 - the user's function; on_bad_record decides
                self.bad_records.add(record, error, part=self.part)
                continue
            if found is True:
                yield record
            elif isinstance(found, dict):
                yield found
            elif isinstance(found, Mapping):
                yield dict(found)
            elif found is not False:
                self.bad_records.add(
                    record,
                    f"{_name(function)} returned {found!r:.60}: return a record, or True or False",
                    part=self.part,
                )

    def __repr__(self) -> str:
        return f"CallableStage({_name(self.function)})"


def stage_of(given: Any) -> Module:
    """A stage as a module.

    Raises:
        ConfigurationError: it is neither a filter, a transform nor a grouper, nor callable.
    """
    if isinstance(given, (BaseFilter, BaseTransform, BaseGrouper)):
        return given
    if callable(given) and not isinstance(given, (type, Module)):
        return CallableStage(given)
    raise ConfigurationError(None, f"stage {given!r:.80}: give a filter, transform, grouper or a callable")


def step_of(stage: Module) -> Step:
    """What a stage does to a batch."""
    if isinstance(stage, BaseFilter):
        return stage.filter_batch
    if isinstance(stage, BaseGrouper):
        return stage.group_batch
    assert isinstance(stage, BaseTransform)  # noqa: S101 - stage_of lets nothing else through
    transform = stage.transform_batch
    return lambda batch: as_records(transform(batch), stage)


def as_records(batch: Iterable[dict[str, Any]], giver: Module) -> Iterator[BaseRecord]:
    """Plain dicts as records; records stay what they are, and keep their group.

    Raises:
        PipelineError: a module gave something else, which is a defect of that module.
    """
    if batch is None:
        raise PipelineError(None, f"{type(giver).__name__} gave None for a batch: give a list or a generator")
    for record in batch:
        if type(record) is dict:  # the usual one first: this runs for each record
            yield BaseRecord(record)
        elif isinstance(record, BaseRecord):
            yield record
        elif isinstance(record, Mapping):
            yield BaseRecord(record)
        else:
            raise PipelineError(None, f"{type(giver).__name__} gave {record!r:.60}: records are mappings")


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or type(function).__name__
