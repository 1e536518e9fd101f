"""Persistences in the old style, which know a position only: the state of all modules goes into it."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from resilient_exporters.errors import EncodingError
from resilient_exporters.pipeline.bad_records import BadRecord
from resilient_exporters.pipeline.checkpoint import Checkpoint, Job, packed, plain_figures, unpacked
from resilient_exporters.pipeline.errors import StateError
from resilient_exporters.pipeline.persistence import BasePersistence

__all__ = ["AnyPersistence", "OldPersistence", "adapted"]

_STATE: Final = "pipeline_state"
_WRITER: Final = "writer_metadata"


class OldPersistence:
    """A persistence that defines ``generate_new_job``, ``get_last_position`` and ``commit_position`` only.

    What it gets as position is a mapping: the keys of the reader's own position, ``writer_metadata``, and a text that
    holds the rest. Its ``commit_position`` must write all of it or nothing.

    Args:
        inner: the persistence.
    """

    def __init__(self, inner: BasePersistence) -> None:
        self._inner = inner
        self._kept: dict[str, Any] = {"journals": {}, "dead": []}

    @property
    def job(self) -> str:
        """Id of the job."""
        return str(self._inner.job or getattr(self._inner, "persistence_state_id", None) or "")

    @job.setter
    def job(self, job: str) -> None:
        self._inner.job = job
        self._inner.persistence_state_id = job  # type: ignore[attr-defined] # the old name, which old classes read

    @property
    def uri(self) -> str:
        """What stands for the job in log lines: only the class knows how it is resumed."""
        return f"exporter_options resume and persistence_state_id={self.job!r} ({type(self._inner).__name__})"

    def generate_new_job(self, configuration: Mapping[str, Any]) -> str:
        """Make a job."""
        make: Any = self._inner.generate_new_job
        made = make(configuration) if inspect.signature(make).parameters else make()
        self.job = str(made or self.job or "job")
        self._kept["configuration"] = dict(configuration)
        return self.job

    def load(self, job: str) -> Job:
        """What was kept."""
        self.job = job
        kept = self._inner.get_last_position()
        if not kept:
            raise StateError(None, f"{type(self._inner).__name__} knows nothing of a job {job}")
        if not isinstance(kept, Mapping) or _STATE not in kept:
            return Job(id=job, last_committed=0.0, position=_without_writer(kept), figures=_of_writer(kept))
        try:
            self._kept = unpacked(base64.b64decode(kept[_STATE]))
        except (ValueError, EncodingError, TypeError, KeyError) as error:
            raise StateError(None, f"the state of job {job} is damaged: {error}") from error
        return Job(
            id=job, last_committed=0.0, configuration=self._kept["configuration"], position=self._kept["position"],
            figures=self._kept["figures"], dead=len(self._kept["dead"]),
        )  # fmt: skip

    def claim(self, job: str) -> None:
        """Nothing: such a persistence cannot tell who else goes on with the job."""

    def states(self, job: str) -> dict[str, Any]:  # noqa: ARG002 - there is one job
        """Of the modules, by part."""
        return dict(self._kept.get("states", {}))

    def journal(self, job: str, part: str) -> Iterator[list[Any]]:  # noqa: ARG002 - as above
        """Of a module."""
        if self._kept["journals"].get(part):
            yield self._kept["journals"][part]

    def dead(self, job: str) -> list[BadRecord]:  # noqa: ARG002 - as above
        """The records that were put aside."""
        return [BadRecord(*one) for one in self._kept["dead"]]

    def commit(self, checkpoint: Checkpoint) -> None:
        """Commit all of it as one position."""
        kept = self._kept
        kept.update(position=checkpoint.position, figures=plain_figures(checkpoint.figures))
        kept["states"] = {**kept.get("states", {}), **checkpoint.states}
        for part, entries in checkpoint.journals.items():
            kept["journals"].setdefault(part, []).extend(entries)
        kept["dead"] += [[bad.data, bad.reason, bad.where, bad.part] for bad in checkpoint.dead]
        own = checkpoint.position if isinstance(checkpoint.position, Mapping) else {"position": checkpoint.position}
        self._inner.commit_position(
            {
                **own,
                _WRITER: dict(kept["figures"].get("writer", {})),
                _STATE: base64.b64encode(packed(kept) or b"").decode(),
            }
        )

    def finish(self) -> None:
        """The job is done: an old persistence says so in ``close``."""

    def close(self) -> None:
        """Close it."""
        self._inner.close()


AnyPersistence: TypeAlias = BasePersistence | OldPersistence


def adapted(persistence: BasePersistence) -> AnyPersistence:
    """A persistence as a run uses it."""
    return OldPersistence(persistence) if type(persistence).url is BasePersistence.url else persistence


def _without_writer(kept: Any) -> Any:
    return {key: value for key, value in kept.items() if key != _WRITER} if isinstance(kept, Mapping) else kept


def _of_writer(kept: Any) -> dict[str, Any]:
    return {"writer": dict(kept.get(_WRITER) or {})} if isinstance(kept, Mapping) else {}
