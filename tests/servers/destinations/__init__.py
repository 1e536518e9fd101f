"""The targets of the fault matrix, the killed sender and the pool of all: each on servers of its own, behind a link."""

from __future__ import annotations

from tests.servers.destinations.destination import PASSWORD, Destination
from tests.servers.destinations.elasticsearch import BusyElasticsearch, Elasticsearch
from tests.servers.destinations.mongodb import MongoDB
from tests.servers.destinations.sql import MariaDB, PostgreSQL

__all__ = [
    "DESTINATIONS", "PASSWORD", "BusyElasticsearch", "Destination", "Elasticsearch", "MariaDB", "MongoDB", "PostgreSQL",
]  # fmt: skip

DESTINATIONS: tuple[type[Destination], ...] = (MongoDB, PostgreSQL, MariaDB, Elasticsearch, BusyElasticsearch)
