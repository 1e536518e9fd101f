"""HTTP for writers and notifiers: one request, retried where that may help, with answers that people can read."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from resilient_exporters.errors import MissingModuleError, RejectedError, RetryableError
from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.retries import SHORT, retrying
from resilient_exporters.policy import RetryPolicy

if TYPE_CHECKING:
    import urllib3

__all__ = ["HTTPClient", "check_url", "checked_headers", "shown"]

_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
_TEXT = 200
_PART = 1 << 16
_LARGEST = 64 << 20


def check_url(url: str) -> None:
    """Check that it is one.

    Raises:
        ValueError: it is not.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("give a URL like https://host/path")


def shown(url: str) -> str:
    """A URL without account and query: these may be secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


class HTTPClient:
    """Sends requests. Connections are opened by the first one.

    Args:
        owner: who needs it, for the error.
        timeout: seconds for an answer.

    Raises:
        MissingModuleError: urllib3 is not installed.
    """

    def __init__(self, owner: str, timeout: float = 30.0) -> None:
        try:
            import urllib3
        except ModuleNotFoundError as error:
            raise MissingModuleError(None, f"{owner} needs urllib3: pip install 'resilient-exporters[http]'") from error
        self._module: Any = urllib3
        self._timeout = timeout
        self._pool: urllib3.PoolManager | None = None

    def send(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        method: str = "POST",
        policy: RetryPolicy | None = SHORT,
    ) -> bytes:
        """Send a request; returns the body of a good answer (2xx).

        Args:
            url: with or without an account.
            body: of the request.
            headers: of the request.
            method: of the request.
            policy: how to try again; None: not at all.

        Raises:
            RetryableError: nothing good came of any attempt: no answer, or "later" (408, 425, 429, 5xx).
            RejectedError: the server refuses it.
        """
        if policy is None:
            return self._once(url, body, headers, method)
        return retrying(
            lambda: self._once(url, body, headers, method), f"{method} {shown(url)}", policy, errors=RetryableError
        )

    def _once(self, url: str, body: bytes, headers: Mapping[str, str], method: str) -> bytes:
        if self._pool is None:
            self._pool = self._module.PoolManager(retries=False, timeout=self._module.Timeout(total=self._timeout))
        given = {**_account(url, self._module), **headers}
        try:
            answer = self._pool.request(
                method, _bare(url), body=body, headers=given, redirect=False, preload_content=False
            )
            data = self._body(answer, url)
        except self._module.exceptions.HTTPError as error:
            raise RetryableError(None, f"{shown(url)} does not answer: {error}") from error
        if 200 <= answer.status < 300:
            return data
        text = re.sub(r"\s+", " ", data[: 4 * _TEXT].decode(errors="replace"))[:_TEXT]
        what = f"{shown(url)} answered {answer.status} {answer.reason or ''}: {text}"
        if answer.status in _LATER:
            raise RetryableError(None, what, after=_seconds(answer.headers.get("Retry-After")))
        raise RejectedError(None, what)

    def _body(self, answer: Any, url: str) -> bytes:
        """The body of an answer. A server that never ends it must not hold the run up for ever."""
        until = time.monotonic() + self._timeout
        data = bytearray()
        read = getattr(answer, "read1", answer.read)  # read waits for all that it is asked for
        try:
            while part := read(_PART):
                data += part
                if len(data) > _LARGEST:
                    raise RetryableError(None, f"{shown(url)} answers with more than {_LARGEST >> 20} MiB")
                if time.monotonic() > until:
                    raise RetryableError(None, f"{shown(url)} does not end its answer within {self._timeout:g} s")
        except BaseException:
            answer.close()
            raise
        answer.release_conn()
        return bytes(data)

    def close(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            self._pool.clear()
            self._pool = None


def _account(url: str, module: Any) -> dict[str, str]:
    account, at, _ = urlsplit(url).netloc.rpartition("@")
    if not at:
        return {}
    from urllib.parse import unquote

    headers: dict[str, str] = module.make_headers(basic_auth=unquote(account))
    return headers


def _bare(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _seconds(text: str | None) -> float | None:
    """What ``Retry-After`` asks for, at most an hour: seconds, or a date."""
    if not text:
        return None
    if text.strip().isdigit():
        return min(float(text), 3600.0)
    import email.utils

    try:
        at = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return min(max(at.timestamp() - time.time(), 0.0), 3600.0)


def checked_headers(headers: Mapping[str, Any]) -> dict[str, str]:
    """Headers as texts.

    Raises:
        ConfigurationError: a name or value that no header can have.
    """
    for name, value in headers.items():
        if (
            not isinstance(value, str)
            or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name)
            or re.search(r"[\r\n\0]", value)
        ):
            raise ConfigurationError(
                None, f"headers: {name!r:.60}: give a mapping of header names to texts of one line"
            )
    return dict(headers)
