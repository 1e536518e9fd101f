"""A target of your own: records to a web address, in one POST per batch."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

from resilient_exporters import Batch, Delivered, Exporter, Hold, InvalidConfigError, Outcome, Reject, Retry, Split


class WebhookExporter(Exporter):
    """Posts JSON. The receiver finds each record's id beside it, and can tell what it has already."""

    kind = "webhook"

    def __init__(self, url: str, token: str | None = None, **options):
        if not url.startswith(("http://", "https://")):
            raise InvalidConfigError(None, f"url={url!r} is no web address: begin it with https://")
        self.url = url
        self.token = token
        super().__init__(**options)

    def address(self) -> str:
        """The URL without its query, which may hold a key."""
        return self.url.partition("?")[0]

    def export(self, batch: Batch) -> Outcome:
        """Post a batch."""
        body = json.dumps([{"id": record.id, "data": record.data} for record in batch], default=str).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})  # noqa: S310 - looked at
        request.add_header("Idempotency-Key", f"{batch[0].id}+{len(batch)}")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        left = min(batch.deadline - time.monotonic(), 60)
        try:
            with urllib.request.urlopen(request, timeout=max(0.1, left)) as answer:  # noqa: S310 - as above
                return Delivered(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return self.outcome(error)
        # Anything else that urllib raises is an OSError: no link. The batch waits.

    def outcome(self, error: urllib.error.HTTPError) -> Outcome:
        """What a status says about the batch."""
        if error.code in (401, 403, 404):
            return Hold(f"{error.code} {error.reason}: look at the address and the token")
        if error.code == 413:
            return Split()
        if error.code in (408, 425, 429) or error.code >= 500:
            after = error.headers.get("Retry-After", "")
            return Retry(float(after) if after.isdigit() else None, f"{error.code} {error.reason}")
        return Reject(f"{error.code} {error.reason}")


if __name__ == "__main__":
    import sys

    with WebhookExporter(sys.argv[1]) as webhook:
        for line in sys.stdin:
            webhook.send({"line": line.rstrip("\n")})
