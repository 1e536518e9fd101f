"""MongoDB behind several names, and behind one that DNS knows."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import dns.exception
import dns.resolver
import pymongo
import pytest

from resilient_exporters import from_url
from tests.servers.provision import HOST, Instance
from tests.servers.provision.server import free_port
from tests.targets import PATIENCE


def arrived(port: int, database: str) -> list[int]:
    with pymongo.MongoClient[dict[str, Any]](HOST, port) as client:
        return [document["n"] for document in client[database].t.find()]


def test_a_host_that_is_away_is_passed_over(own_server: Callable[..., Instance]) -> None:
    # Given a replica set of two hosts, of which the first is not there
    server = own_server("ferretdb", settings={"repl-set-name": "plant"})
    url = f"mongodb://{HOST}:{free_port()},{HOST}:{server.port}/plant/t?replicaSet=plant"

    # When
    with from_url(url) as exporter:
        exporter.send({"n": 1})

        # Then
        assert exporter.flush(PATIENCE).complete
    assert arrived(server.port, "plant") == [1]


class Zone:
    """A name server that knows one service, once it is there."""

    def __init__(self, port: int) -> None:
        self.up = False
        self._port = port

    def resolve(self, name: str, kind: str, **_: Any) -> Any:
        if not self.up:
            raise dns.exception.Timeout
        if kind == "SRV" and name == "_mongodb._tcp.cluster.plant.example":
            host = SimpleNamespace(to_text=lambda **_: "one.plant.example")
            return Answer([SimpleNamespace(target=host, port=self._port)])
        raise dns.resolver.NoAnswer


class Answer(list[Any]):
    """What pymongo reads of one."""

    rrset = SimpleNamespace(ttl=60)


def test_a_name_that_dns_knows(ferretdb: Instance, mongo_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a service in DNS, which does not answer yet
    zone = Zone(ferretdb.port)
    lookup = socket.getaddrinfo

    def at_home(host: Any, *arguments: Any, **options: Any) -> Any:
        return lookup(HOST if host == "one.plant.example" else host, *arguments, **options)

    monkeypatch.setattr(dns.resolver, "resolve", zone.resolve)
    monkeypatch.setattr(socket, "getaddrinfo", at_home)
    exporter = from_url(f"mongodb+srv://cluster.plant.example/{mongo_database}/t?tls=false")
    assert not exporter.send({"n": 1}).successful
    target = exporter.stats().targets[exporter.name]
    assert (target.state, target.pending) == ("open", 1), target.last_error

    # When it does
    zone.up = True

    # Then the record arrives
    assert exporter.flush(PATIENCE).complete
    exporter.close()
    assert arrived(ferretdb.port, mongo_database) == [1]
