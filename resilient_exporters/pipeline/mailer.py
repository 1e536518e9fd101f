"""Mail, by SMTP or by Amazon SES: for the writer that sends mails, and for notifications."""

from __future__ import annotations

import re
import smtplib
import ssl
from collections.abc import Iterable
from email.message import EmailMessage
from email.utils import formatdate, getaddresses
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from resilient_exporters.errors import MissingModuleError, RejectedError, RetryableError
from resilient_exporters.pipeline.checks import host, port
from resilient_exporters.pipeline.errors import ConfigurationError, InvalidMailProvided
from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.retries import SHORT, retrying
from resilient_exporters.policy import RetryPolicy

if TYPE_CHECKING:
    from resilient_exporters.pipeline.module import Module

__all__ = ["MAIL_OPTIONS", "Mailer", "attach", "check_addresses"]

_ADDRESS: Final = re.compile(r"[^\s@<>()\[\],;:\\\"]+@[^\s@<>()\[\],;:\\\"]+")
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_TIMEOUT: Final = 60.0

MAIL_OPTIONS: Final = {
    "access_key": Option(
        type=str, default=None, secret=True, env_fallback="EXPORTERS_MAIL_AWS_ACCESS_KEY", help="Amazon SES: key id.",
    ),
    "secret_key": Option(
        type=str, default=None, secret=True, env_fallback="EXPORTERS_MAIL_AWS_SECRET_KEY", help="Amazon SES: secret.",
    ),
    "aws_region": Option(type=str, default="us-east-1", help="Amazon SES: region."),
    "smtp_host": Option(
        type=str, default=None, check=host, help="SMTP server; without it mails go through Amazon SES.",
    ),
    "smtp_port": Option(
        type=int, default=None, check=port, help="Default: 465 with smtp_tls=tls, 587 with an account, else 25.",
    ),
    "smtp_user": Option(type=str, default=None, help="Account at the SMTP server."),
    "smtp_password": Option(type=str, default=None, secret=True, help="Its password."),
    "smtp_tls": Option(
        type=str, default="auto", choices=("auto", "tls", "starttls", "none"),
        help="Encryption: auto is TLS on port 465, else STARTTLS where the server has it, and always with a password.",
    ),
}  # fmt: skip
"""Options of whatever sends mails."""


def check_addresses(addresses: Iterable[str], option: str) -> list[str]:
    """The addresses, if each is one.

    Raises:
        InvalidMailProvided: one is none.
    """
    found = list(addresses)
    for address in found:
        pairs = getaddresses([address])
        if len(pairs) != 1 or not _ADDRESS.fullmatch(pairs[0][1]) or re.search(r"[\r\n]", address):
            raise InvalidMailProvided(None, f"{option}: {address!r:.80} is no mail address: give name@example.org")
    return found


