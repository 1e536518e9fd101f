"""ElasticsearchExporter against servers, and over links that go bad: every accepted record is there exactly once."""

from __future__ import annotations

import math
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elasticsearch import Elasticsearch, helpers

from resilient_exporters import Batch, Delivered, ElasticsearchExporter, Record, Reject
from resilient_exporters.delivery.breaker import HELD
from tests.servers.conftest import Servers, or_skip, unique
from tests.servers.provision import HOST, Instance, Link
from tests.servers.story import Story
from tests.servers.watch import PATIENCE
from tests.targets import balanced

OwnServer = Callable[..., Instance]
MakeLink = Callable[[int], Link]


def numbers(at: Instance, index: str) -> list[int]:
    """What is in an index."""
    return sorted(document["n"] for document in documents(at, index))


def documents(at: Instance, index: str) -> list[dict[str, Any]]:
    with Elasticsearch(at.url) as client:
        client.indices.refresh(index=index)
        return [hit["_source"] for hit in helpers.scan(client, index=index, size=1000)]


def export(
    it: ElasticsearchExporter, *data: Any, redelivered: bool = False, start: int = 0, **options: Any
) -> list[Any]:
    """What a batch of these records is answered."""
    records = [Record(run="0" * 16, offset=start + n, data=one, options=options) for n, one in enumerate(data)]
    it.connect()
    try:
        answers = it.export(Batch(records, redelivered=redelivered, deadline=time.monotonic() + PATIENCE))
    finally:
        it.disconnect()
    assert isinstance(answers, list), answers
    return answers


