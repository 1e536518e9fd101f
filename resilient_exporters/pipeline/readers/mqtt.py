"""MQTT topics as a source."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.pipeline.asking import StopAsked, ask
from resilient_exporters.pipeline.errors import ConfigurationError, PipelineError
from resilient_exporters.pipeline.option import ListOf, Option
from resilient_exporters.pipeline.readers.base import BaseReader
from resilient_exporters.pipeline.readers.payload import FORMAT, PAYLOAD_FIELD, Payload
from resilient_exporters.units import parse_count

if TYPE_CHECKING:
    from resilient_exporters.pipeline.readers.mqtt_session import Message, Session

__all__ = ["MQTTReader"]

_PAUSE: Final = 0.05
"""Seconds without a message that end a batch: the broker may wait for acknowledgements before it sends more."""


def _counting(value: int) -> int:
    return parse_count(value, "batch_size")


class MQTTReader(BaseReader):
    """Reads what is published on topics, in a session that the broker keeps.

    There is no position: a message is acknowledged when it is committed, and what is not acknowledged comes again. So
    none that came with QoS 1 or 2 is lost. A run that stops or fails gives each once; after a kill between a commit and
    its acknowledgement, or a broken connection at that moment, the messages in flight come twice (Mosquitto has 20 in
    flight: ``max_inflight_messages``). What is published with QoS 0 may be lost, as always.
    """

    supported_options = {
        "host": Option(type=str, help="Broker."),
        "port": Option(type=int, default=None, help="Port; default: 1883, with TLS 8883."),
        "topics": Option(type=(ListOf(str), str), help="Topics, or filters with + and #."),
        "client_id": Option(
            type=str, default=None,
            help="Names the session; two readers with the same one disconnect each other. Default: made of host and "
            "topics.",
        ),
        "protocol": Option(
            type=str, default="5", choices=("5", "3.1.1"),
            help="Version of MQTT. With 3.1.1, retained messages come again at each connection.",
        ),
        "session_expiry": Option(
            type=int, default=604_800, help="Seconds for which the broker keeps the session of a reader that is away."
        ),
        "username": Option(type=str, default=None, help="User."),
        "password": Option(
            type=str, default=None, env_fallback="EXPORTERS_MQTT_PASSWORD", secret=True, help="Password."
        ),
        "tls": Option(type=bool, default=False, help="Speak TLS."),
        "ca_certs": Option(type=str, default=None, help="File with the certificates to trust."),
        "keepalive": Option(type=int, default=60, help="Seconds after which a silent connection is looked at."),
        "format": FORMAT,
        "payload_field": PAYLOAD_FIELD,
        "topic_field": Option(type=str, default="_topic", help='Field for the topic; "": no such field.'),
        "batch_size": Option(type=int, default=1000, check=_counting, help="Messages in a batch at most."),
        "batch_seconds": Option(type=float, default=1.0, help="Longest time in which a batch gathers messages."),
        "idle_timeout": Option(
            type=float, default=None, help="Seconds without a message after which the run ends; default: never."
        ),
        "count": Option(type=int, default=0, help="Messages after which the run ends; 0: no limit."),
        "timeout": Option(type=float, default=30.0, help="Seconds for connecting, and for doing so again at the end."),
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        option = self.read_option
        try:
            from resilient_exporters.pipeline.readers.mqtt_session import Session, Settings
        except ModuleNotFoundError as error:
            raise MissingModuleError(
                None, f"MQTTReader needs {error.name}: pip install 'resilient-exporters[mqtt]'"
            ) from error
        given = option("topics")
        topics = [given] if isinstance(given, str) else list(given)
        if not topics or not all(_is_filter(topic) for topic in topics):
            raise ConfigurationError(None, f"topics={topics}: give filters such as sensors/+/temperature or sensors/#")
        if option("password") is not None and option("username") is None:
            raise ConfigurationError(None, "password needs username")
        if option("ca_certs") is not None and not option("tls"):
            raise ConfigurationError(None, "ca_certs needs tls=True")
        host, port = option("host"), option("port") or (8883 if option("tls") else 1883)
        digest = hashlib.sha256("\n".join((host, str(port), *sorted(topics))).encode()).hexdigest()[:16]
        self._where = f"MQTT broker {host}:{port}"
        self._session: Session = Session(
            Settings(
                host=host,
                port=port,
                topics=topics,
                client_id=option("client_id") or f"rexport-{digest}",
                version=option("protocol"),
                expiry=option("session_expiry"),
                keepalive=option("keepalive"),
                username=option("username"),
                password=option("password"),
                tls=option("tls"),
                ca_certs=option("ca_certs"),
                most=option("batch_size"),
            ),
            self.logger,
        )
        self._payload = Payload(option("format"), option("payload_field"))
        self._topic_field: str = option("topic_field")
        self._size: int = option("batch_size")
        self._count: int = option("count")
        self._idle: float | None = option("idle_timeout")
        self._open = False
        self._given = 0
        self._unsettled: deque[tuple[int, Message]] = deque()
        self._lock = threading.Lock()

    def get_next_batch(self) -> Iterator[dict[str, Any]]:
        """The next messages."""
        if not self._open and not self._connected():
            return
        most = self._size if not self._count else min(self._size, self._count - self._given)
        number, quiet, until = 0, time.monotonic(), 0.0
        while number < most and not self.stopping():
            message = self._session.take(_PAUSE if number else 0.1)
            now = time.monotonic()
            if message is not None:
                until = until or now + self.read_option("batch_seconds")
                quiet, number = now, number + 1
                yield from self._records(message)
            elif number or self._is_idle(now - quiet):
                break
            if until and now >= until:
                break
        if self._count and self._given >= self._count:
            self.finished = True
        if self._session.overflown:
            self.set_metadata("overflown", self._session.overflown)

    def _is_idle(self, seconds: float) -> bool:
        """Whether the run ends since nothing comes. Without a connection that says nothing."""
        if self._idle is None or seconds < self._idle:
            return False
        if self._session.connected:
            self.finished = True
        elif seconds > self._idle + self.read_option("timeout"):
            raise PipelineError(None, f"{self._where}: the connection is lost, and does not come back")
        return self.finished

    def _records(self, message: Message) -> Iterator[dict[str, Any]]:
        self._given += 1
        with self._lock:
            self._unsettled.append((self._given, message))
        try:
            record = self._payload.record(message.payload)
        except ValueError as error:
            self.bad_records.add(message.payload, error, part=self.part, where=f"topic {message.topic}")
            return
        if self._topic_field:
            record[self._topic_field] = message.topic
        yield record

    def _connected(self) -> bool:
        timeout = self.read_option("timeout")
        try:
            self._open = ask(
                lambda: self._session.open(timeout, self.stopping),
                self._where,
                passing=lambda error: isinstance(error, OSError),
                reason=str,
                stopping=self.stopping,
            )
        except StopAsked:
            return False
        return self._open

    def committed(self, position: Any) -> None:
        """Acknowledge the messages up to this position."""
        if not position:
            return
        with self._lock:
            while self._unsettled and self._unsettled[0][0] <= position["given"]:
                self._session.acknowledge(self._unsettled.popleft()[1])

    def get_last_position(self) -> Any:
        """How many were given. Where to go on the broker knows."""
        return {"given": self._given}

    def set_last_position(self, position: Any) -> None:
        """Go on counting."""
        self._given = position["given"] if position else 0

    def close(self) -> None:
        """Leave the broker, which keeps the session."""
        self._session.close()


def _is_filter(topic: str) -> bool:
    """Whether this is a topic filter (MQTT 5.0, 4.7.1: wildcards take a whole level, # the last one)."""
    levels = topic.split("/")
    wild = all(level in ("+", "#") for level in levels if set("+#") & set(level))
    return bool(topic) and wild and "#" not in levels[:-1] and "\0" not in topic