class Mailer:
    """Sends mails, each over a connection of its own.

    Args:
        module: whose options say how: those of ``MAIL_OPTIONS``.

    Raises:
        ConfigurationError: neither an SMTP server nor an account of SES is given.
        MissingModuleError: SES, and boto3 is not installed.
    """

    def __init__(self, module: Module) -> None:
        read = module.read_option
        self._host: str | None = read("smtp_host")
        self._user: str | None = read("smtp_user")
        self._password: str | None = read("smtp_password")
        self._tls: str = read("smtp_tls")
        self._port = int(read("smtp_port") or (465 if self._tls == "tls" else 587 if self._user else 25))
        self._region: str = read("aws_region")
        self._keys = (read("access_key"), read("secret_key"))
        if self._host is not None:
            if (self._user is None) != (self._password is None):
                raise ConfigurationError(None, "smtp_user and smtp_password: give both, or none")
            return
        if None in self._keys:
            raise ConfigurationError(
                None, f"{type(module).__name__}: give smtp_host for an SMTP server, or access_key and secret_key "
                "(or set EXPORTERS_MAIL_AWS_ACCESS_KEY and EXPORTERS_MAIL_AWS_SECRET_KEY) for Amazon SES"
            )  # fmt: skip
        try:
            import boto3  # noqa: F401 - only whether it is there
        except ModuleNotFoundError as error:
            raise MissingModuleError(
                None, f"{type(module).__name__} needs boto3: pip install 'resilient-exporters[aws]'"
            ) from error

    def send(
        self,
        message: EmailMessage,
        sender: str,
        receivers: list[str],
        policy: RetryPolicy | None = SHORT,
    ) -> dict[str, str]:
        """Send a mail.

        Args:
            message: with its headers; ``Date`` is added where there is none.
            sender: address of the envelope.
            receivers: the same.
            policy: how to try again; None: not at all.

        Returns:
            Those receivers that the server refused, with the reason.

        Raises:
            RetryableError: the server does not answer, or says "later".
            RejectedError: it refuses the mail, or all receivers.
        """
        if "Date" not in message:
            message["Date"] = formatdate()
        once = self._by_smtp if self._host is not None else self._by_ses
        bare = [getaddresses([address])[0][1] for address in receivers]
        if policy is None:
            return once(message, getaddresses([sender])[0][1], bare)
        what = f"mail to {self._host or 'Amazon SES'}"
        return retrying(lambda: once(message, getaddresses([sender])[0][1], bare), what, policy, errors=RetryableError)

    # -- SMTP ----------------------------------------------------------------------------------------------------

    def _by_smtp(self, message: EmailMessage, sender: str, receivers: list[str]) -> dict[str, str]:
        where = f"SMTP server {self._host}:{self._port}"
        try:
            with self._connected() as server:
                refused = server.send_message(message, sender, receivers)
        except smtplib.SMTPRecipientsRefused as error:
            reasons = {who: _reason(*reply) for who, reply in error.recipients.items()}
            kind = RetryableError if all(400 <= code < 500 for code, _ in error.recipients.values()) else RejectedError
            raise kind(None, f"{where} takes none of the receivers: {reasons}") from error
        except smtplib.SMTPResponseException as error:
            text = f"{where} answered {_reason(error.smtp_code, error.smtp_error)}"
            raise (RetryableError if 400 <= error.smtp_code < 500 else RejectedError)(None, text) from error
        except smtplib.SMTPNotSupportedError as error:
            raise RejectedError(None, f"{where}: {error}") from error
        except ssl.SSLError as error:
            raise RejectedError(None, f"{where}: {error}") from error
        except (OSError, smtplib.SMTPException) as error:
            raise RetryableError(None, f"{where} does not answer: {error}") from error
        return {who: _reason(*reply) for who, reply in refused.items()}

    def _connected(self) -> smtplib.SMTP:
        host = self._host or ""
        implicit = self._tls == "tls" or (self._tls == "auto" and self._port == 465)
        server: smtplib.SMTP
        if implicit:
            server = smtplib.SMTP_SSL(host, self._port, timeout=_TIMEOUT, context=ssl.create_default_context())
        else:
            server = smtplib.SMTP(host, self._port, timeout=_TIMEOUT)
        try:
            server.ehlo()
            if not implicit and self._tls != "none":
                self._encrypt(server)
            if self._user is not None:
                server.login(self._user, self._password or "")
        except BaseException:
            server.close()
            raise
        return server

    def _encrypt(self, server: smtplib.SMTP) -> None:
        if server.has_extn("starttls"):
            server.starttls(context=ssl.create_default_context())
            server.ehlo()
        elif self._tls == "starttls" or (self._user is not None and self._host not in _LOOPBACK):
            raise RejectedError(
                None, f"SMTP server {self._host}:{self._port} has no STARTTLS, and the password is not sent in clear: "
                "set smtp_tls to tls, or to none if the way there is safe"
            )  # fmt: skip

    # -- SES -----------------------------------------------------------------------------------------------------

    def _by_ses(self, message: EmailMessage, sender: str, receivers: list[str]) -> dict[str, str]:
        import boto3
        import botocore.config
        import botocore.exceptions

        options: Any = botocore.config.Config(retries={"total_max_attempts": 1})
        client = boto3.client(
            "ses", region_name=self._region, aws_access_key_id=self._keys[0], aws_secret_access_key=self._keys[1],
            config=options,
        )  # fmt: skip
        try:
            client.send_raw_email(Source=sender, Destinations=receivers, RawMessage={"Data": message.as_bytes()})
        except botocore.exceptions.ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
            code = error.response.get("Error", {}).get("Code", "")
            later = status >= 500 or "Throttl" in code
            raise (RetryableError if later else RejectedError)(None, f"Amazon SES: {error}") from error
        except botocore.exceptions.BotoCoreError as error:
            raise RetryableError(None, f"Amazon SES: {error}") from error
        finally:
            client.close()
        return {}


def attach(message: EmailMessage, data: bytes, name: str) -> None:
    """Attach a file."""
    kinds = {".gz": "gzip", ".bz2": "x-bzip2", ".zip": "zip", ".json": "json", ".xml": "xml"}
    message.add_attachment(
        data, maintype="application", subtype=kinds.get(PurePath(name).suffix, "octet-stream"), filename=name
    )


def _reason(code: int, text: Any) -> str:
    return f"{code} {text.decode(errors='replace') if isinstance(text, bytes) else text}"
