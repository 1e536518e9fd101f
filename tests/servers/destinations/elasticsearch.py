"""Elasticsearch, with nginx where someone is asked who he is; and one that others keep busy."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any, ClassVar

import elasticsearch as es

from tests.servers.destinations.destination import PASSWORD, Destination
from tests.servers.provision import HOST


class Elasticsearch(Destination):
    """Version 8, with nginx in front where someone is asked who he is."""

    name = "elasticsearch"
    cls = "ElasticsearchExporter"
    settings: ClassVar[dict[str, str]] = {
        "cluster.routing.allocation.disk.threshold_enabled": "true",
        "cluster.info.update.interval": "10s",
    }

    def started(self) -> None:
        self.server = self._own_server("elasticsearch8", settings=self.settings)
        self._gate = self._own_server("nginx", upstream=self.server.port, user="app", password=PASSWORD)

    def close(self) -> None:
        self._gate.remove()
        super().close()

    def port(self, fault: str) -> int:
        return self._gate.port if fault in ("wrong_password", "missing_right") else self.server.port

    def fresh(self, name: str) -> None:
        with self._client() as client:
            client.indices.create(index=name, settings={"number_of_shards": 1, "number_of_replicas": 0})

    def options(self) -> dict[str, Any]:
        return {
            "target_ip": HOST, "target_port": self.link.port, "username": "app", "password": PASSWORD,
            "default_index": self.place,
        }  # fmt: skip

    def numbers(self) -> list[int]:
        with self._client() as client:
            client.indices.refresh(index=self.place)
            return self._read(client)

    def _read(self, client: es.Elasticsearch) -> list[int]:
        found: list[int] = []
        after: list[int] = [-1, -1]
        while after:
            hits = client.search(
                index=self.place, sort=["_seq_no", "n"], search_after=after, size=10_000, source=False,
                docvalue_fields=["n"],  # type: ignore[list-item] # a name alone is a whole entry
            )["hits"]["hits"]  # fmt: skip
            found += [hit["fields"]["n"][0] for hit in hits]
            after = hits[-1]["sort"] if hits else []
        return found

    def _client(self) -> es.Elasticsearch:
        return es.Elasticsearch(self.server.url, request_timeout=30)

    def _set(self, **settings: Any) -> None:
        with self._client() as client:
            client.indices.put_settings(index=self.place, settings=settings)

    def map_as_keyword(self, field: str) -> None:
        """Let it refuse texts of more than 32,766 bytes in this field."""
        with self._client() as client:
            client.indices.put_mapping(index=self.place, properties={field: {"type": "keyword"}})

    def wrong_password(self, wrong: bool) -> None:
        self._gate.stop()
        self._gate.start(password="another" if wrong else PASSWORD)

    def missing_right(self, wrong: bool) -> None:
        self._gate.stop()
        self._gate.start(settings={"forbidden": "yes"} if wrong else {})

    def missing_place(self, wrong: bool) -> None:
        """A closed index."""
        with self._client() as client:
            client.indices.close(index=self.place) if wrong else client.indices.open(index=self.place)

    def read_only(self, wrong: bool) -> None:
        self._set(**{"index.blocks.write": True if wrong else None})

    def full_disk(self, wrong: bool) -> None:
        """The server's own defence: it looks every 10 s, and takes nothing as long as too little is free."""
        marks = (f"cluster.routing.allocation.disk.watermark.{mark}" for mark in ("low", "high", "flood_stage"))
        with self._client() as client:
            client.cluster.put_settings(persistent=dict.fromkeys(marks, "1000000gb" if wrong else "1b"))


class BusyElasticsearch(Elasticsearch):
    """One writer, two places in its queue, 200 kB for all that is being indexed: others keep it busy.

    Two places are what one request to two shards takes.
    """

    name = "busy elasticsearch"
    in_order = False  # it has several shards
    only = frozenset({"overload", "overload_of_memory"})
    settings: ClassVar[dict[str, str]] = {
        "thread_pool.write.size": "1",
        "thread_pool.write.queue_size": "2",
        "indexing_pressure.memory.limit": "200kb",
    }

    def started(self) -> None:
        super().started()
        self._crowd = ExitStack()

    def fresh(self, name: str) -> None:
        with self._client() as client:
            for each in (name, f"{name}-others"):
                client.indices.create(index=each, settings={"number_of_shards": 2, "number_of_replicas": 0})

    def overload(self, wrong: bool) -> None:
        """Items refused in an answer that is a 200, and whole answers: its queue is full."""
        self._press(wrong, documents=20, size=10)

    def overload_of_memory(self, wrong: bool) -> None:
        """Whole requests refused: there is no memory for more of them."""
        self._press(wrong, documents=1, size=90_000)

    def _press(self, wrong: bool, *, documents: int, size: int) -> None:
        self._crowd.close()
        if wrong:
            others, over = ThreadPoolExecutor(6), threading.Event()
            self._crowd.callback(others.shutdown)
            self._crowd.callback(over.set)
            for _ in range(6):
                others.submit(self._write, over, documents, size)

    def _write(self, over: threading.Event, documents: int, size: int) -> None:
        operations: list[dict[str, Any]] = [{"index": {}}, {"text": "x" * size}] * documents
        with es.Elasticsearch(self.server.url, request_timeout=30, max_retries=0) as client:
            while not over.is_set():
                with suppress(es.ApiError):  # the others are refused as well
                    client.bulk(index=f"{self.place}-others", operations=operations)
