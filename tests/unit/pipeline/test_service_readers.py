"""Readers of services: made without touching anything, found by their names, and clear about what is missing."""

from __future__ import annotations

import socket
import sys
from typing import Any

import pytest

from resilient_exporters import MissingModuleError
from resilient_exporters.pipeline import ConfigurationError, readers
from resilient_exporters.pipeline.catalogue import find

MADE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ElasticsearchReader": ("elasticsearch", "elasticsearch", {"hosts": "host.invalid:9200", "index": "i"}),
    "HubstorageReader": (
        "scrapinghub", "hubstorage", {"apikey": "hidden key", "project_id": "7", "collection_name": "c"},
    ),
    "KafkaRandomReader": (
        "confluent_kafka", "kafka", {"brokers": ["host.invalid:9092"], "topic": "t", "record_count": 5, "group": "g"},
    ),
    "KafkaReader": ("confluent_kafka", "kafka", {"brokers": "host.invalid:9092", "topic": "t"}),
    "KafkaScannerReader": (
        "confluent_kafka", "kafka", {"brokers": ["host.invalid:9092"], "topic": "t", "partitions": [0]},
    ),
    "MQTTReader": ("paho", "mqtt", {"host": "host.invalid", "topics": ["a/+"]}),
    "MongoChangeStreamReader": ("pymongo", "mongodb", {"uri": "mongodb://me:hidden@host.invalid/d.c"}),
    "MongoReader": ("pymongo", "mongodb", {"uri": "mongodb://me:hidden@host.invalid/d.c"}),
    "SQLReader": ("sqlalchemy", "sql", {"url": "postgresql://me:hidden@host.invalid/d", "table": "t"}),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_one_is_made_without_a_look_at_the_network_and_shows_no_secret(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it connects"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("it looks for the host"))
    made = getattr(readers, name)({"options": MADE[name][2]})
    assert made.is_finished() is False
    assert "hidden" not in repr(made)
    made.close()


@pytest.mark.parametrize("name", MADE)
def test_what_is_not_installed_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, extra, options = MADE[name]
    for known in [known for known in sys.modules if known == module or known.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, known)
    for ours in ("kafka_topic", "sql_pages", "mqtt_session", "elasticsearch_shards"):
        monkeypatch.delitem(sys.modules, f"{readers.__name__}.{ours}", raising=False)
    monkeypatch.delitem(sys.modules, "resilient_exporters.exporters.sql_engine", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingModuleError, match=rf"{name} needs .*pip install 'resilient-exporters\[{extra}\]'"):
        getattr(readers, name)(**options)


def test_the_old_names_are_found() -> None:
    for path, cls in (
        ("exporters.readers.kafka_scanner_reader.KafkaScannerReader", readers.KafkaScannerReader),
        ("exporters.readers.kafka_random_reader.KafkaRandomReader", readers.KafkaRandomReader),
        ("exporters.readers.hubstorage_reader.HubstorageReader", readers.HubstorageReader),
    ):
        assert find("reader", path) is cls


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"topic": 1}, "topic: Wrong type"),
        ({"batch_size": 0}, "batch_size"),
        ({"idle_timeout": 1.0}, "idle_timeout is for follow=True"),
        ({"format": "xml"}, "none of auto, json"),
        ({"ssl_configs": {"cafile": "x"}}, "ssl_configs: cafile: there are ssl_cafile"),
        ({"sasl_mechanism": "PLAIN"}, "needs sasl_username and sasl_password"),
        ({"kafka_options": {"sasl.password": "x"}}, "passwords go into sasl_password"),
        ({"kafka_options": {"enable.auto.commit": True}}, "enable.auto.commit: not here"),
    ],
)
def test_mistakes_in_the_options_of_kafka_are_told(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        readers.KafkaReader(**{"brokers": "host:9092", "topic": "t", **options})


def test_tls_and_login_become_settings_of_librdkafka() -> None:
    reader = readers.KafkaReader(
        brokers=["a:1", "b:2"], topic="t", ssl_configs={"ssl_cafile": "ca.pem", "ssl.key.location": "key.pem"},
        sasl_mechanism="SCRAM-SHA-256", sasl_username="me", sasl_password="hidden", kafka_options={"client.id": "x"},
    )  # fmt: skip
    assert reader._config() == {
        "bootstrap.servers": "a:1,b:2",
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": "ca.pem",
        "ssl.key.location": "key.pem",
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": "me",
        "sasl.password": "hidden",
        "client.id": "x",
    }
    assert "hidden" not in str(reader.shown_options())
