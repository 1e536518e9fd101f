"""Kafka topics as a source: all of one, what comes, or a sample."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from resilient_exporters.errors import MissingModuleError
from resilient_exporters.pipeline.errors import ConfigurationError
from resilient_exporters.pipeline.option import ListOf, Option
from resilient_exporters.pipeline.readers.base import BaseReader
from resilient_exporters.pipeline.readers.payload import FORMAT, PAYLOAD_FIELD, Payload
from resilient_exporters.units import parse_count

if TYPE_CHECKING:
    from resilient_exporters.pipeline.readers.kafka_topic import KafkaTopic

__all__ = ["BaseKafkaReader", "KafkaReader", "KafkaScannerReader"]

_SSL: Final = {
    "ssl_cafile": "ssl.ca.location",
    "ssl_certfile": "ssl.certificate.location",
    "ssl_keyfile": "ssl.key.location",
    "ssl_password": "ssl.key.password",
    "ssl_ciphers": "ssl.cipher.suites",
    "ssl_crlfile": "ssl.crl.location",
}
_OURS: Final = ("enable.auto.commit", "enable.partition.eof", "error_cb", "bootstrap.servers", "group.id")


def _no_secrets(options: Mapping[str, Any]) -> None:
    wrong = [name for name in options if "password" in name or "secret" in name or name in _OURS]
    if wrong:
        raise ValueError(
            f"{', '.join(wrong)}: not here; passwords go into sasl_password and ssl_configs, brokers and group into "
            "their own options, and the rest of these is the reader's own"
        )


def _counting(value: int) -> int:
    return parse_count(value, "batch_size")


class BaseKafkaReader(BaseReader):
    """What readers of Kafka have in common: where it is, and how a message becomes a record."""

    supported_options = {
        "brokers": Option(type=(ListOf(str), str), help="Host and port of one or more brokers."),
        "topic": Option(type=str, help="Name of the topic."),
        "partitions": Option(type=ListOf(int), default=None, help="Numbers of the partitions; default: all."),
        "batch_size": Option(type=int, default=10_000, check=_counting, help="Records in a batch."),
        "ssl_configs": Option(
            type=dict, default=None, secret=True,
            help="For TLS: ssl_cafile, ssl_certfile, ssl_keyfile, ssl_password, or librdkafka's own ssl.* names.",
        ),
        "sasl_mechanism": Option(
            type=str, default=None, choices=("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"), help="How to log in.",
        ),
        "sasl_username": Option(type=str, default=None, help="User."),
        "sasl_password": Option(
            type=str, default=None, env_fallback="EXPORTERS_KAFKA_PASSWORD", secret=True, help="Password.",
        ),
        "kafka_options": Option(
            type=dict, default={}, check=_no_secrets, help="Further settings of librdkafka, by its names.",
        ),
        "format": FORMAT,
        "payload_field": PAYLOAD_FIELD,
        "key_field": Option(
            type=str, default="_key", help='Field for the key of a message that has one; "": no such field.'
        ),
        "message_field": Option(
            type=str, default=None, help="Field for topic, partition, offset, timestamp and headers; default: none."
        ),
        "timeout": Option(type=float, default=60.0, help="Seconds after which silent brokers are an error."),
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            from resilient_exporters.pipeline.readers.kafka_topic import KafkaTopic
        except ModuleNotFoundError as error:
            raise MissingModuleError(
                None, f"{type(self).__name__} needs {error.name}: pip install 'resilient-exporters[kafka]'"
            ) from error
        self.batch_size: int = self.read_option("batch_size")
        self._payload = Payload(self.read_option("format"), self.read_option("payload_field"))
        self._key_field: str = self.read_option("key_field")
        self._message_field: str | None = self.read_option("message_field")
        self._topic: KafkaTopic = KafkaTopic(
            self._config(),
            self.read_option("topic"),
            self.read_option("partitions"),
            self.read_option("timeout"),
            self._stops,
            self.logger,
        )

    def _stops(self) -> bool:
        return self.stopping()

    def _config(self) -> dict[str, Any]:
        brokers = self.read_option("brokers")
        config: dict[str, Any] = {"bootstrap.servers": brokers if isinstance(brokers, str) else ",".join(brokers)}
        tls = self.read_option("ssl_configs")
        mechanism = self.read_option("sasl_mechanism")
        if tls is not None:
            unknown = [name for name in tls if name not in _SSL and not name.startswith("ssl.")]
            if unknown:
                raise ConfigurationError(
                    None, f"ssl_configs: {', '.join(unknown)}: there are {', '.join(_SSL)}, and librdkafka's ssl.*"
                )
            config.update({_SSL.get(name, name): value for name, value in tls.items()})
        if mechanism is not None:
            if self.read_option("sasl_username") is None or self.read_option("sasl_password") is None:
                raise ConfigurationError(None, f"sasl_mechanism={mechanism} needs sasl_username and sasl_password")
            config["sasl.mechanism"] = mechanism
            config["sasl.username"] = self.read_option("sasl_username")
            config["sasl.password"] = self.read_option("sasl_password")
        if tls is not None or mechanism is not None:
            kind = ("SASL_" if mechanism else "") + ("SSL" if tls is not None else "PLAINTEXT")
            config["security.protocol"] = kind
        return {**config, **self.read_option("kafka_options")}

    def _record(self, message: Any) -> dict[str, Any] | None:
        """The record of a message; None if there is none: a deletion, or a bad one."""
        value = message.value()
        if value is None:
            figures = self.get_all_metadata()
            figures["deletions"] = figures.get("deletions", 0) + 1
            return None
        try:
            record = self._payload.record(value)
        except ValueError as error:
            where = f"{message.topic()}, partition {message.partition()}, offset {message.offset()}"
            self.bad_records.add(value, error, part=self.part, where=where)
            return None
        key = message.key()
        if self._key_field and key is not None:
            record[self._key_field] = _text(key)
        if self._message_field is not None:
            record[self._message_field] = _about(message)
        return record

    def close(self) -> None:
        """Leave the brokers."""
        self._topic.close()


class KafkaReader(BaseKafkaReader):
    """Reads a topic, from its first message to what was the last one when the job began; or, with ``follow``, on.

    The position is an offset for each partition, kept with the job and not by the broker. An error of Kafka ends the
    run with an error. A message without a value (a deletion) is no record, and counted as ``deletions``. Where the
    retention of the topic has deleted what should come next, the run ends with an error that says so.
    """

    supported_options = {
        "start": Option(
            type=str, default="earliest", choices=("earliest", "latest"), help="Where a new job begins.",
        ),
        "follow": Option(type=bool, default=False, help="Wait for more at the end."),
        "idle_timeout": Option(
            type=float, default=None, help="With follow: seconds without a message after which the run ends.",
        ),
        "count": Option(type=int, default=0, help="Messages after which the run ends; 0: no limit."),
        "batch_seconds": Option(
            type=float, default=1.0, help="With follow: longest time in which a batch gathers messages."
        ),
        "group": Option(
            type=str, default=None,
            help="Consumer group that is told the offsets after each commit, for others to see; it is not asked.",
        ),
    }  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._follow: bool = self.read_option("follow")
        self._idle: float | None = self.read_option("idle_timeout")
        self._count: int = self.read_option("count")
        self._gather: float = self.read_option("batch_seconds")
        if self._idle is not None and not self._follow:
            raise ConfigurationError(None, "idle_timeout is for follow=True: without it the run ends at the end")
        self._offsets: dict[int, int] | None = None
        self._ends: dict[int, int] = {}
        self._given = 0
        self._left: dict[int, int] = {}
        self._open = False

    def _config(self) -> dict[str, Any]:
        group = self.read_option("group")
        return {**super()._config(), **({} if group is None else {"group.id": group})}

    def get_next_batch(self) -> Iterator[dict[str, Any]]:
        """The next records."""
        if not self._open:
            begun = self._offsets is not None
            self._begin()
            if not begun and self.read_option("start") == "latest":
                return  # where "latest" was is committed before anything else
        most = self.batch_size if not self._count else min(self.batch_size, self._count - self._given)
        assert self._offsets is not None  # noqa: S101 - _begin sets it
        for message in self._followed(most) if self._follow else self._topic.scan(self._left, most):
            self._offsets[message.partition()] = message.offset() + 1
            self._given += 1
            record = self._record(message)
            if record is not None:
                yield record
        if (self._count and self._given >= self._count) or not (self._follow or self._left):
            self.finished = True

    def _begin(self) -> None:
        bounds = self._topic.bounds()
        if self._offsets is None:
            latest = self.read_option("start") == "latest"
            self._offsets = {number: high if latest else low for number, (low, high) in bounds.items()}
            self._ends = {number: high for number, (_, high) in bounds.items()}
        self._left = {number: end for number, end in self._ends.items() if self._offsets[number] < end}
        wanted = self._offsets if self._follow else {number: self._offsets[number] for number in self._left}
        if not set(wanted) <= set(bounds):
            raise ConfigurationError(None, f"topic {self._topic.name} has partitions {list(bounds)}, not {wanted}")
        self._topic.go_to(wanted, bounds)
        self._open = True

    def _followed(self, most: int) -> Iterator[Any]:
        """What comes: up to so many messages, or those of ``batch_seconds``."""
        number, quiet = 0, time.monotonic()
        until = None
        while number < most and not self.stopping():
            found = self._topic.poll(most - number)
            now = time.monotonic()
            if found:
                quiet = now
                until = until or now + self._gather
            number += len(found)
            yield from found
            if until is not None and now >= until:
                return
            if self._idle is not None and now - quiet >= self._idle and not self._more():
                self.finished = True
                return

    def _more(self) -> bool:
        """Whether there is more after all. An answer at all says that the silence was none of dead brokers."""
        assert self._offsets is not None  # noqa: S101 - _begin sets it
        ends = self._topic.at_end
        return any(
            high > max(self._offsets.get(number, 0), ends.get(number, 0))
            for number, (_, high) in self._topic.bounds().items()
        )

    def get_last_position(self) -> Any:
        """Offsets of the next messages, the ends of a scan, and how many were given."""
        if self._offsets is None:
            return None
        return {"offsets": dict(self._offsets), "ends": dict(self._ends), "given": self._given}

    def set_last_position(self, position: Any) -> None:
        """Go on from these offsets."""
        if position:
            self._offsets, self._ends = dict(position["offsets"]), dict(position["ends"])
            self._given = position["given"]

    def committed(self, position: Any) -> None:
        """Tell the group."""
        if position and self.read_option("group") is not None:
            self._topic.commit(position["offsets"])


class KafkaScannerReader(KafkaReader):
    """The old name of ``KafkaReader``."""


def _text(key: bytes) -> str | bytes:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key


def _about(message: Any) -> dict[str, Any]:
    kind, milliseconds = message.timestamp()
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc) + dt.timedelta(milliseconds=milliseconds)
    return {
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": moment if kind else None,
        "headers": dict(message.headers() or ()),
    }
