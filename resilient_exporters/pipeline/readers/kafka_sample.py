"""A sample of a Kafka topic as a source."""

from __future__ import annotations

import hashlib
import heapq
import secrets
from collections.abc import Iterator
from typing import Any

from resilient_exporters.pipeline.option import Option
from resilient_exporters.pipeline.readers.kafka import BaseKafkaReader
from resilient_exporters.units import parse_count

__all__ = ["KafkaRandomReader"]


def _counting(value: int) -> int:
    return parse_count(value, "record_count")


class KafkaRandomReader(BaseKafkaReader):
    """Reads a topic whole and gives a uniform sample of its records; all of them if it has no more than asked for.

    Each message gets a number by chance from the job's seed and its place, and those with the smallest are the sample:
    a resume finds the same ones, in whatever order the partitions come. Needs memory for the sample.
    """

    supported_options = {
        "record_count": Option(type=int, check=_counting, help="Size of the sample."),
        "group": Option(type=str, default=None, help="Read for the sake of old configurations, and not used."),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._plan: dict[str, Any] | None = None
        self._given = 0
        self._sample: list[dict[str, Any]] | None = None

    def get_next_batch(self) -> Iterator[dict[str, Any]]:
        """The next records of the sample; the first batch takes as long as it takes to read the topic."""
        if self._sample is None:
            self._sample = self._drawn()
            if self._sample is None:
                return
        for record in self._sample[self._given : self._given + self.batch_size]:
            self._given += 1
            yield dict(record)
        self.finished = self._given >= len(self._sample)

    def _drawn(self) -> list[dict[str, Any]] | None:
        """The sample, in the order of the topic; None: asked to stop before."""
        bounds = self._topic.bounds()
        if self._plan is None:
            self._plan = {
                "seed": secrets.token_bytes(16),
                "starts": {number: low for number, (low, _) in bounds.items()},
                "ends": {number: high for number, (_, high) in bounds.items()},
            }
        starts, ends = self._plan["starts"], self._plan["ends"]
        left = {number: end for number, end in ends.items() if starts[number] < end}
        self._topic.go_to({number: starts[number] for number in left}, bounds)
        size, drawn = self.read_option("record_count"), list[tuple[int, int, int, dict[str, Any]]]()
        while left and not self.stopping():
            for message in self._topic.scan(left, self.batch_size):
                chance, place = self._chance(message), (message.partition(), message.offset())
                if len(drawn) == size and -chance <= drawn[0][0]:
                    continue
                record = self._record(message)
                if record is not None:
                    put = heapq.heappush if len(drawn) < size else heapq.heappushpop
                    put(drawn, (-chance, *place, record))
        if left:
            return None
        return [record for _, _, _, record in sorted(drawn, key=lambda entry: entry[1:3])]

    def _chance(self, message: Any) -> int:
        assert self._plan is not None  # noqa: S101 - _drawn made it
        place = f"{message.partition()}:{message.offset()}".encode()
        return int.from_bytes(hashlib.blake2b(place, digest_size=8, key=self._plan["seed"]).digest(), "big")

    def get_last_position(self) -> Any:
        """The seed, what was read, and how many of the sample were given."""
        return None if self._plan is None else {**self._plan, "given": self._given}

    def set_last_position(self, position: Any) -> None:
        """Draw the same sample, and go on in it."""
        if position:
            self._plan = {name: position[name] for name in ("seed", "starts", "ends")}
            self._given = position["given"]