@pytest.fixture
def story(elasticsearch8: Instance) -> Iterator[Callable[..., Story]]:
    """Make a story of what comes to an index, by this port, and in the end is there on the server of version 8."""
    made: list[Story] = []

    def make(port: int, index: str, target_ip: str = HOST, **options: Any) -> Story:
        made.append(
            Story(
                lambda **given: ElasticsearchExporter(target_ip, port, default_index=index, **given),
                lambda: numbers(elasticsearch8, index),
                **options,
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.exporter.close(0)


@pytest.fixture
def es8(elasticsearch8: Instance) -> Iterator[Elasticsearch]:
    with Elasticsearch(elasticsearch8.url, request_timeout=30) as client:
        yield client


@pytest.fixture
def index8(es8: Elasticsearch) -> Iterator[str]:
    name = unique("index")
    yield name
    es8.options(ignore_status=404).indices.delete(index=name)


@pytest.fixture(scope="module")
def small(servers: Servers) -> Iterator[Instance]:
    """A server with hardly any room: one writer, one place in its queue, 200 kB for all requests together."""
    settings = {
        "thread_pool.write.size": "1",
        "thread_pool.write.queue_size": "1",
        "indexing_pressure.memory.limit": "200kb",
        "http.max_content_length": "1mb",
    }
    instance = or_skip("elasticsearch8", lambda: servers.new("elasticsearch8", settings=settings))
    yield instance
    instance.remove()


# Faithful


def test_a_record_is_created_and_its_item_comes_back(elasticsearch: Instance, index: str, story: Any) -> None:
    # Given a server of version 8 or 9, and the client of version 8, with the time that a busy machine may take
    it = story(elasticsearch.port, index, timeout=PATIENCE)

    # When records are sent
    receipts = [it.exporter.send({"n": n}) for n in range(3)]

    # Then each is there under its own id, and the receipt has the item of the answer
    for receipt in receipts:
        returned, successful = receipt.result(PATIENCE)
        assert successful
        assert returned == {"_index": index, "_id": receipt.id, "result": "created", "status": 201}
    assert numbers(elasticsearch, index) == [0, 1, 2]


def test_values_come_back_as_documented(elasticsearch: Instance, index: str, story: Any) -> None:
    it = story(elasticsearch.port, index)
    it.exporter.send({
        "str": "ä😀\x00\n", "int": 2**62, "float": 0.1, "nan": math.nan, "bool": True, "none": None, "list": [1, [2]],
        "dict": {"a": {"b": 1}}, "decimal": Decimal("123456789.123456789123456789"), "bytes": b"\x00\xff",
        "naive": datetime(2024, 3, 9, 1, 2, 3, 456789), "date": date(2024, 3, 9), "uuid": uuid.UUID(int=1),
        "aware": datetime(2024, 3, 9, 1, 2, 3, 4, timezone(timedelta(hours=2))), "set": {7}, "tuple": (1, 2),
        "span": timedelta(seconds=1.5), "numpy": np.float32(0.5), "array": np.arange(3), 5: "five", "a.b": 1,
    })  # fmt: skip
    it.watch.wait_for(1)
    assert documents(elasticsearch, index) == [{
        "str": "ä😀\x00\n", "int": 2**62, "float": 0.1, "nan": None, "bool": True, "none": None, "list": [1, [2]],
        "dict": {"a": {"b": 1}}, "decimal": "123456789.123456789123456789", "bytes": "AP8=",
        "naive": "2024-03-09T01:02:03.456789", "date": "2024-03-09", "uuid": "00000000-0000-0000-0000-000000000001",
        "aware": "2024-03-09T01:02:03.000004+02:00", "set": [7], "tuple": [1, 2],
        "span": "PT1.5S", "numpy": 0.5, "array": [0, 1, 2], "5": "five", "a.b": 1,
    }]  # fmt: skip
    # And the times were understood as times
    with Elasticsearch(elasticsearch.url) as client:
        fields = client.indices.get_mapping(index=index)[index]["mappings"]["properties"]
        assert {fields[name]["type"] for name in ("naive", "date", "aware")} == {"date"}


def test_what_the_server_refuses_becomes_a_dead_letter_with_its_reason(
    es8: Any, index8: str, elasticsearch8: Instance, story: Any
) -> None:
    # Given an index with a number in it
    es8.indices.create(index=index8, mappings={"properties": {"n": {"type": "long"}, "o": {"type": "object"}}})
    it = story(elasticsearch8.port, index8)
    deep: Any = 1
    for _ in range(100):
        deep = {"a": deep}

    # When records that do not fit are sent among others
    bad: list[tuple[Any, str]] = [
        ({"n": "many"}, "failed to parse field [n]"), ({"n": 2**70}, "out of range"), ({"": 1}, "empty string"),
        ({"o": 5}, "object mapping for [o]"), (deep, "Limit of mapping depth"), ("text", "mapping, not a str"),
        (b"bytes", "mapping, not a bytes"), ({1: 1, "1": 2}, "Duplicate field"),
    ]  # fmt: skip
    for record, _ in bad:
        it.send(1)
        it.exporter.send(record)
    for options, words in (({"index": "A b"}, "lower case"), ({"pipeline": "no"}, "pipeline with id [no]")):
        bad.append(({"n": 1}, words))
        it.exporter.send({"n": 1}, **options)
    it.send(1)

    # Then they are dead letters with the server's reason, and the others are there
    it.watch.wait_for(it.sent + len(bad))
    reasons = [letter.reason for letter in it.letters()]
    assert len(reasons) == len(bad)
    for _, words in bad:
        assert any(words in reason for reason in reasons), (words, reasons)
    assert numbers(elasticsearch8, index8) == list(range(it.sent))
    assert it.watch.states in ([], ["closed"])


def test_a_record_of_20_mb_among_small_ones(es8: Any, index8: str, elasticsearch8: Instance, story: Any) -> None:
    # Given an index that does not analyse the text (it would refuse a term of that size)
    es8.indices.create(index=index8, mappings={"properties": {"text": {"type": "binary"}}})
    it = story(elasticsearch8.port, index8, timeout=30)

    # When a record of 20 MB is sent among small ones, then all are there
    it.send(3)
    it.send(1, size=20_000_000)
    it.send(3)
    it.all_arrive_once()


def test_index_name_follows_from_the_record(elasticsearch: Instance, index: str, story: Any) -> None:
    # Given a pattern of the record's time
    it = story(elasticsearch.port, index + "-{@timestamp:%Y.%m.%d}")

    # When records of two days are sent, and one of no day
    for day in (9, 10, 10):
        it.exporter.send({"@timestamp": datetime(2024, 3, day, 12), "n": day})
    it.exporter.send({"n": 1})
    it.watch.wait_for(4)

    # Then each is in the index of its day, and the last is a dead letter
    try:
        assert numbers(elasticsearch, f"{index}-2024.03.09") == [9]
        assert numbers(elasticsearch, f"{index}-2024.03.10") == [10, 10]
        assert "no field '@timestamp'" in it.letters()[0].reason
    finally:
        with Elasticsearch(elasticsearch.url) as client:
            client.indices.delete(index=f"{index}-2024.03.09,{index}-2024.03.10")


def test_routing_pipeline_and_replacing(es8: Any, index8: str, elasticsearch8: Instance) -> None:
    # Given a pipeline, and an exporter that replaces
    es8.ingest.put_pipeline(id="nothing", processors=[])
    it = ElasticsearchExporter(HOST, elasticsearch8.port, default_index=index8, on_duplicate="replace", refresh=True)

    # When a document is written, with all options there are, and written again
    for n in (1, 2):
        [outcome] = export(it, {"n": n}, id="device-7", routing="east", pipeline="nothing")
        assert isinstance(outcome, Delivered)

    # Then there is the later one
    [hit] = es8.search(index=index8)["hits"]["hits"]
    assert (hit["_id"], hit["_routing"], hit["_source"]) == ("device-7", "east", {"n": 2})
    # And the exporter's own client sees it as well
    assert it.client.count(index=index8)["count"] == 1
    it.close()


def test_data_streams(elasticsearch: Instance, story: Any) -> None:
    # Given a template for data streams
    name = unique("stream").replace("_", "-")
    with Elasticsearch(elasticsearch.url) as client:
        client.indices.put_index_template(name=name, index_patterns=[name], data_stream={})
        it = ElasticsearchExporter(HOST, elasticsearch.port, default_index=name)

        # When a record is sent twice, as after an answer that got lost
        record = {"@timestamp": datetime(2024, 3, 9), "n": 1}
        [first] = export(it, record)
        [second] = export(it, record, redelivered=True)

        # Then it is there once, and both attempts count as delivered
        assert first.returned["result"] == "created"
        assert second.returned["result"] == "noop"
        assert len(documents(elasticsearch, name)) == 1
        # And what a data stream does not take is held, since the exporter has the wrong op_type
        [held] = export(ElasticsearchExporter(HOST, elasticsearch.port, default_index=name, op_type="index"), record)
        assert 'data streams take op_type="create" only' in held.reason


def test_a_users_id_that_is_taken(es8: Any, index8: str, elasticsearch8: Instance) -> None:
    # Given a document with an id of the user's
    it = ElasticsearchExporter(HOST, elasticsearch8.port, default_index=index8)
    record = {"n": 1, "t": datetime(2024, 3, 9), "d": Decimal("0.10"), "_id": "mine"}
    assert isinstance(export(it, record)[0], Delivered)

    # When the same record is sent again after an answer that got lost, then it is there
    assert isinstance(export(it, record, redelivered=True, start=5)[0], Delivered)
    # When another record comes with that id, then it is refused
    [outcome] = export(it, {**record, "n": 2}, redelivered=True)
    assert isinstance(outcome, Reject)
    assert "version_conflict_engine_exception" in outcome.reason
    assert [document["n"] for document in documents(elasticsearch8, index8)] == [1]


def test_sniffing(es8: Any, index8: str, elasticsearch8: Instance) -> None:
    it = ElasticsearchExporter(HOST, elasticsearch8.port, default_index=index8, sniff_on_start=True)
    assert isinstance(export(it, {"n": 1})[0], Delivered)


@pytest.mark.parametrize("name", ["elasticsearch8", "elasticsearch9"])
def test_client_9(name: str, servers: Servers, elasticsearch_client_9: Path, tmp_path: Path) -> None:
    # Given the client of version 9
    instance = or_skip(name, lambda: servers.shared(name))
    index = unique("index")
    program = f"""
        import elasticsearch, warnings
        from resilient_exporters import ElasticsearchExporter
        assert elasticsearch.__version__[0] == 9
        exporter = ElasticsearchExporter("{HOST}", {instance.port}, default_index="{index}", directory="{tmp_path}/q")
        exporter.send({{"n": 1}})
        exporter.flush({PATIENCE})
        target = exporter.stats().targets[exporter.name]
        print(target.state, target.delivered, target.pending, target.last_error)
        exporter.close(0)
    """
    path = f"{elasticsearch_client_9}:{Path(__file__).parents[2]}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        env={"PYTHONPATH": path, "HOME": str(tmp_path)}, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    # Then it delivers to a server of version 9; one of version 8 makes the exporter hold, and say why
    if name == "elasticsearch9":
        assert done.stdout.split()[:3] == ["closed", "1", "0"]
        assert numbers(instance, index) == [1]
    else:
        assert done.stdout.split()[:3] == ["held", "0", "1"]
        assert "the installed elasticsearch package (9." in done.stdout
        assert "is too new for this server" in done.stdout
        assert "install 'elasticsearch>=8,<9'" in done.stdout


# Faults on the wire


def test_every_answer_is_lost_for_a_while(elasticsearch8: Instance, index8: str, link: MakeLink, story: Any) -> None:
    # Given a link that lets requests through, and no whole answer
    bad = link(elasticsearch8.port)
    it = story(bad.port, index8)
    bad.fault("limit_data", bytes=30)
    it.send(250)
    it.watch.wait_for_trouble()

    # When the server has had some of them several times, and the link is mended
    it.exporter.flush(PATIENCE)
    it.exporter.flush(PATIENCE)
    assert len(documents(elasticsearch8, index8)) > 0
    bad.mend()

    # Then each is there once, and all count as delivered
    it.all_arrive_once()


# Faults of the server


def test_both_shapes_of_back_pressure(small: Instance, story: Any) -> None:
    # Given a server with one writer and one place in its queue, an index of several shards, and eight batches at a time
    index = unique("index")
    with Elasticsearch(small.url) as client:
        client.indices.create(index=index, settings={"number_of_shards": 5, "number_of_replicas": 0})
    many = [story(small.port, index, batch_records=50, concurrency=8, retry=0.05, name=f"p{n}") for n in range(2)]

    # When more comes than it takes
    for one in many:
        one.send(400)
    for one in many:
        one.watch.wait_for(400)

    # Then it said so, and each record is there once
    reasons = [reason for one in many for reason in one.watch.reasons if reason]
    assert any("429 es_rejected_execution_exception" in reason for reason in reasons), reasons
    assert numbers(small, index) == sorted([*range(400), *range(400)])
    for one in many:
        assert balanced(one.exporter).targets[one.exporter.name].dead == 0


def test_a_batch_that_never_fits_is_split_and_a_record_that_never_fits_is_refused(small: Instance, story: Any) -> None:
    # Given a server that has 200 kB for indexing, and takes requests of 1 MB
    index = unique("index")
    it = story(small.port, index, batch_records=1000, batch_bytes="10 MB")

    # When a backlog of more than that comes in batches, with a record that is too large for either of the two
    it.send(2000, size=1000)
    it.exporter.send({"n": -1, "text": "x" * 300_000})
    it.exporter.send({"n": -2, "text": "x" * 2_000_000})
    it.watch.wait_for(it.sent + 2)

    # Then the batches get smaller, and these two are dead letters that say so
    assert numbers(small, index) == list(range(it.sent))
    reasons = sorted(letter.reason for letter in it.letters())
    assert len(reasons) == 2
    assert all("429 es_rejected" in reason or "413" in reason or "max_content" in reason for reason in reasons), reasons


@pytest.mark.parametrize(
    ("setting", "held"),
    [("index.blocks.write", True), ("index.blocks.read_only", True), ("index.blocks.read_only_allow_delete", False)],
)
def test_a_read_only_index(
    setting: str, held: bool, es8: Any, index8: str, elasticsearch8: Instance, story: Any
) -> None:
    # Given an index that is made read-only (the last as a full disk does)
    es8.indices.create(index=index8)
    it = story(elasticsearch8.port, index8)
    it.send(10)
    it.watch.wait_for(10)
    es8.indices.put_settings(index=index8, settings={setting: True})
    it.send(200)
    it.watch.wait_for_trouble()

    # Then records wait: someone has to take away the block, or the server does so itself once its disk has room
    assert (it.watch.states[0] == HELD) is held
    assert "cluster_block_exception" in it.watch.reasons[0]
    es8.indices.put_settings(index=index8, settings={setting: None})
    if held:
        it.exporter.mended()
    it.all_arrive_once()


def test_an_index_that_is_not_made_by_itself(es8: Any, index8: str, elasticsearch8: Instance, story: Any) -> None:
    # Given a cluster that makes no index by itself
    it = story(elasticsearch8.port, index8)
    es8.cluster.put_settings(persistent={"action.auto_create_index": "false"})
    try:
        it.send(150)
        it.watch.wait_for_trouble()
    finally:
        es8.cluster.put_settings(persistent={"action.auto_create_index": None})

    # Then the records are held, and the reason says what to do
    assert it.watch.states[0] == HELD
    assert "404 index_not_found_exception" in it.watch.reasons[0]
    assert "create the index" in it.watch.reasons[0]
    # And when someone does it, they are delivered
    es8.indices.create(index=index8)
    it.exporter.mended()
    it.all_arrive_once()


def test_a_closed_index_and_full_shards(es8: Any, index8: str, elasticsearch8: Instance, story: Any) -> None:
    es8.indices.create(index=index8)
    es8.indices.close(index=index8)
    it = story(elasticsearch8.port, index8)
    it.send(5)
    it.watch.wait_for_trouble()
    assert it.watch.states[0] == HELD
    assert "open the index" in it.watch.reasons[0]
    es8.indices.open(index=index8)
    it.exporter.mended()
    it.all_arrive_once()

    other = story(elasticsearch8.port, unique("index"))
    es8.cluster.put_settings(persistent={"cluster.max_shards_per_node": 1})
    try:
        other.send(5)
        other.watch.wait_for_trouble()
    finally:
        es8.cluster.put_settings(persistent={"cluster.max_shards_per_node": None})
    assert other.watch.states[0] == HELD
    assert "all the shards it may have" in other.watch.reasons[0]
    other.exporter.mended()
    other.all_arrive_once()


# What stands in between


def test_credentials(own_server: OwnServer, elasticsearch8: Instance, index8: str, story: Any) -> None:
    # Given a gate that asks for a password with all the signs that are special in URLs
    gate = own_server("nginx", upstream=elasticsearch8.port, user="user", password="p:@/%?#ä")

    # When someone comes with the right one, then records are delivered
    right = story(gate.port, index8, username="user", password="p:@/%?#ä", name="right")
    right.send(10)
    right.all_arrive_once()

    # When someone comes with a wrong one, or with none, then they are held, and no secret is in the reason
    for options in ({"username": "user", "password": "wr0ng"}, {"api_key": "wr0ng"}, {}):
        wrong = story(gate.port, index8, name=f"wrong{len(options)}", **options)
        wrong.send(1)
        wrong.watch.wait_for_trouble()
        assert wrong.watch.states[0] == HELD
        assert "401 security_exception" in wrong.watch.reasons[0]
        assert "wr0ng" not in wrong.watch.reasons[0]


def test_api_key_over_tls(own_server: OwnServer, elasticsearch8: Instance, index8: str, story: Any) -> None:
    # Given a gate with TLS that asks for an API key
    gate = own_server("nginx", upstream=elasticsearch8.port, tls=True, settings={"api_key": "aWQ6a2V5"})
    secure: dict[str, Any] = {"target_ip": "localhost", "use_ssl": True}

    # When its certificate is trusted, then records are delivered
    certificate = str(gate.certificate)
    ways: list[dict[str, Any]] = [{"ssl_ca_certs": certificate}, {"ssl_certfile": certificate}, {"verify_certs": False}]
    for n, options in enumerate(ways):
        it = story(gate.port, f"{index8}-{n}", name=f"right{n}", api_key=("id", "key"), **secure, **options)
        it.send(10)
        it.all_arrive_once()

    # When it is not, then the records are held
    it = story(gate.port, index8, name="wrong", api_key="aWQ6a2V5", **secure)
    it.send(1)
    it.watch.wait_for_trouble()
    assert it.watch.states[0] == HELD
    assert "check ssl_ca_certs" in it.watch.reasons[0]

    # When the other side speaks TLS and this one does not, then that is said
    it = story(gate.port, index8, name="plain", target_ip="localhost")
    it.send(1)
    it.watch.wait_for_trouble()
    assert it.watch.states[0] == HELD
    assert "check host, port and use_ssl" in it.watch.reasons[0]


def test_a_gate_that_takes_10_kb(own_server: OwnServer, elasticsearch8: Instance, index8: str, story: Any) -> None:
    # Given a gate that answers 413 above 10 kB
    gate = own_server("nginx", upstream=elasticsearch8.port, settings={"max_body": "10k"})
    it = story(gate.port, index8, batch_records=500)

    # When batches are larger, and one record is larger all alone
    it.send(500)
    it.exporter.send({"n": -1, "text": "x" * 11_000})
    it.send(500)
    it.watch.wait_for(1001)

    # Then the batches get smaller, and the record is a dead letter
    assert numbers(elasticsearch8, index8) == list(range(1000))
    [letter] = it.letters()
    assert "413" in letter.reason


def test_a_gate_that_asks_to_wait(own_server: OwnServer, elasticsearch8: Instance, index8: str, story: Any) -> None:
    # Given a gate that takes two requests a second, and answers others with 429 and Retry-After: 1
    gate = own_server("nginx", upstream=elasticsearch8.port, settings={"rate": "2r/s"})
    it = story(gate.port, index8, batch_records=100, concurrency=1, retry=0)
    it.send(600)

    # Then it is not asked in between, and all records arrive
    it.all_arrive_once()
    assert any("too_many_requests" in reason for reason in it.watch.reasons)
    answered = [line.split()[8] for line in (gate.data / "access.log").read_text().splitlines() if "_bulk" in line]
    assert answered.count("200") >= 6
    assert answered.count("429") <= answered.count("200"), "after each 429 it is left alone for a second"


def test_a_gate_whose_upstream_is_down(
    own_server: OwnServer, elasticsearch8: Instance, index8: str, story: Any, link: MakeLink
) -> None:
    # Given a gate that answers 502 with HTML
    behind = link(elasticsearch8.port)
    gate = own_server("nginx", upstream=behind.port)
    it = story(gate.port, index8)
    it.send(10)
    it.watch.wait_for(10)
    behind.cut()
    it.send(100)
    it.watch.wait_for_trouble()

    # Then that is an outage, and ends
    assert "502: 502 Bad Gateway" in it.watch.reasons[0]
    behind.mend()
    it.all_arrive_once()
