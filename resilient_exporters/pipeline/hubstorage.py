"""A collection of Scrapy Cloud's storage (Hubstorage), through its own client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.pipeline.asking import ask
from resilient_exporters.pipeline.errors import ConfigurationError, PipelineError
from resilient_exporters.pipeline.option import Option

__all__ = ["API_KEY", "ENDPOINT", "MOST_BYTES", "Collection", "packed"]

_T = TypeVar("_T")
MOST_BYTES: Final = 1 << 20
"""Largest record that a collection takes, as JSON."""
_POST_BYTES: Final = 4 << 20
_POST_RECORDS: Final = 1000
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})

API_KEY: Final = Option(type=str, env_fallback="EXPORTERS_HS_APIKEY", secret=True, help="Key of Scrapy Cloud's API.")
ENDPOINT: Final = Option(type=str, default=None, help="Address of the storage API; default: the client's.")


class Collection:
    """One collection of a project. Connects when it is first asked something.

    Args:
        owner: of whom an error speaks.
        project, name: of the collection.
        apikey: of the account.
        endpoint: address of the API, or None.
        stopping: whether the run is asked to stop.

    Raises:
        MissingModuleError: the client is not installed.
        ConfigurationError: there is no such name.
    """

    def __init__(
        self,
        owner: str,
        project: int | str,
        name: str,
        apikey: str,
        endpoint: str | None,
        stopping: Callable[[], bool] = bool,
    ) -> None:
        try:
            from scrapinghub import HubstorageClient
        except ModuleNotFoundError as error:
            raise MissingModuleError(
                None, f"{owner} needs {error.name}: pip install 'resilient-exporters[hubstorage]'"
            ) from error
        if not str(project).isdigit():
            raise ConfigurationError(None, f"project_id={project!r}: give the number of the project")
        if not name.replace("_", "").isalnum():
            raise ConfigurationError(None, f"collection_name={name!r}: give letters, digits and _ only")
        self._client: Any = HubstorageClient(apikey, endpoint=endpoint, max_retries=0, use_msgpack=False)
        self._collections: Any = self._client.get_project(str(project)).collections
        self._name = name
        self._where = f"collection {name} of project {project}"
        self._stopping = stopping

    def get(self, **parameters: Any) -> list[dict[str, Any]]:
        """The records that the API gives for these parameters, each with its ``_key``.

        Raises:
            PipelineError: it gives none.
            StopAsked: the run is to stop.
        """
        wanted = {name: value for name, value in parameters.items() if value not in (None, [], "")}
        return self._ask(
            "reading",
            lambda: list(self._collections.apiget(("s", self._name), params={**wanted, "meta": ["_key"]})),
        )

    def set(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Store records under their ``_key``. To do so again does no harm.

        Raises:
            PipelineError: it takes them not.
        """
        for part in _parts(records):
            self._ask("writing", lambda part=part: list(self._collections.set("s", self._name, part)))  # type: ignore[misc] # each its own part

    def _ask(self, what: str, question: Callable[[], _T]) -> _T:
        return ask(question, f"{what} {self._where}", passing=_passing, reason=_reason, stopping=self._stopping)

    def close(self) -> None:
        """Close connections."""
        self._client.session.close()


def packed(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A record as a collection keeps it: what JSON knows, under a key.

    Raises:
        ValueError: it is too large, or JSON cannot hold it.
    """
    try:
        text = json.dumps({**record, "_key": key}, default=_plain, ensure_ascii=False)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"JSON cannot hold it: {error}") from error
    if len(text.encode()) > MOST_BYTES:
        raise ValueError(f"{len(text.encode())} bytes as JSON: a collection takes {MOST_BYTES}")
    found: dict[str, Any] = json.loads(text)
    return found


def _plain(value: Any) -> Any:
    isoformat = getattr(value, "isoformat", None)
    if isoformat is not None:
        return isoformat()
    return list(value) if isinstance(value, (set, frozenset)) else str(value)


def _parts(records: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    part: list[Mapping[str, Any]] = []
    size = 0
    for record in records:
        length = len(json.dumps(record))
        if part and (len(part) == _POST_RECORDS or size + length > _POST_BYTES):
            yield part
            part, size = [], 0
        part.append(record)
        size += length
    if part:
        yield part


def _status(error: Exception) -> int | None:
    found = getattr(getattr(error, "response", None), "status_code", None)
    return found if isinstance(found, int) else None


def _passing(error: Exception) -> bool:
    """A broken connection, an answer that was cut off, or a server that has too much to do."""
    status = _status(error)
    if status is not None:
        return status in _PASSING
    return isinstance(error, (OSError, ValueError)) and not isinstance(error, PipelineError)


def _reason(error: Exception) -> str:
    text = getattr(getattr(error, "response", None), "text", "") or str(error)
    return " ".join(f"{type(error).__name__} {_status(error) or ''}: {text}".split())[:500]
