"""The shards of Elasticsearch indices, a page at a time. Imports elasticsearch."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from elastic_transport import TlsError, TransportError
from elasticsearch import ApiError, Elasticsearch

from resilient_exporters.exporters import elasticsearch_errors
from resilient_exporters.pipeline.errors import ConfigurationError, PipelineError

__all__ = ["Shards", "client_for", "passing", "reason"]

_LAST: Final = (1 << 63) - 1


class Shards:
    """Reads one shard after the other, each in the order of its sequence numbers.

    Args:
        client: of Elasticsearch.
        index: names or patterns.
        query: what documents must meet, or None.
        fields: what is wanted of them; empty: all.
        size: documents of a page.
        keep_alive: of a point in time.
    """

    def __init__(
        self,
        client: Elasticsearch,
        index: str,
        query: Mapping[str, Any] | None,
        fields: Sequence[str],
        size: int,
        keep_alive: str,
    ) -> None:
        self._client = client
        self._index = index
        self._query = query
        self._fields = list(fields)
        self._size = size
        self._keep_alive = keep_alive
        self._filters: dict[str, Any] | None = None
        self._found: list[tuple[str, int]] = []
        self._pit: str | None = None

    def look(self) -> list[tuple[str, int]]:
        """Index and number of all shards. Asked of the server once."""
        if self._filters is None:
            found = self._client.search_shards(index=self._index, ignore_unavailable=False, allow_no_indices=False)
            self._found = sorted({(copy["index"], int(copy["shard"])) for copies in found["shards"] for copy in copies})
            self._filters = {name: about.get("filter") for name, about in found["indices"].items()}
        return self._found

    def page(self, part: tuple[str, int], after: int | None) -> list[dict[str, Any]]:
        """The documents of a shard behind a sequence number; fewer than ``size``: there are no more."""
        if self._pit is not None:
            try:
                return self._search(part, after)
            except ApiError as error:
                if error.meta.status != 404:
                    raise
                self._pit = None  # it has expired, or its node is gone: another one shows the same documents
        answer = self._client.open_point_in_time(
            index=part[0], keep_alive=self._keep_alive, preference=f"_shards:{part[1]}"
        )
        self._pit = answer["id"]
        return self._search(part, after)

    def _search(self, part: tuple[str, int], after: int | None) -> list[dict[str, Any]]:
        filters = [each for each in (self._query, (self._filters or {}).get(part[0])) if each is not None]
        answer = self._client.search(
            pit={"id": str(self._pit), "keep_alive": self._keep_alive},
            query={"bool": {"filter": filters}},
            sort=[{"_seq_no": "asc"}],
            search_after=None if after is None else [after, _LAST],  # the second is the order within a point in time
            size=self._size,
            source={"includes": self._fields} if self._fields else True,
            track_total_hits=False,
            allow_partial_search_results=False,
        )
        self._pit = answer.get("pit_id", self._pit)
        hits: list[dict[str, Any]] = answer["hits"]["hits"]
        if any("_source" not in hit for hit in hits):
            raise PipelineError(None, f"index {part[0]} keeps no _source: its documents cannot be read")
        return hits

    def leave(self) -> None:
        """Give up the point in time."""
        if self._pit is not None:
            with contextlib.suppress(ApiError, TransportError):  # else it expires
                self._client.close_point_in_time(id=self._pit)
            self._pit = None


def client_for(
    hosts: Sequence[str],
    *,
    timeout: float,
    login: tuple[str, str] | None,
    api_key: str | None,
    ca_certs: str | None,
    verify_certs: bool,
) -> Elasticsearch:
    """A client that is not connected yet. It tries everything once: whoever asks tries again.

    Raises:
        ConfigurationError: these are no hosts.
    """
    tls: dict[str, Any] = {}
    if any(host.startswith("https:") for host in hosts):
        tls = {"verify_certs": verify_certs, "ssl_show_warn": False}
        if ca_certs is not None:
            tls["ca_certs"] = ca_certs
    try:
        return Elasticsearch(
            [host if "://" in host else f"http://{host}" for host in hosts],
            basic_auth=login,
            api_key=api_key,
            request_timeout=timeout,
            max_retries=0,
            retry_on_timeout=False,
            **tls,
        )
    except (ValueError, TypeError, OSError) as error:
        raise ConfigurationError(None, f"hosts={list(hosts)}: {error}; right would be https://host:9200") from error


def passing(error: Exception) -> bool:
    """Whether another attempt may succeed."""
    if isinstance(error, ApiError):
        return elasticsearch_errors.judge_answer(error.meta.status, error.body, 0)[0] == "retry"
    return isinstance(error, TransportError) and not isinstance(error, TlsError)


def reason(error: Exception) -> str:
    """What the server, or the connection to it, says."""
    if isinstance(error, ApiError):
        return elasticsearch_errors.reason(error.meta.status, error.body)
    return f"{type(error).__name__}: {error}"
