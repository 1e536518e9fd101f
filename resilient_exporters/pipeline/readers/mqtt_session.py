"""A session with an MQTT broker whose messages are acknowledged when they are safe. Imports paho-mqtt."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from paho.mqtt.client import Client, MQTTMessage, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from resilient_exporters.pipeline.errors import PipelineError

__all__ = ["Message", "Session", "Settings"]

_MOST: Final = 100_000
"""Messages of QoS 0 that wait here at most; of QoS 1 the broker sends no more than it may have in flight."""
_NO_SESSION: Final = 0
_LAST: Final = 5.0  # seconds to wait for the broker to have read our acknowledgements


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the broker is and what is wanted of it.

    Attributes:
        host, port: of the broker.
        topics: filters.
        client_id: names the session.
        version: of MQTT: "5" or "3.1.1".
        expiry: seconds that the broker keeps the session (MQTT 5).
        keepalive: seconds.
        username, password: or None.
        tls: whether to speak TLS; ``ca_certs`` a file with certificates to trust, or None: those of the system.
        most: messages that may be in flight.
    """

    host: str
    port: int
    topics: Sequence[str]
    client_id: str
    version: str
    expiry: int
    keepalive: int
    username: str | None
    password: str | None
    tls: bool
    ca_certs: str | None
    most: int


class Message(msgspec.Struct, frozen=True):
    """A message that came.

    Attributes:
        topic, payload: of it.
        mid: number by which it is acknowledged; 0: it is not.
        session: number of the session that it came in.
    """

    topic: str
    payload: bytes
    mid: int
    session: int


class Session:
    """Receives messages in a thread of paho's, which also connects again by itself.

    Args:
        settings: where and what.
        log: where lost connections are said.
    """

    def __init__(self, settings: Settings, log: logging.LoggerAdapter[logging.Logger]) -> None:
        self._settings = settings
        self._log = log
        self._came: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open: dict[int, bool] = {}  # by number: whether it could not be acknowledged for want of a connection
        self._acknowledged: set[int] = set()  # on this connection
        self._session = _NO_SESSION
        self._ready = threading.Event()
        self._read = threading.Event()
        self._refusal = ""
        self._client: Client | None = None
        self.overflown = 0

    # -- connecting ------------------------------------------------------------------------------------------------

    def open(self, timeout: float, stopping: Callable[[], bool]) -> bool:
        """Connect and subscribe. False: asked to stop.

        Raises:
            OSError: there is nobody.
            PipelineError: the broker refuses, or says nothing.
        """
        client = self._made()
        try:
            options: dict[str, Any] = {}
            if self._settings.version == "5":
                options = {"clean_start": False, "properties": self._properties()}
            client.connect(self._settings.host, self._settings.port, self._settings.keepalive, **options)
            client.loop_start()
            until = time.monotonic() + timeout
            while not self._ready.wait(0.1):
                self.check()
                if stopping():
                    self._end(client)
                    return False
                if time.monotonic() > until:
                    raise PipelineError(None, f"{self._where}: no answer in {timeout:g} s")
        except BaseException:
            self._end(client)
            raise
        self._client = client
        return True

    def _made(self) -> Client:
        settings = self._settings
        newest = settings.version == "5"
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=None if newest else False,
            protocol=MQTTv5 if newest else MQTTv311,
            manual_ack=True,
        )
        if settings.username is not None:
            client.username_pw_set(settings.username, settings.password)
        if settings.tls:
            client.tls_set(ca_certs=settings.ca_certs)
        client.reconnect_delay_set(1, 30)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = lambda *_: self._read.set()
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        return client

    def _properties(self) -> Properties:
        found = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho has no types there
        found.SessionExpiryInterval = self._settings.expiry
        found.ReceiveMaximum = min(self._settings.most, 65_535)
        return found

    def _on_connect(self, client: Client, _: Any, flags: Any, code: Any, __: Any) -> None:
        if code.is_failure:
            self._refusal = f"refused: {code}"
            return
        with self._lock:
            self._acknowledged.clear()
            if not flags.session_present:  # the numbers of the session before mean nothing any more
                self._session += 1
                self._open.clear()
        if self._settings.version == "5":
            # Retained messages come with a new subscription only: not again at each connection.
            how = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
            client.subscribe([(topic, how) for topic in self._settings.topics])
        else:
            client.subscribe([(topic, 1) for topic in self._settings.topics])

    def _on_subscribe(self, _: Client, __: Any, ___: int, codes: Any, ____: Any) -> None:
        refused = [topic for topic, code in zip(self._settings.topics, codes, strict=False) if code.is_failure]
        if refused:
            self._refusal = f"the broker refuses the topics {', '.join(refused)}"
        self._ready.set()

    def _on_disconnect(self, _: Client, __: Any, ___: Any, code: Any, ____: Any) -> None:
        if code.is_failure:
            self._log.warning("%s: connection lost: %s", self._where, code)

    # -- messages --------------------------------------------------------------------------------------------------

    def _on_message(self, client: Client, _: Any, message: MQTTMessage) -> None:
        if message.qos == 0:
            if self._came.qsize() >= _MOST:
                self.overflown += 1
            else:
                self._came.put(Message(message.topic, bytes(message.payload), 0, self._session))
            return
        with self._lock:
            # Sent again, since the connection broke: we have it; or have even acknowledged it, and that crossed it.
            again = message.dup and (message.mid in self._open or message.mid in self._acknowledged)
            settled = again and self._open.get(message.mid, False)
            if settled:
                del self._open[message.mid]
            elif not again:
                self._open[message.mid] = False
                self._acknowledged.discard(message.mid)
        if settled:
            client.ack(message.mid, 1)
        elif not again:
            self._came.put(Message(message.topic, bytes(message.payload), message.mid, self._session))

    def take(self, seconds: float) -> Message | None:
        """The next message that is there or comes in this time.

        Raises:
            PipelineError: the broker refuses us.
        """
        try:
            return self._came.get(timeout=seconds) if seconds > 0 else self._came.get_nowait()
        except queue.Empty:
            self.check()
            return None

    def check(self) -> None:
        """Whether the broker has refused us.

        Raises:
            PipelineError: it has.
        """
        if self._refusal:
            raise PipelineError(None, f"{self._where}: {self._refusal}")

    @property
    def connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._client is not None and self._client.is_connected()

    def acknowledge(self, message: Message) -> None:
        """The message is safe: the broker may forget it."""
        client = self._client
        if client is None or not message.mid:
            return
        with self._lock:
            if message.session != self._session or message.mid not in self._open:
                return
            if not client.is_connected():
                self._open[message.mid] = True  # it comes again, and is acknowledged then
                return
            del self._open[message.mid]
            self._acknowledged.add(message.mid)
        client.ack(message.mid, 1)

    def close(self) -> None:
        """Leave. The broker keeps the session, with all that was not acknowledged."""
        client, self._client = self._client, None
        if client is None:
            return
        if self._acknowledged and client.is_connected():
            # A connection that is closed while messages come in may take acknowledgements with it that the broker has
            # not read. It reads in order: its answer to anything says that it has them.
            client.unsubscribe(f"resilient-exporters/nothing/{self._settings.client_id}")
            self._read.wait(_LAST)
        self._end(client)

    @staticmethod
    def _end(client: Client) -> None:
        with contextlib.suppress(OSError):  # the connection is gone already
            client.disconnect()
        client.loop_stop()

    @property
    def _where(self) -> str:
        return f"MQTT broker {self._settings.host}:{self._settings.port}"
