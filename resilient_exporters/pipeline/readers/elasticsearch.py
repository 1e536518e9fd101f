"""The documents of Elasticsearch indices as a source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.pipeline.asking import StopAsked, ask
from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.option import ListOf, Option
from resilient_exporters.pipeline.readers.base import BaseReader

if TYPE_CHECKING:
    from resilient_exporters.pipeline.readers.elasticsearch_shards import Shards

__all__ = ["ElasticsearchReader"]

_T = TypeVar("_T")


def _page(value: int) -> int:
    if not 0 < value <= 10_000:
        raise ValueError("must be from 1 to 10000, the most that Elasticsearch gives at once")
    return value


class ElasticsearchReader(BaseReader):
    """Reads the documents of indices, data streams or aliases: shard by shard, in the order in which they were written.

    Pages come by ``search_after`` from a point in time. The position is a shard and the sequence number of the last
    document, which no other in the shard has, and which it keeps when the point in time has expired: a resume goes on
    exactly there. A document that is changed between an interruption and its resume has a new number, and comes with
    its new content once more.
    """

    supported_options = {
        "hosts": Option(type=(ListOf(str), str), help="Addresses of one or more nodes, such as https://host:9200."),
        "index": Option(type=(ListOf(str), str), help="Names or patterns of indices, data streams or aliases."),
        "query": Option(type=dict, default=None, help="Query that documents must meet; default: all."),
        "fields": Option(type=ListOf(str), default=[], help="Names or patterns of the fields wanted; default: all."),
        "id_field": Option(type=str, default="_id", help='Field for the document\'s id; "": no such field.'),
        "index_field": Option(type=str, default=None, help="Field for the name of the index; default: none."),
        "batch_size": Option(type=int, default=1000, check=_page, help="Documents of a page, and of a batch."),
        "keep_alive": Option(type=str, default="5m", help="How long a point in time is kept between two pages."),
        "username": Option(type=str, default=None, help="User."),
        "password": Option(
            type=str, default=None, env_fallback="EXPORTERS_ELASTICSEARCH_PASSWORD", secret=True, help="Password."
        ),
        "api_key": Option(
            type=str, default=None, env_fallback="EXPORTERS_ELASTICSEARCH_API_KEY", secret=True, help="Encoded API key."
        ),
        "ca_certs": Option(type=str, default=None, help="File with the certificates to trust."),
        "verify_certs": Option(type=bool, default=True, help="Whether the host must show a certificate that we trust."),
        "timeout": Option(type=float, default=60.0, help="Seconds for each answer."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        option = self.read_option
        try:
            from resilient_exporters.pipeline.readers.elasticsearch_shards import Shards, client_for
        except ModuleNotFoundError as error:
            raise MissingModuleError(
                None, f"ElasticsearchReader needs {error.name}: pip install 'resilient-exporters[elasticsearch]'"
            ) from error
        if (option("username") is None) != (option("password") is None):
            raise ConfigurationError(None, "username and password: give both, or none")
        self._client = client_for(
            _list(option("hosts")),
            timeout=option("timeout"),
            login=None if option("username") is None else (option("username"), option("password")),
            api_key=option("api_key"),
            ca_certs=option("ca_certs"),
            verify_certs=option("verify_certs"),
        )
        self._index = ",".join(_list(option("index")))
        self._shards: Shards = Shards(
            self._client, self._index, option("query"), option("fields"), option("batch_size"), option("keep_alive")
        )
        self._id_field: str = option("id_field")
        self._index_field: str | None = option("index_field")
        self._parts: list[tuple[str, int]] | None = None
        self._at = 0
        self._after: int | None = None

    def get_next_batch(self) -> Iterator[dict[str, Any]]:
        """The next page."""
        try:
            found = self._ask(self._shards.look)
            if self._parts is None:
                self._parts = found
            if self._at >= len(self._parts):
                self.finished = True
                return
            hits = self._ask(self._next_page)
        except StopAsked:
            return
        for hit in hits:
            self._after = hit["sort"][0]
            yield self._record(hit)
        if len(hits) < self.read_option("batch_size"):
            self._at, self._after = self._at + 1, None
            self._shards.leave()
            self.finished = self._at >= len(self._parts)

    def _next_page(self) -> list[dict[str, Any]]:
        assert self._parts is not None  # noqa: S101 - get_next_batch looked
        return self._shards.page(self._parts[self._at], self._after)

    def _record(self, hit: dict[str, Any]) -> dict[str, Any]:
        record = dict(hit["_source"])
        if self._id_field:
            record[self._id_field] = hit["_id"]
        if self._index_field is not None:
            record[self._index_field] = hit["_index"]
        return record

    def _ask(self, question: Callable[[], _T]) -> _T:
        from resilient_exporters.pipeline.readers.elasticsearch_shards import passing, reason

        what = f"reading {self._index} from Elasticsearch"
        return ask(question, what, passing=passing, reason=reason, stopping=self.stopping)

    def get_last_position(self) -> Any:
        """The shards as the job found them, which one is read, and the number of its last document."""
        if self._parts is None:
            return None
        return {"shards": [list(part) for part in self._parts], "at": self._at, "after": self._after}

    def set_last_position(self, position: Any) -> None:
        """Go on behind that document."""
        if position:
            self._parts = [(index, number) for index, number in position["shards"]]
            self._at, self._after = position["at"], position["after"]

    def close(self) -> None:
        """Give up the point in time, and close connections."""
        self._shards.leave()
        self._client.close()


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
