"""Records from a real Kafka: every one once over interruptions, and an error is an error."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from resilient_exporters.pipeline import Pipeline, PipelineError
from resilient_exporters.pipeline.readers import KafkaRandomReader, KafkaReader, KafkaScannerReader
from resilient_exporters.testing import eventually
from tests.readings import Keeping, StumbledError, Stumbling, run_with_stumbles
from tests.servers.conftest import unique
from tests.servers.provision import HOST, Instance

Send = Callable[..., None]


@pytest.fixture
def brokers(kafka: Instance) -> list[str]:
    return [f"{HOST}:{kafka.port}"]


@pytest.fixture
def topic(brokers: list[str]) -> Iterator[str]:
    """A topic of three partitions."""
    name = unique("topic")
    admin = AdminClient({"bootstrap.servers": brokers[0]})
    admin.create_topics([NewTopic(name, 3, 1)])[name].result(60)
    yield name
    admin.delete_topics([name])[name].result(60)


@pytest.fixture
def send(brokers: list[str], topic: str) -> Send:
    def send_numbers(numbers: range, pack: Callable[[Any], bytes] = lambda n: json.dumps({"n": n}).encode()) -> None:
        producer = Producer({"bootstrap.servers": brokers[0], "linger.ms": 5})
        for number in numbers:
            producer.produce(topic, pack(number), key=f"key {number}", partition=number % 3)
        assert producer.flush(60) == 0

    return send_numbers


def test_a_scan_that_is_interrupted_gives_every_record_once(brokers: list[str], topic: str, send: Send) -> None:
    # Given a topic that grows while it is read
    send(range(3000))

    # When a scan of it is interrupted in the middle of batches, and resumed each time
    def reader() -> KafkaReader:
        return KafkaScannerReader(brokers=brokers, topic=topic, batch_size=250, message_field="message")

    kept, runs = run_with_stumbles(reader, [300, 700, 1900], after=lambda: send(range(3000, 3100)))

    # Then what was there when the job began is there once, in the order of each partition
    assert runs == 4
    assert sorted(record["n"] for record in kept) == list(range(3000))
    for partition in range(3):
        offsets = [one["message"]["offset"] for one in kept if one["message"]["partition"] == partition]
        assert offsets == list(range(1000))
    assert all(record["_key"] == f"key {record['n']}" for record in kept)


def test_a_reader_that_follows_ends_when_nothing_comes(brokers: list[str], topic: str, send: Send) -> None:
    # Given a reader that follows a topic from its end
    send(range(10))
    kept: list[Any] = []

    def more(record: Any) -> bool:
        if record["n"] == 11:
            send(range(12, 15))
        return True

    reader = KafkaReader(
        brokers=brokers, topic=topic, start="latest", follow=True, idle_timeout=0.5, batch_seconds=0.1, group="watched"
    )
    assert not list(reader.get_next_batch())  # it knows now where "latest" is
    send(range(10, 12))

    # When records come, also while it reads
    Pipeline(reader, more, writer=Keeping(kept)).run()

    # Then it gave those, and the group was told
    assert sorted(record["n"] for record in kept) == list(range(10, 15))
    watcher = Consumer({"bootstrap.servers": brokers[0], "group.id": "watched"})
    told = watcher.committed([TopicPartition(topic, number) for number in range(3)], timeout=60)
    watcher.close()
    assert [place.offset for place in told] == [5, 5, 5]


def test_a_limit_ends_the_run_and_counts_over_resumes(brokers: list[str], topic: str, send: Send) -> None:
    send(range(30))

    def reader() -> KafkaReader:
        return KafkaReader(brokers=brokers, topic=topic, count=20, follow=True, batch_size=7, batch_seconds=0.1)

    kept, _ = run_with_stumbles(reader, [9])
    assert len({record["n"] for record in kept}) == len(kept) == 20


def test_a_sample_is_the_same_after_a_resume(brokers: list[str], topic: str, send: Send) -> None:
    send(range(2000))

    def reader(size: int = 50) -> KafkaRandomReader:
        return KafkaRandomReader(brokers=brokers, topic=topic, record_count=size, batch_size=20, group="old")

    kept, runs = run_with_stumbles(reader, [5, 30])
    assert runs == 3
    assert len({record["n"] for record in kept}) == len(kept) == 50
    everything: list[Any] = []
    Pipeline(reader(5000), writer=Keeping(everything)).run()
    assert sorted(record["n"] for record in everything) == list(range(2000))


def test_transactions_that_were_aborted_are_not_read(brokers: list[str], topic: str) -> None:
    producer = Producer({"bootstrap.servers": brokers[0], "transactional.id": unique("transaction")})
    producer.init_transactions(60)
    for number, commit in enumerate((True, False, True)):
        producer.begin_transaction()
        producer.produce(topic, json.dumps({"n": number}).encode(), partition=0)
        if commit:
            producer.commit_transaction(60)
        else:
            producer.abort_transaction(60)
    kept: list[Any] = []
    report = Pipeline(KafkaReader(brokers=brokers, topic=topic), writer=Keeping(kept)).run()
    assert (report.complete, [record["n"] for record in kept]) == (True, [0, 2])


def test_bad_messages_and_deletions_are_counted(brokers: list[str], topic: str, send: Send) -> None:
    send(range(6), lambda number: {4: b"\xff no JSON", 5: None}.get(number, b'{"n": %d}' % number))
    kept: list[Any] = []
    report = Pipeline(KafkaReader(brokers=brokers, topic=topic), writer=Keeping(kept), on_bad_record="skip").run()
    assert sorted(record["n"] for record in kept) == [0, 1, 2, 3]
    assert (report.bad, report.figures["reader"]["deletions"]) == ({"reader": 1}, 1)
    with pytest.raises(PipelineError, match=f"{topic}, partition 1, offset 1"):
        Pipeline(KafkaReader(brokers=brokers, topic=topic), writer=Keeping([])).run()


def test_fault_9_an_error_is_an_error_and_not_the_end(brokers: list[str], topic: str, send: Send) -> None:
    # A topic that is not there, a partition that is not there, brokers that are not there
    for options, text in (
        ({"topic": "nowhere"}, "UNKNOWN_TOPIC_OR_PART"),
        ({"partitions": [7]}, r"there are \[0, 1, 2\]"),
        ({"brokers": f"{HOST}:1", "timeout": 1.0}, "_TRANSPORT"),
    ):
        given = {"brokers": brokers, "topic": topic, **options}
        with pytest.raises(PipelineError, match=text):
            Pipeline(KafkaReader(**given), writer=Keeping([])).run()


def test_a_topic_that_is_deleted_while_it_is_read_is_an_error(brokers: list[str], topic: str, send: Send) -> None:
    # Given a job that was interrupted
    send(range(300))
    reader = KafkaReader(brokers=brokers, topic=topic, batch_size=100)
    pipeline = Pipeline(reader, writer=Stumbling([], 150))
    with pytest.raises(StumbledError):
        pipeline.run()

    # When what it would read next is deleted, then the resume says so
    admin = AdminClient({"bootstrap.servers": brokers[0]})
    places = [TopicPartition(topic, number, 100) for number in range(3)]
    for future in admin.delete_records(places).values():
        future.result(60)
    again = KafkaReader(brokers=brokers, topic=topic, batch_size=100)
    with pytest.raises(PipelineError, match="are not there any more"):
        Pipeline(again, writer=Stumbling([], 10_000), resume=pipeline.persistence.job).run()


def test_a_reader_that_follows_stops_when_asked_to(brokers: list[str], topic: str, send: Send) -> None:
    send(range(3))
    reader, stop = KafkaReader(brokers=brokers, topic=topic, follow=True), threading.Event()
    reader.stopping = stop.is_set
    kept: list[Any] = []
    done = threading.Thread(target=lambda: kept.extend(one for _ in range(2) for one in reader.get_next_batch()))
    done.start()
    eventually(lambda: len(kept) == 3)
    stop.set()
    done.join(60)
    assert not done.is_alive()
    reader.close()


@pytest.mark.soak
def test_a_broker_that_crashes_is_an_error_and_nothing_is_lost(own_server: Callable[..., Instance]) -> None:
    # Given a scan in the middle of a topic, with less read ahead than there is
    server = own_server("kafka")
    address, topic = f"{HOST}:{server.port}", "crash"
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(60)
    producer = Producer({"bootstrap.servers": address, "linger.ms": 5, "log_level": 0})
    for number in range(3000):
        producer.produce(topic, json.dumps({"n": number, "fill": "x" * 4000}).encode(), partition=number % 2)
    assert producer.flush(60) == 0

    def reader() -> KafkaReader:
        small = {"queued.max.messages.kbytes": 1024, "fetch.max.bytes": 1 << 20, "max.partition.fetch.bytes": 1 << 18}
        return KafkaReader(brokers=address, topic=topic, batch_size=100, timeout=8.0, kafka_options=small)

    kept: list[Any] = []

    class Crashing(Keeping):
        def write_record(self, record: Any) -> None:
            super().write_record(record)
            if len(kept) == 450:
                server.kill()

    # When the broker is killed, then the run fails, with what Kafka says
    broken = Pipeline(reader(), writer=Crashing(kept))
    with pytest.raises(PipelineError, match=r"nothing came for 8 s.*not at their ends.*refused"):
        broken.run()

    # When it is back, then the resume gives the rest
    server.start()
    Pipeline(reader(), writer=Crashing(kept), resume=broken.persistence.job).run()
    assert sorted(one["n"] for one in kept) == list(range(3000))
