"""What is published on a real broker: none lost, and each once unless the process is killed at the wrong moment."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from resilient_exporters.pipeline import ConfigurationError, Pipeline, PipelineError
from resilient_exporters.pipeline.readers import MQTTReader
from resilient_exporters.testing import eventually
from tests.readings import Keeping, run_with_stumbles
from tests.servers.conftest import unique
from tests.servers.provision import HOST, Instance, Link


class Publisher:
    """Publishes numbers with QoS 1, and waits until the broker has them."""

    def __init__(self, port: int, topic: str) -> None:
        self.topic = topic
        self.client = Client(CallbackAPIVersion.VERSION2)
        self.client.connect(HOST, port)
        self.client.loop_start()

    def __call__(self, numbers: range, payload: Callable[[int], Any] = lambda n: json.dumps({"n": n})) -> None:
        sent = [self.client.publish(f"{self.topic}/{n % 3}", payload(n), qos=1) for n in numbers]
        for one in sent:
            one.wait_for_publish(60)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def topic() -> str:
    return unique("topic")


@pytest.fixture
def publish(mosquitto: Instance, topic: str) -> Iterator[Publisher]:
    publisher = Publisher(mosquitto.port, topic)
    yield publisher
    publisher.close()


@pytest.fixture
def options(mosquitto: Instance, topic: str) -> dict[str, Any]:
    return {"host": HOST, "port": mosquitto.port, "topics": f"{topic}/+"}


def subscribed(options: dict[str, Any]) -> None:
    """Begin the session: what is published from now on is kept for it."""
    Pipeline(MQTTReader(**options, idle_timeout=0.05), writer=Keeping([])).run()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("threaded", [False, True])
def test_runs_that_fail_and_are_resumed_give_each_message_once(
    publish: Publisher, options: dict[str, Any], protocol: str, threaded: bool
) -> None:
    # Given messages that were published while the reader was away
    options["protocol"] = protocol
    subscribed(options)
    publish(range(150))

    # When they are read with interruptions, while more are published
    kept, runs = run_with_stumbles(
        lambda: MQTTReader(**options, batch_size=8, count=170),
        [1, 60],
        after=lambda: publish(range(150, 160)),
        threaded=threaded,
    )

    # Then each that was published in between and before is there once; those of the second interruption are again
    # 150 to 159, and come a second time
    assert runs == 3
    assert sorted(one["n"] for one in kept) == sorted([*range(160), *range(150, 160)])
    assert all(one["_topic"] == f"{publish.topic}/{one['n'] % 3}" for one in kept)


def test_a_broken_connection_doubles_nothing_that_was_not_committed(
    publish: Publisher, mosquitto: Instance, link: Callable[[int], Link], options: dict[str, Any]
) -> None:
    # Given a reader behind a link, in the middle of a batch
    bad = link(mosquitto.port)
    options["port"] = bad.port
    subscribed(options)
    publish(range(15))
    reader = MQTTReader(**options, batch_size=15, count=18)
    batch = reader.get_next_batch()
    kept = [next(iter(batch))["n"] for _ in range(5)]

    # When the link breaks, and comes back
    bad.cut()
    eventually(lambda: not reader._session.connected)
    bad.mend()
    eventually(lambda: reader._session.connected)

    # Then the rest comes, and what the broker sent again is known
    kept += [one["n"] for one in batch]
    publish(range(15, 18))
    while not reader.is_finished():
        reader.committed(reader.get_last_position())
        kept += [one["n"] for one in reader.get_next_batch()]
    reader.close()
    assert sorted(kept) == list(range(18))


def test_numbers_texts_and_bad_payloads(publish: Publisher, options: dict[str, Any]) -> None:
    subscribed(options)
    payloads = ["21.5", '"on"', b"\xff", '{"n": 3}']
    publish(range(4), lambda n: payloads[n])
    kept: list[Any] = []
    report = Pipeline(MQTTReader(**options, topic_field="", count=4), writer=Keeping(kept), on_bad_record="skip").run()
    assert sorted(map(str, kept)) == ["{'n': 3}", "{'value': 'on'}", "{'value': 21.5}"]
    assert (report.bad, report.complete) == ({"reader": 1}, True)
    again: list[Any] = []
    Pipeline(MQTTReader(**options, topic_field="", idle_timeout=0.3), writer=Keeping(again)).run()
    assert again == []


def test_retained_messages_come_once(publish: Publisher, options: dict[str, Any]) -> None:
    publish.client.publish(f"{publish.topic}/0", '{"n": 1}', qos=1, retain=True).wait_for_publish(60)
    kept: list[Any] = []
    for end in ({"count": 1}, {"idle_timeout": 0.3}):
        Pipeline(MQTTReader(**options, **end), writer=Keeping(kept)).run()
    assert [one["n"] for one in kept] == [1]


def test_a_reader_stops_when_asked_to(options: dict[str, Any]) -> None:
    reader, stop = MQTTReader(**options), threading.Event()
    reader.stopping = stop.is_set
    done = threading.Thread(target=lambda: list(reader.get_next_batch()))
    done.start()
    eventually(lambda: reader._session.connected)
    stop.set()
    done.join(60)
    assert not done.is_alive()
    reader.close()


def test_an_error_is_an_error_and_not_the_end(own_server: Callable[..., Instance]) -> None:
    with pytest.raises(PipelineError, match=r"MQTT broker .*refused"):
        Pipeline(
            MQTTReader(host=HOST, port=1, topics="t", idle_timeout=0.1), writer=Keeping([]), disable_retries=True
        ).run()
    server = own_server("mosquitto", user="edge", password="secret", tls=True)
    known: dict[str, Any] = {"host": "localhost", "port": server.port, "tls": True, "ca_certs": str(server.certificate)}
    with pytest.raises(PipelineError, match="refused: Not authorized"):
        Pipeline(MQTTReader(**known, topics="t", username="edge", password="wrong"), writer=Keeping([])).run()
    right = MQTTReader(**known, topics="t", username="edge", password="secret", idle_timeout=0.1)
    assert Pipeline(right, writer=Keeping([])).run().complete
    assert "secret" not in repr(right)


def test_mistakes_are_told() -> None:
    for options, text in (
        ({"topics": "a/#/b"}, "give filters such as"),
        ({"topics": []}, "give filters such as"),
        ({"topics": "a", "password": "x"}, "password needs username"),
        ({"topics": "a", "ca_certs": "x"}, "ca_certs needs tls"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            MQTTReader(host=HOST, **options)
