"""Records to a web service."""

from __future__ import annotations

from io import BytesIO
from typing import Any, Final

from resilient_exporters.errors import RejectedError
from resilient_exporters.pipeline.checks import seconds
from resilient_exporters.pipeline.errors import ConfigurationError, PipelineError
from resilient_exporters.pipeline.formatters.base import BaseFormatter
from resilient_exporters.pipeline.formatters.json import JsonExportFormatter
from resilient_exporters.pipeline.http_client import HTTPClient, check_url, checked_headers
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.record import BaseRecord
from resilient_exporters.pipeline.writers.outbox import OutboxWriter, Parcel

__all__ = ["HTTPWriter", "document"]

_TYPES: Final = {
    "jl": "application/x-ndjson", "json": "application/json", "csv": "text/csv; charset=utf-8",
    "xml": "application/xml", "parquet": "application/vnd.apache.parquet", "avro": "application/avro",
}  # fmt: skip


class HTTPWriter(OutboxWriter):
    """Posts records in batches, each as a document of the formatter: JSON lines by default.

    Each request has an ``Idempotency-Key``, which stays the same when it is repeated after a time-out or a resume. So
    a service that heeds it gets every record once. One that does not may get a batch twice, if its answer was lost, or
    if the program was killed between the answer and the note of it.

    What the service refuses (a status 4xx other than 408, 425 and 429) ends the run, or with ``on_bad_record`` "skip"
    or "dead" the batch is put aside as one bad record.
    """

    supported_options = {
        "url": Option(type=str, check=check_url, help="Address of the service."),
        "method": Option(type=str, default="POST", choices=("POST", "PUT", "PATCH"), help="Of the requests."),
        "headers": Option(type=dict, default={}, secret=True, help="Added to each request, for instance a token."),
        "content_type": Option(type=str, default=None, help="Default: that of the formatter."),
        "timeout": Option(type=float, default=30.0, check=seconds, help="Seconds for an answer."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._url: str = self.read_option("url")
        self._headers = checked_headers(self.read_option("headers"))
        self._given = {name.lower() for name in self._headers}
        if "idempotency-key" in self._given:
            raise ConfigurationError(None, "headers: Idempotency-Key is made for each request, leave it out")
        self._client = HTTPClient(type(self).__name__, self.read_option("timeout"))

    def pack(self, record: BaseRecord) -> bytes:
        """As the formatter writes it."""
        return _formatter(self).format(record)

    def deliver(self, parcel: Parcel, entries: list[bytes]) -> None:
        """Send a request."""
        formatter = _formatter(self)
        kind = self.read_option("content_type") or _TYPES.get(formatter.file_extension, "application/octet-stream")
        ours = {"Content-Type": kind, "Idempotency-Key": self.id_of(parcel)}
        headers = {**{name: text for name, text in ours.items() if name.lower() not in self._given}, **self._headers}
        try:
            self._client.send(self._url, document(formatter, entries), headers, method=self.read_option("method"))
        except RejectedError as error:
            if self.bad_records.choice == "fail":
                raise PipelineError(None, f"a batch of {parcel.count} records is refused: {error}") from error
            self.bad_records.add(
                formatter.separator.join(entries), error, part=self.part,
                where=f"request {parcel.number}, {parcel.count} records",
            )  # fmt: skip
            self.items_count -= parcel.count
            return
        self.set_metadata("requests", (self.get_metadata("requests") or 0) + 1)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        super().close()


def document(formatter: BaseFormatter, entries: list[bytes]) -> bytes:
    """Formatted records as one document."""
    if not formatter.whole:
        return formatter.header() + formatter.separator.join(entries) + formatter.footer()
    made = BytesIO()
    formatter.assemble(BytesIO(formatter.separator.join(entries)), made)
    return made.getvalue()


def _formatter(writer: OutboxWriter) -> BaseFormatter:
    if writer.formatter is None:
        writer.formatter = JsonExportFormatter()
    return writer.formatter
