"""The main document's examples for Elasticsearch, as written but for the ports and places (shared/seeds)."""

from __future__ import annotations

import base64
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymongo
import pytest
from elasticsearch import Elasticsearch

from resilient_exporters.delivery.breaker import HELD
from tests.servers.conftest import own_server, servers  # noqa: F401 - fixtures
from tests.servers.provision import HOST, Instance
from tests.servers.provision.server import free_port

OwnServer = Callable[..., Instance]


def documents(server: Instance, index: str) -> list[dict[str, Any]]:
    with Elasticsearch(server.url) as client:
        client.indices.refresh(index=index)
        return [hit["_source"] for hit in client.search(index=index)["hits"]["hits"]]


def self_signed(folder: Path, name: str) -> Path:
    """A certificate, and its key where nginx looks for it."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext",
         f"subjectAltName=DNS:{name}", "-keyout", folder / "server.key", "-out", folder / "server.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "server.crt"


def test_to_elasticsearch(own_server: OwnServer) -> None:  # noqa: F811 - a fixture
    # Given a server that does not run yet, behind a gate that has a certificate
    port = free_port(2)
    gate = own_server("nginx", tls=True, upstream=port)
    began = time.monotonic()

    from resilient_exporters import ElasticSearchExporter

    exporter = ElasticSearchExporter(
        target_ip="localhost",
        target_port=gate.port,
        default_index="my_index",
        use_ssl=True,
        ssl_certfile=str(gate.certificate),
        sniff_on_start=True,
    )

    mydata = {"field1": "value1"}
    exporter.send(mydata)

    # Nobody is there, and nothing waited
    assert time.monotonic() - began < 30
    assert exporter.stats().pending == 1
    server = own_server("elasticsearch8", port=port)
    assert exporter.flush(timeout=30).complete
    assert documents(server, "my_index") == [{"field1": "value1"}]
    exporter.close()


def test_as_written_to_the_letter() -> None:
    # Given the example with the path that it has, at a place where there is no such file

    from resilient_exporters import ElasticSearchExporter

    exporter = ElasticSearchExporter(
        target_ip="127.0.0.1", default_index="my_index", use_ssl=True, ssl_certfile="/path/to/file", sniff_on_start=True
    )

    mydata = {"field1": "value1"}
    receipt = exporter.send(mydata)

    # Then the record waits, and the reason says why
    exporter.flush(timeout=10)
    assert not receipt.successful
    target = exporter.stats().targets[exporter.name]
    assert (target.state, target.pending) == (HELD, 1)
    assert "ssl_certfile='/path/to/file': the file is not there" in target.last_error
    exporter.close()


def test_pools(own_server: OwnServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811 - a fixture
    # Given a deployment in the cloud that nobody runs yet: its gate has a name, a certificate and an API key
    mongo_port, gate_port, port = free_port(), free_port(2), free_port(2)
    cloud_id = "my_deployment:" + base64.b64encode(f"example.test:{gate_port}$abc123$kibana".encode()).decode()
    certificate = self_signed(tmp_path / "gate", "abc123.example.test")
    lookup = socket.getaddrinfo

    def at_home(host: Any, *arguments: Any, **options: Any) -> Any:
        return lookup(HOST if host == "abc123.example.test" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", at_home)

    from resilient_exporters import ElasticSearchExporter, ExporterPool, MongoDBExporter

    exporters = [
        MongoDBExporter(
            target_ip="127.0.0.1", target_port=mongo_port, default_db="my_db", default_collection="my_collection"
        ),
        ElasticSearchExporter(
            cloud_id=cloud_id, api_key="api key", default_index="my_index", ssl_ca_certs=str(certificate)
        ),
    ]  # which a cloud's own does not need

    pool = ExporterPool(exporters, use_memory=False)

    mydata = {"metric": 2}
    pool.send(mydata)

    # When both come up
    assert pool.stats().pending == 1
    server = own_server("elasticsearch8", port=port)
    gate = own_server("nginx", port=gate_port, upstream=port, settings={"api_key": "api key"})
    gate.stop()
    (gate.data / "server.crt").write_bytes(certificate.read_bytes())
    (gate.data / "server.key").write_bytes((tmp_path / "gate" / "server.key").read_bytes())
    gate.start(tls=True)
    mongo = own_server("ferretdb", port=mongo_port)

    # Then both have it
    assert pool.flush(timeout=30).complete
    assert documents(server, "my_index") == [{"metric": 2}]
    with pymongo.MongoClient[dict[str, Any]](HOST, mongo.port) as client:
        assert list(client.my_db.my_collection.find({}, {"_id": 0})) == [{"metric": 2}]
    pool.close()


def test_pools_as_written_to_the_letter() -> None:
    # Given the example with the words that stand for an id and a key

    from resilient_exporters import ElasticSearchExporter, ExporterPool

    exporters = [ElasticSearchExporter(cloud_id="cloud id", api_key="api key", default_index="my_index")]

    pool = ExporterPool(exporters, use_memory=False)

    mydata = {"metric": 2}
    pool.send(mydata)

    # Then it can be constructed (the original raises ValueError: FACTS A.8 #22), and the record waits for a real id
    pool.flush(timeout=10)
    [target] = pool.stats().targets.values()
    assert (target.state, target.pending) == (HELD, 1)
    assert "cloud_id='cloud id' is none" in target.last_error
    pool.close()


def test_none_of_the_places_is_given() -> None:
    from resilient_exporters import ElasticSearchExporter, MissingConfigError

    with pytest.raises(ValueError, match="target_ip"):
        ElasticSearchExporter(default_index="my_index")

    exporter = ElasticSearchExporter("127.0.0.1")
    with pytest.raises(MissingConfigError):
        exporter.send({"field1": "value1"})
    exporter.close()
