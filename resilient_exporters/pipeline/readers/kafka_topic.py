"""A Kafka topic that is read from offsets that we keep ourselves. Imports confluent-kafka."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from resilient_exporters.pipeline.errors import PipelineError

__all__ = ["KafkaTopic"]

_LOOK: Final = 0.1  # seconds between two looks at whether the run is to stop


class KafkaTopic:
    """One topic. Connects when it is first asked something; librdkafka looks for lost brokers again by itself.

    Args:
        config: of librdkafka.
        topic: name.
        partitions: numbers, or None: all.
        timeout: seconds after which brokers that say nothing are an error.
        stopping: whether to return early.
        log: where passing troubles are said.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        topic: str,
        partitions: list[int] | None,
        timeout: float,
        stopping: Callable[[], bool],
        log: logging.LoggerAdapter[logging.Logger],
    ) -> None:
        self._config = {
            "group.id": "resilient-exporters",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",  # any other would leave out what is gone without a word
            "isolation.level": "read_committed",
            "max.poll.interval.ms": 86_400_000,  # how long a batch may take is not the broker's business
            "queued.max.messages.kbytes": 16_384,
            "log_level": 0,  # it would write to stderr; what it says comes to `_note`, too
            **config,
            "error_cb": self._note,
        }
        self.name = topic
        self._partitions = partitions
        self._timeout = timeout
        self._stopping = stopping
        self._log = log
        self._trouble = ""
        self._consumer: Any = None
        self.at_end: dict[int, int] = {}

    @property
    def consumer(self) -> Any:
        """Of confluent-kafka, made now if there is none yet."""
        if self._consumer is None:
            self._consumer = Consumer(self._config)
        return self._consumer

    def bounds(self) -> dict[int, tuple[int, int]]:
        """Partition to the offset of its first message and the one behind its last.

        Raises:
            PipelineError: there is no such topic or partition, or no broker answers.
        """
        try:
            found = self.consumer.list_topics(self.name, timeout=self._timeout).topics[self.name]
            if found.error is not None:
                raise KafkaException(found.error)
            known = sorted(found.partitions)
            wanted = known if self._partitions is None else self._partitions
            if set(wanted) - set(known):
                raise PipelineError(None, f"{self._where()}: partitions={wanted}: there are {known}")
            return {
                number: self.consumer.get_watermark_offsets(TopicPartition(self.name, number), timeout=self._timeout)
                for number in wanted
            }
        except KafkaException as error:
            raise self._error(error.args[0]) from error

    def go_to(self, offsets: Mapping[int, int], bounds: Mapping[int, tuple[int, int]]) -> None:
        """Read on from these offsets.

        Raises:
            PipelineError: what should come next is gone.
        """
        for number, offset in offsets.items():
            low, high = bounds[number]
            if offset < low:
                raise PipelineError(
                    None, f"{self._where()}: messages {offset} to {low - 1} of partition {number} are not there any "
                    "more (retention): begin a new job, or raise retention.ms"
                )  # fmt: skip
            if offset > high:
                raise PipelineError(
                    None, f"{self._where()}: partition {number} ends at {high}, and this job stands at {offset}: the "
                    "topic was made anew; begin a new job"
                )  # fmt: skip
        self.consumer.assign([TopicPartition(self.name, number, offset) for number, offset in offsets.items()])

    def release(self, partition: int) -> None:
        """Read no more of this partition."""
        self.consumer.incremental_unassign([TopicPartition(self.name, partition)])

    def poll(self, most: int) -> list[Any]:
        """Messages that are there or come within a tenth of a second. ``at_end`` says which partitions have no more.

        Raises:
            PipelineError: what Kafka says.
        """
        found = []
        try:
            messages = self.consumer.consume(most, _LOOK)
        except KafkaException as error:
            raise self._error(error.args[0]) from error
        for message in messages:
            trouble = message.error()
            if trouble is None:
                found.append(message)
                self._trouble = ""
            elif trouble.code() == KafkaError._PARTITION_EOF:
                self.at_end[message.partition()] = message.offset()
            elif trouble.retriable() and not trouble.fatal():
                self._note(trouble)  # librdkafka tries again
            else:
                raise self._error(trouble)
        return found

    def scan(self, ends: dict[int, int], most: int) -> Iterator[Any]:
        """Up to so many messages before these ends; partitions that reached theirs are taken out of ``ends``.

        Raises:
            PipelineError: there should be more, and nothing comes.
        """
        number, quiet = 0, time.monotonic()
        while ends and number < most and not self._stopping():
            seen = len(self.at_end)
            found = self.poll(most - number)
            if found or len(self.at_end) > seen:
                quiet = time.monotonic()
            elif time.monotonic() - quiet > self._timeout:
                raise PipelineError(
                    None, f"{self._where()}: nothing came for {self._timeout:g} s, but partitions {sorted(ends)} are "
                    f"not at their ends {sorted(ends.values())}: {self._trouble or 'a transaction may be open'}"
                )  # fmt: skip
            for message in found:
                partition, offset = message.partition(), message.offset()
                end = ends.get(partition)
                if end is not None and offset < end:
                    number += 1
                    yield message
                if end is not None and offset + 1 >= end:
                    self._done(partition, ends)
            for partition, offset in list(self.at_end.items()):
                if offset >= ends.get(partition, offset + 1):
                    self._done(partition, ends)

    def _done(self, partition: int, ends: dict[int, int]) -> None:
        del ends[partition]
        self.at_end.pop(partition, None)
        self.release(partition)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Tell the consumer group how far we are, for others to see. That this fails does not matter to us."""
        places = [TopicPartition(self.name, number, offset) for number, offset in offsets.items()]
        try:
            self.consumer.commit(offsets=places, asynchronous=True)
        except KafkaException as error:
            self._log.warning("%s: the group's offsets cannot be committed: %s", self._where(), error)

    def close(self) -> None:
        """Leave."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _note(self, error: Any) -> None:
        """What librdkafka says of brokers; it tries again by itself. Called within ``poll``."""
        if not self._trouble:
            self._log.warning("%s: %s", self._where(), error.str())
        self._trouble = error.str()

    def _error(self, error: Any) -> PipelineError:
        trouble = f" ({self._trouble})" if self._trouble and self._trouble not in str(error) else ""
        return PipelineError(None, f"{self._where()}: {error.name()}: {error.str()}{trouble}")

    def _where(self) -> str:
        return f"Kafka topic {self.name} at {self._config['bootstrap.servers']}"
