"""What every transform is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from resilient_exporters.pipeline.errors import ItemsLimitReached
from resilient_exporters.pipeline.module import Module
from resilient_exporters.pipeline.record import BaseRecord

__all__ = ["BaseRecordTransform", "BaseTransform"]


class BaseTransform(Module):
    """Changes records, leaves some out, or makes several of one. A subclass writes ``transform_batch``."""

    family = "transform"

    def transform_batch(self, batch: Iterable[BaseRecord]) -> Iterable[dict[str, Any]]:
        """The changed records, one by one as they are asked for: a generator."""
        raise NotImplementedError(f"{type(self).__name__} must define transform_batch(batch)")


class BaseRecordTransform(BaseTransform):
    """Makes records of one record. A subclass writes ``transform``; where it raises, the record is a bad one.

    Attributes:
        dropped: records of which nothing was made, in this run; the figure ``dropped`` holds them, too.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dropped = 0

    def transform(self, item: BaseRecord) -> Iterable[dict[str, Any]]:
        """What becomes of a record: one, a list or generator of several, or None."""
        raise NotImplementedError(f"{type(self).__name__} must define transform(item)")

    def transform_batch(self, batch: Iterable[BaseRecord]) -> Iterator[dict[str, Any]]:
        """The changed records, one by one as they are asked for."""
        transform = self.transform
        try:
            for record in batch:
                try:
                    found = _made(transform(record))
                except ItemsLimitReached:
                    raise
                except Exception as error:  # noqa: BLE001 - a record that cannot be changed; on_bad_record decides
                    self.bad_records.add(record, error, part=self.part)
                    continue
                if found:
                    yield from found
                else:
                    self.dropped += 1
        finally:
            self.set_metadata("dropped", self.dropped)

    def get_state(self) -> Any:
        """How many were dropped."""
        return self.dropped

    def set_state(self, state: Any) -> None:
        """Go on counting."""
        self.dropped = state


def _made(found: Any) -> Iterable[dict[str, Any]]:
    """What a transform returned, all of it: a generator raises only now."""
    if found is None:
        return ()
    if isinstance(found, Mapping):
        return (found,)  # type: ignore[return-value]  # the pipeline makes a record of any mapping
    made = found if isinstance(found, (list, tuple)) else list(found)
    for one in made:
        if not isinstance(one, Mapping):
            raise TypeError(f"it gave {one!r:.60}: give records, which are mappings")
    return made
