"""Documents in a search engine: Elasticsearch or OpenSearch."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

from resilient_exporters.errors import MissingModuleError, RejectedError, RetryableError
from resilient_exporters.exporters.lines import json_line
from resilient_exporters.pipeline.checks import seconds
from resilient_exporters.pipeline.errors import ConfigurationError, PipelineError
from resilient_exporters.pipeline.http_client import HTTPClient, check_url, shown
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.retries import SHORT, retrying
from resilient_exporters.pipeline.writers.outbox import OutboxWriter, Parcel

__all__ = ["CloudSearchWriter"]

_LATER: Final = (429, 503)


class CloudSearchWriter(OutboxWriter):
    """Indexes documents by ``_bulk``. Amazon CloudSearch takes no new users: this is for its successors.

    The id of a document is the value of ``id_field``; where a record has none, it is made from the number of the
    record. So what is sent again after a crash replaces itself: each record is one document.

    A document that the engine refuses is a bad record.
    """

    formats = False
    supported_options = {
        "endpoint_url": Option(type=str, check=check_url, help="Address of the engine, and of the index: https://host/index."),
        "id_field": Option(type=str, default="_key", help="Key with the id of the document."),
        "index": Option(type=str, default=None, help="Name of the index, where endpoint_url does not end with it."),
        "access_key": Option(
            type=str, default=None, secret=True, env_fallback="EXPORTERS_CLOUDSEARCH_ACCESS_KEY",
            help="AWS key id with aws_region, else the account's name.",
        ),
        "secret_key": Option(
            type=str, default=None, secret=True, env_fallback="EXPORTERS_CLOUDSEARCH_SECRET_KEY",
            help="AWS secret with aws_region, else its password.",
        ),
        "aws_region": Option(type=str, default=None, help="Of Amazon OpenSearch: requests are signed."),
        "timeout": Option(type=float, default=60.0, check=seconds, help="Seconds for an answer."),
        "items_per_buffer_write": Option(type=int, default=10_000, help="Documents in a request."),
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        parts = urlsplit(self.read_option("endpoint_url"))
        path, _, last = parts.path.rstrip("/").rpartition("/")
        index: str | None = self.read_option("index")
        if index is not None:
            path, last = parts.path.rstrip("/"), quote(index, safe="")
        if not last:
            raise ConfigurationError(None, "index: give it, or endpoint_url with it at the end: https://host/index")
        self._url = urlunsplit((parts.scheme, parts.netloc, f"{path}/{last}/_bulk", "", ""))
        self._id_field: str = self.read_option("id_field")
        self._keys = (self.read_option("access_key"), self.read_option("secret_key"))
        if (self._keys[0] is None) != (self._keys[1] is None):
            raise ConfigurationError(None, "access_key and secret_key: give both, or none")
        self._region: str | None = self.read_option("aws_region")
        if self._region is not None:
            _check_signing(type(self).__name__, self._keys)
        self._client = HTTPClient(type(self).__name__, self.read_option("timeout"))

    def pack(self, record: BaseRecord) -> bytes:
        """Its id, and itself as JSON."""
        fields = dict(record)
        known = fields.get(self._id_field)
        if self._id_field == "_id":
            fields.pop("_id", None)
        return json.dumps(None if known is None else str(known)).encode() + b"\n" + json_line(fields).rstrip(b"\n")

    def deliver(self, parcel: Parcel, entries: list[bytes]) -> None:
        """Send a request, and again those that the engine has no time for."""
        documents = []
        for number, entry in enumerate(entries):
            known, _, document = entry.partition(b"\n")
            documents.append((json.loads(known) or f"{self.id_of(parcel)}-{number}", document))
        waiting = [documents]

        def attempt() -> None:
            waiting[0] = self._index(waiting[0])
            if waiting[0]:
                raise RetryableError(None, f"{len(waiting[0])} documents of {len(documents)} are to come later")

        try:
            retrying(attempt, f"indexing at {shown(self._url)}", SHORT, errors=RetryableError)
        except RejectedError as error:
            raise PipelineError(None, str(error)) from error

    def _index(self, documents: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """Index these. Returns those that are to come later."""
        body = b"".join(
            b'{"index":{"_id":%s}}\n%s\n' % (json.dumps(known).encode(), document) for known, document in documents
        )
        headers = {"Content-Type": "application/x-ndjson"}
        answer = self._client.send(self._url, body, self._signed(body, headers), policy=None)
        later = []
        for document, verdict in zip(documents, self._verdicts(answer, len(documents)), strict=True):
            if verdict["status"] in _LATER:
                later.append(document)
            elif verdict["status"] >= 300:
                self.bad_records.add(
                    document[1], json.dumps(verdict.get("error")), part=self.part, where=f"document {document[0]}"
                )
                self.items_count -= 1
        return later

    def _verdicts(self, answer: bytes, count: int) -> list[dict[str, Any]]:
        """What the engine says of each document."""
        try:
            found = [next(iter(item.values())) for item in json.loads(answer)["items"]]
            if len(found) != count or not all(isinstance(one["status"], int) for one in found):
                raise ValueError("not one status for each document")
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
            raise PipelineError(
                None, f"{shown(self._url)} is no search engine: it answered a _bulk request with {answer[:200]!r}"
            ) from error
        return found

    def _signed(self, body: bytes, headers: dict[str, str]) -> dict[str, str]:
        user, password = self._keys
        if user is None:
            return headers
        if self._region is None:
            import urllib3

            return {**headers, **urllib3.make_headers(basic_auth=f"{user}:{password}")}
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        request = AWSRequest("POST", self._url, headers, body)
        service = "aoss" if ".aoss." in self._url else "es"
        SigV4Auth(Credentials(user, password), service, self._region).add_auth(request)
        return dict(request.headers.items())

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        super().close()


def _check_signing(owner: str, keys: tuple[Any, Any]) -> None:
    if None in keys:
        raise ConfigurationError(None, "aws_region: give access_key and secret_key, too")
    try:
        import botocore  # noqa: F401 - only whether it is there
    except ModuleNotFoundError as error:
        raise MissingModuleError(
            None, f"{owner} with aws_region needs botocore: pip install 'resilient-exporters[aws]'"
        ) from error
