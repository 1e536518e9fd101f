"""Documents of a real Elasticsearch through a pipeline: every one once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import elasticsearch as es
import pytest
from elasticsearch import helpers

from resilient_exporters.pipeline import ConfigurationError, Pipeline, PipelineError
from resilient_exporters.pipeline.readers import ElasticsearchReader
from tests.readings import Keeping, run_with_stumbles
from tests.servers.conftest import unique
from tests.servers.provision import Instance


@pytest.fixture
def own_index(elasticsearch8: Instance) -> Iterator[str]:
    """The name of an index in version 8, gone afterwards."""
    name = unique("index")
    yield name
    with es.Elasticsearch(elasticsearch8.url) as client:
        client.indices.delete(index=name, ignore_unavailable=True)


def fill(server: Instance, index: str, numbers: range, shards: int = 3) -> None:
    """Documents with these numbers, some of which were written twice and some deleted again."""
    with es.Elasticsearch(server.url, request_timeout=60) as client:
        if not client.indices.exists(index=index):
            client.indices.create(index=index, settings={"number_of_shards": shards, "number_of_replicas": 0})
        for round_ in range(2):
            actions = [{"_index": index, "_id": f"id {n}", "n": n, "round": round_} for n in numbers if n % 5 >= round_]
            helpers.bulk(client, actions)
        helpers.bulk(
            client, [{"_op_type": "delete", "_index": index, "_id": f"id {n}"} for n in numbers if n % 50 == 49]
        )
        client.indices.refresh(index=index)


def rest(numbers: range) -> list[int]:
    return [number for number in numbers if number % 50 != 49]


def test_an_index_that_is_interrupted_gives_every_document_once(elasticsearch: Instance, index: str) -> None:
    # Given an index of three shards
    fill(elasticsearch, index, range(1000))

    # When it is read with interruptions; each run has a point in time of its own
    kept, runs = run_with_stumbles(
        lambda: ElasticsearchReader(hosts=elasticsearch.url, index=index, batch_size=70), [1, 71, 500, 900]
    )

    # Then every document came once, with its id
    assert runs == 5
    assert sorted(one["n"] for one in kept) == rest(range(1000))
    assert all(one["_id"] == f"id {one['n']}" for one in kept)


def test_a_query_an_alias_with_a_filter_and_fields_are_heeded(elasticsearch8: Instance, own_index: str) -> None:
    fill(elasticsearch8, own_index, range(100))
    with es.Elasticsearch(elasticsearch8.url) as client:
        client.indices.put_alias(index=own_index, name=f"{own_index}_high", filter={"range": {"n": {"gte": 40}}})
    kept: list[Any] = []
    reader = ElasticsearchReader(
        hosts=elasticsearch8.url, index=f"{own_index}_high", query={"range": {"n": {"lt": 60}}}, fields=["n"],
        id_field="", index_field="from", batch_size=4,
    )  # fmt: skip
    Pipeline(reader, writer=Keeping(kept)).run()
    assert sorted(one["n"] for one in kept) == rest(range(40, 60))
    assert kept[0].keys() == {"n", "from"}
    assert kept[0]["from"] == own_index


def test_a_point_in_time_that_is_gone_is_replaced(elasticsearch8: Instance, own_index: str) -> None:
    # Given a reader in the middle of a shard
    fill(elasticsearch8, own_index, range(100), shards=1)
    reader = ElasticsearchReader(hosts=elasticsearch8.url, index=own_index, batch_size=10)
    kept = list(reader.get_next_batch())

    # When the server has forgotten its point in time
    with es.Elasticsearch(elasticsearch8.url) as client:
        client.close_point_in_time(id=reader._shards._pit)

    # Then it goes on where it stood
    while not reader.is_finished():
        kept += reader.get_next_batch()
    reader.close()
    assert sorted(one["n"] for one in kept) == rest(range(100))


def test_an_error_is_an_error_and_not_the_end(elasticsearch8: Instance, own_index: str) -> None:
    with pytest.raises(PipelineError, match="404 index_not_found_exception"):
        Pipeline(ElasticsearchReader(hosts=elasticsearch8.url, index=own_index), writer=Keeping([])).run()
    fill(elasticsearch8, own_index, range(1))
    wrong = ElasticsearchReader(hosts=elasticsearch8.url, index=own_index, query={"nonsense": {}})
    with pytest.raises(PipelineError, match=r"400 .*unknown query .nonsense"):
        Pipeline(wrong, writer=Keeping([])).run()
    nobody = ElasticsearchReader(hosts="http://127.0.0.1:1", index=own_index)
    with pytest.raises(PipelineError, match="ConnectionError"):
        Pipeline(nobody, writer=Keeping([]), disable_retries=True).run()


def test_mistakes_are_told() -> None:
    for options, text in (
        ({"hosts": "ftp://x"}, "right would be https://host:9200"),
        ({"username": "me"}, "give both, or none"),
        ({"batch_size": 20_000}, "from 1 to 10000"),
    ):
        given: dict[str, Any] = {"hosts": "https://host:9200", "index": "i", **options}
        with pytest.raises(ConfigurationError, match=text):
            ElasticsearchReader(**given)
