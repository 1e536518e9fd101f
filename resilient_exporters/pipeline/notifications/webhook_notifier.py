"""Web services that are told of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from resilient_exporters.errors import ResilientExporterException
from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.http_client import HTTPClient, check_url, shown
from resilient_exporters.pipeline.notifications.base import BaseNotifier
from resilient_exporters.pipeline.option import ListOf, Option
from resilient_exporters.pipeline.retries import SHORT
from resilient_exporters.policy import RetryPolicy
from resilient_exporters.units import parse_seconds

__all__ = ["WebhookNotifier"]


class WebhookNotifier(BaseNotifier):
    """Posts JSON to each endpoint: all that is known of the run, with ``job_status`` STARTED, COMPLETED or FAILED.

    A failure has ``msg`` and ``stack_trace``, too. An endpoint that fails is logged, and stops nothing. It is tried
    again at the end of a run, but not at its beginning, which would hold it up.
    """

    supported_options = {
        "endpoints": Option(
            type=ListOf(str), default=[],
            help='URLs to post to; {"env": "NAME"} takes them from the environment, and keeps them out of the job.',
        ),
        "timeout": Option(
            type=float, default=30.0, check=lambda value: parse_seconds(value, "timeout", zero_ok=False),
            help="Seconds for an answer.",
        ),
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._endpoints: list[str] = self.read_option("endpoints")
        for url in self._endpoints:
            try:
                check_url(url)
            except ValueError as error:
                raise ConfigurationError(None, f"endpoints: {shown(url)!r}: {error}") from error
        self._client = HTTPClient(type(self).__name__, self.read_option("timeout"))

    def notify_start_dump(self, receivers: Sequence[Any] = (), info: dict[str, Any] | None = None) -> None:  # noqa: ARG002 - the hook's arguments
        """Say STARTED."""
        self._post({**(info or {}), "job_status": "STARTED"}, None)

    def notify_complete_dump(self, receivers: Sequence[Any] = (), info: dict[str, Any] | None = None) -> None:  # noqa: ARG002 - the hook's arguments
        """Say COMPLETED."""
        self._post({**(info or {}), "job_status": "COMPLETED"}, SHORT)

    def notify_failed_job(
        self,
        msg: str,
        stack_trace: str,
        receivers: Sequence[Any] = (),  # noqa: ARG002 - the hook's arguments
        info: dict[str, Any] | None = None,
    ) -> None:
        """Say FAILED, and why."""
        self._post({**(info or {}), "job_status": "FAILED", "msg": msg, "stack_trace": stack_trace}, SHORT)

    def _post(self, payload: dict[str, Any], policy: RetryPolicy | None) -> None:
        body = json.dumps(payload, default=str).encode()
        for url in self._endpoints:
            try:
                self._client.send(url, body, {"Content-Type": "application/json"}, policy=policy)
            except ResilientExporterException as error:
                self.logger.error("%s was not told that the job is %s: %s", shown(url), payload["job_status"], error)

    def close(self) -> None:
        """Close the connections; a later notification opens new ones."""
        self._client.close()
