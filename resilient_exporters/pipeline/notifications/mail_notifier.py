"""Mails that tell of a run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from email.message import EmailMessage
from typing import Any

from resilient_exporters.errors import ResilientExporterException
from resilient_exporters.pipeline.mailer import MAIL_OPTIONS, Mailer, check_addresses
from resilient_exporters.pipeline.notifications.base import CLIENTS, TEAM, BaseNotifier
from resilient_exporters.pipeline.option import ListOf, Option
from resilient_exporters.pipeline.retries import SHORT
from resilient_exporters.policy import RetryPolicy

__all__ = ["SESMailNotifier"]


class SESMailNotifier(BaseNotifier):
    """Mails to the team and to the clients, by Amazon SES or by an SMTP server.

    Both hear of the start and of the good end, the team alone of a failure, with the stack trace.
    """

    supported_options = {
        "team_mails": Option(type=ListOf(str), default=[], help="Addresses of the team."),
        "client_mails": Option(type=ListOf(str), default=[], help="Addresses of the clients."),
        "client_name": Option(type=str, default="Customer", help="Who the clients are, in the mails."),
        "mail_from": Option(type=str, env_fallback="EXPORTERS_MAIL_FROM", help="Address of the sender."),
        **MAIL_OPTIONS,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._groups = {
            TEAM: check_addresses(self.read_option("team_mails"), "team_mails"),
            CLIENTS: check_addresses(self.read_option("client_mails"), "client_mails"),
        }
        self._sender = check_addresses([self.read_option("mail_from")], "mail_from")[0]
        self._client: str = " ".join(self.read_option("client_name").split())
        self._mailer = Mailer(self)

    def notify_start_dump(self, receivers: Sequence[Any] = (), info: dict[str, Any] | None = None) -> None:
        """Say that it began."""
        begun = _at((info or {}).get("start_time"))
        self._send(receivers, f"Started {self._client} export job", f"Export job started {begun}.\n", None)

    def notify_complete_dump(self, receivers: Sequence[Any] = (), info: dict[str, Any] | None = None) -> None:
        """Say that it is complete, and how many records there are."""
        known = info or {}
        count = known.get("writer", {}).get("items_count", 0)
        records = str(count) if known.get("accurate_items_count", True) else "not counted"
        lines = [
            f"Export job started {_at(known.get('start_time'))}, finished {_at(known.get('end_time'))}.",
            f"Records: {records}",
        ]
        self._send(receivers, f"{self._client} export job finished", "\n".join(lines) + "\n", SHORT)

    def notify_failed_job(
        self, msg: str, stack_trace: str, receivers: Sequence[Any] = (), info: dict[str, Any] | None = None
    ) -> None:
        """Say that it failed, and all that helps to find out why."""
        job = os.environ.get("SHUB_JOBKEY")
        body = "\n".join([
            f"Export job failed with: {msg}", *([f"Job key: {job}"] if job else []), "", stack_trace, "",
            "Configuration:", json.dumps((info or {}).get("configuration"), indent=2, default=str), "",
        ])  # fmt: skip
        self._send(receivers, f"Failed {self._client} export job", body, SHORT)

    def _send(self, receivers: Sequence[Any], subject: str, body: str, policy: RetryPolicy | None) -> None:
        addresses: list[str] = []
        for one in receivers:
            addresses += self._groups[one] if one in (TEAM, CLIENTS) else check_addresses([one], "receivers")
        for address in dict.fromkeys(addresses):
            message = EmailMessage()
            message["From"], message["To"], message["Subject"] = self._sender, address, subject
            message.set_content(body)
            try:
                self._mailer.send(message, self._sender, [address], policy)
            except ResilientExporterException as error:
                self.logger.error("%s did not get the mail %r: %s", address, subject, error)


def _at(seconds: float | None) -> str:
    return "at an unknown time" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
