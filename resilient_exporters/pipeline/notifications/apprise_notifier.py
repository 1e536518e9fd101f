"""Any service that apprise knows is told of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.notifications.base import CLIENTS, TEAM, BaseNotifier
from resilient_exporters.pipeline.option import ListOf, Option

__all__ = ["AppriseNotifier"]


class AppriseNotifier(BaseNotifier):
    """Messages by apprise: Slack, Telegram, Matrix, ntfy, SMS and a hundred more, each by a URL of its own kind.

    Both groups hear of the start and of the good end, the team alone of a failure. A receiver may be such a URL, too.
    """

    supported_options = {
        "team_urls": Option(type=ListOf(str), default=[], secret=True, help="Apprise URLs of the team."),
        "client_urls": Option(type=ListOf(str), default=[], secret=True, help="Apprise URLs of the clients."),
        "title": Option(type=str, default="Export job", help="What the messages are headed with."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            import apprise
        except ModuleNotFoundError as error:
            raise MissingModuleError(
                None, f"{type(self).__name__} needs apprise: pip install 'resilient-exporters[notify]'"
            ) from error
        self._apprise: Any = apprise
        self._groups: dict[int, list[str]] = {
            TEAM: self.read_option("team_urls"), CLIENTS: self.read_option("client_urls")
        }  # fmt: skip
        for number, url in enumerate([*self._groups[TEAM], *self._groups[CLIENTS]], 1):
            if apprise.Apprise.instantiate(url, suppress_exceptions=True) is None:
                kind = url.partition("://")[0]
                raise ConfigurationError(
                    None, f"team_urls and client_urls: URL {number} ({kind}://…) is none that apprise knows"
                )

    def notify_start_dump(self, receivers: Sequence[Any] = (), info: dict[str, Any] | None = None) -> None:  # noqa: ARG002 - the hook's arguments
        """Say that it began."""
        self._send(receivers, "started", "The export job has started.", "INFO")

    def notify_complete_dump(self, receivers: Sequence[Any] = (), info: dict[str, Any] | None = None) -> None:
        """Say that it is complete."""
        count = (info or {}).get("writer", {}).get("items_count", 0)
        self._send(receivers, "finished", f"The export job is complete: {count} records.", "SUCCESS")

    def notify_failed_job(
        self,
        msg: str,
        stack_trace: str,
        receivers: Sequence[Any] = (),
        info: dict[str, Any] | None = None,  # noqa: ARG002 - the hook's arguments
    ) -> None:
        """Say that it failed, and why."""
        self._send(receivers, "failed", f"The export job failed: {msg}\n\n{stack_trace}", "FAILURE")

    def _send(self, receivers: Sequence[Any], event: str, body: str, kind: str) -> None:
        urls: list[str] = []
        for one in receivers:
            urls += self._groups[one] if one in (TEAM, CLIENTS) else [one]
        title: str = self.read_option("title")
        for number, url in enumerate(dict.fromkeys(urls), 1):
            service = self._apprise.Apprise()  # one at a time: for several it starts threads
            service.add(url)
            told = service.notify(
                body=body, title=f"{title} {event}", notify_type=getattr(self._apprise.NotifyType, kind),
                body_format=self._apprise.NotifyFormat.TEXT,
            )  # fmt: skip
            if not told:
                kind_of = url.partition("://")[0]
                self.logger.error("service %d (%s://…) was not told that the job has %s", number, kind_of, event)
