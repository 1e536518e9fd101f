"""Writers of the pipeline with real databases and search engines."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy

from resilient_exporters.pipeline import Pipeline
from resilient_exporters.pipeline.readers import IterableReader
from resilient_exporters.pipeline.writers import CloudSearchWriter, OdoWriter
from resilient_exporters.pipeline.writers.outbox import OutboxWriter, Parcel
from tests.servers.provision import Instance

SCHEMA = {"properties": {"n": {"type": "integer"}, "at": {"properties": {"name": {"type": "string"}}}}}


class Killed(Exception):
    """The program is killed here."""


def records(number: int) -> list[Any]:
    return [{"n": n, "_key": f"k{n}", "at": {"name": f"é{n}"}} for n in range(number)]


def twice(make: Callable[[], OutboxWriter], number: int) -> None:
    """Run it, kill it when its third parcel is taken and not noted, and resume it."""
    writer = make()
    deliver = writer.deliver

    def then_die(parcel: Parcel, entries: list[bytes]) -> None:
        deliver(parcel, entries)
        if parcel.number == 2:
            raise Killed

    writer.deliver = then_die  # type: ignore[method-assign] # the moment of the kill
    first = Pipeline(IterableReader(records(number), batch_size=70), writer=writer)
    with pytest.raises(Killed):
        first.run()
    report = Pipeline(
        IterableReader(records(number), batch_size=70), writer=make(), resume=first.persistence.job
    ).run()  # fmt: skip
    assert report.written == number


def test_rows_in_postgresql(postgresql_database: str) -> None:
    uri = f"{postgresql_database}::readings"
    twice(lambda: OdoWriter(schema=SCHEMA, odo_uri=uri, items_per_buffer_write=100), 1000)
    engine = sqlalchemy.create_engine(postgresql_database)
    with engine.connect() as connection:
        rows = connection.execute(sqlalchemy.text('SELECT n, "at.name" FROM readings ORDER BY n')).fetchall()
    engine.dispose()
    assert [tuple(row) for row in rows] == [(n, f"é{n}") for n in range(1000)]


def found(server: Instance, index: str) -> dict[str, Any]:
    urllib.request.urlopen(f"{server.url}/{index}/_refresh", timeout=30).close()
    with urllib.request.urlopen(f"{server.url}/{index}/_search?size=2000", timeout=30) as answer:
        return {hit["_id"]: hit["_source"] for hit in json.load(answer)["hits"]["hits"]}


def test_documents_in_elasticsearch(elasticsearch: Instance, index: str) -> None:
    url = f"{elasticsearch.url}/{index}"
    twice(lambda: CloudSearchWriter(endpoint_url=url, items_per_buffer_write=100), 500)
    assert found(elasticsearch, index) == {f"k{n}": record for n, record in enumerate(records(500))}


def test_documents_without_an_id_of_their_own(elasticsearch: Instance, index: str) -> None:
    twice(
        lambda: CloudSearchWriter(
            endpoint_url=elasticsearch.url, index=index, id_field="none", size_per_buffer_write=4000
        ),
        500,
    )
    assert sorted(one["n"] for one in found(elasticsearch, index).values()) == list(range(500))


def test_a_document_that_is_refused_is_a_bad_record(elasticsearch8: Instance, servers: Any) -> None:
    from tests.servers.conftest import unique

    name = unique("index")
    body = json.dumps({"mappings": {"properties": {"n": {"type": "integer"}}}}).encode()
    request = urllib.request.Request(
        f"{elasticsearch8.url}/{name}", body, {"Content-Type": "application/json"}, method="PUT"
    )
    urllib.request.urlopen(request, timeout=30).close()
    writer = CloudSearchWriter(endpoint_url=f"{elasticsearch8.url}/{name}")
    given = [*records(10), {"n": "no number", "_key": "bad"}, *records(20)[10:]]
    report = Pipeline(given, writer=writer, on_bad_record="skip").run()
    assert report.bad == {"writer": 1}
    assert sorted(one["n"] for one in found(elasticsearch8, name).values()) == list(range(20))
