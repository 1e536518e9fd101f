"""The main document's examples for MongoDB, as written but for the ports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pymongo
import pytest

from tests.servers.conftest import own_server, servers  # noqa: F401 - fixtures
from tests.servers.provision import HOST, Instance
from tests.servers.provision.server import free_port

OwnServer = Callable[..., Instance]


@pytest.fixture
def late(own_server: OwnServer) -> Iterator[Callable[[int], pymongo.MongoClient[dict[str, Any]]]]:  # noqa: F811 - a fixture
    """Start the server on this port, where nobody was until now."""
    clients: list[pymongo.MongoClient[dict[str, Any]]] = []

    def start(port: int, **options: Any) -> pymongo.MongoClient[dict[str, Any]]:
        own_server("ferretdb", port=port, **options)
        account = {"username": options.get("user"), "password": options.get("password")}
        clients.append(pymongo.MongoClient(HOST, port, **account))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


def arrives(client: pymongo.MongoClient[dict[str, Any]], exporter: Any, db: str, collection: str) -> dict[str, Any]:
    """The document that the exporter has sent, once the server is there."""
    assert exporter.flush(timeout=30).complete
    documents = list(client[db][collection].find({}, {"_id": 0}))
    assert len(documents) == 1
    return documents[0]


def test_to_mongodb(late: Any) -> None:
    port = free_port()
    began = time.monotonic()

    from resilient_exporters import MongoDBExporter

    exporter = MongoDBExporter(
        target_ip="127.0.0.1",
        target_port=port,
        username="username",
        password="password",
        default_db="my_db",
        default_collection="my_collection",
    )

    mydata = {"field1": "value1"}
    exporter.send(mydata)

    # Nobody is there, and nothing waited; the original blocks for 30 s and raises
    assert time.monotonic() - began < 30
    assert exporter.stats().pending == 1
    client = late(port, user="username", password="password")
    assert arrives(client, exporter, "my_db", "my_collection") == {"field1": "value1"}
    assert mydata == {"field1": "value1"}
    exporter.close()


def test_transform_data_before_sending(late: Any) -> None:
    port = free_port()

    from resilient_exporters import MongoDBExporter

    def transform(data):
        data["metric"] = (data["metric"] / 2) * 0.5
        return data

    exporter = MongoDBExporter(
        target_ip="127.0.0.1",
        target_port=port,
        default_db="my_db",
        default_collection="my_collection",
        transform=transform,
    )

    mydata = {"metric": 2}
    exporter.send(mydata)

    # Transformed once, however often it is tried
    assert mydata == {"metric": 2}
    client = late(port)
    assert arrives(client, exporter, "my_db", "my_collection") == {"metric": 0.5}
    exporter.close()


def test_multiple_distant_targets(late: Any) -> None:
    port = free_port()

    from resilient_exporters import ExporterPool  # isort: skip # as written
    from resilient_exporters import MongoDBExporter, ElasticSearchExporter  # isort: skip # as written

    exporters = [
        MongoDBExporter(
            target_ip="127.0.0.1", target_port=port, default_db="my_db", default_collection="my_collection"
        ),
        ElasticSearchExporter(cloud_id="cloud id", api_key="api key", default_index="my_index"),
    ]

    pool = ExporterPool(exporters, use_memory=False)

    mydata = {"metric": 2}
    pool.send(mydata)

    # The cloud that nobody has does not keep MongoDB from its document
    client = late(port)
    pool.flush(timeout=30)
    assert list(client.my_db.my_collection.find({}, {"_id": 0})) == [{"metric": 2}]
    figures = pool.stats().targets
    assert sorted(target.pending for target in figures.values()) == [0, 1]
    pool.close()
