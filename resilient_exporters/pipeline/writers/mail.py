"""Records as attachments of mails."""

from __future__ import annotations

import os
import time
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from resilient_exporters.delivery.directory import sync_directory
from resilient_exporters.errors import RejectedError
from resilient_exporters.pipeline.checks import natural
from resilient_exporters.pipeline.errors import ConfigurationError, MaxMailsSent, PipelineError
from resilient_exporters.pipeline.mailer import MAIL_OPTIONS, Mailer, attach, check_addresses
from resilient_exporters.pipeline.option import ListOf, Option
from resilient_exporters.pipeline.writers.buffer_log import Buffer
from resilient_exporters.pipeline.writers.buffered import BaseBufferedWriter, PackedFile

__all__ = ["MailWriter"]


class MailWriter(BaseBufferedWriter):
    """Sends each finished file as an attachment, in one mail to all addresses. A run without records sends none.

    What is to be sent is on record before it goes out, and a mail that the server took is noted on disk at once, so a
    resume does not send it again. There is one instant that nobody can note: a kill (or a lost connection) between the
    server's taking it and the note. Then the mail comes twice, with the same ``Message-ID``, by which most mail systems
    show it once.
    """

    supported_options = {
        "emails": Option(type=ListOf(str), help="Addresses to send to."),
        "subject": Option(type=str, help="Subject of the mails; one line."),
        "from": Option(type=str, env_fallback="EXPORTERS_MAIL_FROM", help="Address of the sender."),
        "max_mails_sent": Option(
            type=int, default=5, check=natural, help="More mails than these end the run with MaxMailsSent."
        ),
        "file_name": Option(
            type=str,
            default=None,
            help="Name of the attachments, without their ending; may hold %Y and the like, and {date}.",
        ),
        **MAIL_OPTIONS,
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._emails = check_addresses(self.read_option("emails"), "emails")
        if not self._emails:
            raise ConfigurationError(None, "emails=[]: give at least one address")
        self._sender = check_addresses([self.read_option("from")], "from")[0]
        self._subject: str = self.read_option("subject")
        if "\n" in self._subject or "\r" in self._subject:
            raise ConfigurationError(None, f"subject={self._subject!r:.60}: give one line")
        self._most: int = self.read_option("max_mails_sent")
        self._mailer = Mailer(self)
        self._begun = time.time()
        self._sent = 0

    def name_of(self, buffer: Buffer) -> str:
        """Name of the attachment: all of them differ."""
        given: str | None = self.read_option("file_name")
        at = time.localtime(self._begun)
        if given is None:
            return f"export-{buffer.number:04d}{self.extension}"
        name = time.strftime(given, at).replace("{date}", time.strftime("%Y-%m-%d", at))
        number = f"-{buffer.number}" if buffer.number else ""
        return "".join("_" if one in "/\\\0\r\n" else one for one in name) + number + self.extension

    def deliver(self, packed: PackedFile, path: Path) -> None:
        """Send a mail, unless it was sent before."""
        note = self.workplace.path / f"mail-{packed.number}.sent"
        if note.exists():
            return
        if self._sent >= self._most:
            raise MaxMailsSent(
                None, f"max_mails_sent={self._most} are sent, and there is more: allow more, or larger files by "
                "items_per_buffer_write and size_per_buffer_write"
            )  # fmt: skip
        try:
            refused = self._mailer.send(self._message(packed, path), self._sender, self._emails)
        except RejectedError as error:
            raise PipelineError(None, f"mail with {packed.name} ({packed.size} bytes): {error}") from error
        _note(note)
        self._sent += 1
        self.set_metadata("mails_sent", self._sent)
        for who, why in refused.items():
            self.logger.error("the mail with %s did not go to %s: %s", packed.name, who, why)

    def _message(self, packed: PackedFile, path: Path) -> EmailMessage:
        message = EmailMessage()
        message["From"], message["To"] = self._sender, ", ".join(self._emails)
        message["Subject"] = self._subject
        message["Message-ID"] = f"<{self.token}.{packed.number}.{int(self._begun * 1e6)}@resilient-exporters>"
        message.set_content(f"Name: {packed.name}\nSize: {packed.size} bytes\nRecords: {packed.records}\n")
        attach(message, path.read_bytes(), packed.name)
        return message

    def get_state(self) -> Any:
        """When it began: it is in names and ids."""
        return {**super().get_state(), "begun": self._begun}

    def set_state(self, state: Any) -> None:
        """Go on; mails that are noted on disk count as sent."""
        super().set_state(state)
        self._begun = state["begun"]
        self._sent = len(list(self.workplace.path.glob("mail-*.sent")))
        self.set_metadata("mails_sent", self._sent)


def _note(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    sync_directory(path.parent)
