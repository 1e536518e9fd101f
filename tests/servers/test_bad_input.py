"""What a program can get wrong, at each server: a clear word, a dead letter with a reason, and nothing else lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from resilient_exporters import (
    ElasticsearchExporter,
    Exporter,
    InvalidConfigError,
    MongoDBExporter,
    MySQLExporter,
    PostgreSQLExporter,
)
from tests.servers.conftest import unique
from tests.servers.provision import HOST, Instance
from tests.servers.provision.server import free_port
from tests.targets import PATIENCE, balanced


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


BAD: dict[str, Any] = {
    "a text": "text",
    "bytes": b"bytes",
    "a tuple": (1, 2),
    "a key with a dot": {"a.b": 1},
    "a key with $": {"$set": 1},
    "a key with NUL": {"a\0b": 1},
    "a key that is no text": {7: 1},
    "NaN": {"v": math.nan},
    "a huge int": {"whole": 2**100},
    "20 MB": {"words": "x " * 10_000_000},
    "100 levels": {"more": nested(100)},
    "no such column": {"nowhere": 1},
}
THERE = "there"
"""In place of a reason: the target takes it."""

NO_COLUMN = "no column for field"


@dataclass
class Place:
    """Somewhere to write to.

    Attributes:
        make: an exporter to it.
        numbers: the field ``n`` of what is there, of all that has one.
        ends: what becomes of bad records: words of the reason, or `THERE`.
    """

    make: Callable[..., Exporter]
    numbers: Callable[[], list[int]]
    ends: dict[str, str]


@pytest.fixture
def mongodb(ferretdb: Instance, mongo_database: str) -> Iterator[Place]:
    import pymongo

    with pymongo.MongoClient[dict[str, Any]](HOST, ferretdb.port) as client:
        found = client[mongo_database].t
        yield Place(
            lambda **options: MongoDBExporter(HOST, ferretdb.port, default_db=mongo_database, default_collection="t",
                                              **options),
            lambda: [each["n"] for each in found.find({"n": {"$exists": True}}, {"n": 1})],
            {
                "a text": "str is no document", "bytes": "bytes is no document", "a tuple": "tuple is no document",
                "a key with a dot": "(code 2)", "a key with $": "(code 2)", "a key with NUL": "NUL",
                "NaN": "while the server is there", "a huge int": "64 bits", "20 MB": "16 MiB",
                "a key that is no text": THERE, "100 levels": THERE, "no such column": THERE,
            },
        )  # fmt: skip


@pytest.fixture
def elastic(elasticsearch8: Instance) -> Iterator[Place]:
    from elasticsearch import Elasticsearch

    index = unique("index")

    def numbers() -> list[int]:
        client.indices.refresh(index=index)
        hits = client.search(index=index, size=100, query={"exists": {"field": "n"}})["hits"]["hits"]
        return [each["_source"]["n"] for each in hits]

    with Elasticsearch(elasticsearch8.url) as client:
        client.indices.create(index=index, mappings={"properties": {"whole": {"type": "long"}}})
        yield Place(
            lambda **options: ElasticsearchExporter(HOST, elasticsearch8.port, default_index=index, **options),
            numbers,
            {
                "a text": "not a str", "bytes": "not a bytes", "a tuple": "not a tuple", "a huge int": "out of range",
                "100 levels": "mapping depth", "a key with a dot": THERE, "a key with $": THERE,
                "a key with NUL": THERE, "a key that is no text": THERE, "NaN": THERE, "20 MB": THERE,
                "no such column": THERE,
            },
        )  # fmt: skip
        client.indices.delete(index=index)


SQL_ENDS = {
    "a text": NO_COLUMN, "bytes": NO_COLUMN, "a tuple": "a tuple of 2 for table", "a key with a dot": NO_COLUMN,
    "a key with $": NO_COLUMN, "a key with NUL": NO_COLUMN, "a key that is no text": NO_COLUMN, "NaN": THERE,
    "100 levels": THERE, "no such column": NO_COLUMN,
}  # fmt: skip


@pytest.fixture
def postgres(postgresql: Instance, postgresql_database: str) -> Iterator[Place]:
    import psycopg

    name = postgresql_database.rpartition("/")[2]
    with psycopg.connect(host=HOST, port=postgresql.port, user="postgres", dbname=name, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE t (_id varchar(64) PRIMARY KEY, n int, v double precision, whole bigint, words text,"
            " more jsonb)"
        )
        yield Place(
            lambda **options: PostgreSQLExporter(
                target_host=HOST, target_port=postgresql.port, database=name, username="postgres", default_table="t",
                **options,
            ),
            lambda: [n for (n,) in connection.execute("SELECT n FROM t WHERE n IS NOT NULL")],
            {**SQL_ENDS, "a huge int": "beyond 64 bits", "20 MB": THERE},
        )  # fmt: skip


@pytest.fixture
def maria(mariadb: Instance, mariadb_database: str) -> Iterator[Place]:
    import pymysql

    name = mariadb_database.rpartition("/")[2]

    def numbers() -> list[int]:
        cursor.execute("SELECT n FROM t WHERE n IS NOT NULL")
        return [n for (n,) in cursor.fetchall()]

    with pymysql.connect(host=HOST, port=mariadb.port, user="root", database=name, autocommit=True) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "CREATE TABLE t (_id varchar(64) PRIMARY KEY, n int, v double, whole bigint, words longtext, more longtext)"
        )
        yield Place(
            lambda **options: MySQLExporter(HOST, name, mariadb.port, "root", default_table="t", **options),
            numbers,
            {**SQL_ENDS, "a huge int": "beyond 64 bits", "20 MB": "raise max_allowed_packet"},
        )


@pytest.mark.parametrize("where", ["mongodb", "elastic", "postgres", "maria"])
def test_bad_records_among_good_ones(where: str, request: pytest.FixtureRequest) -> None:
    # Given
    place: Place = request.getfixturevalue(where)
    exporter = place.make(retry=0.0, timeout=60.0)

    # When each kind of bad record is sent between good ones
    for n, record in enumerate(BAD.values()):
        exporter.send({"n": n})
        exporter.send(record)
    exporter.send({"n": len(BAD)})
    while not exporter.flush(PATIENCE).complete:
        pass

    # Then the good ones are there once, and the bad ones are there or dead letters that say why
    figures = balanced(exporter).targets[exporter.name]
    letters = {repr(letter.data)[:100]: letter.reason for letter in exporter.dead_letters()}
    exporter.close()
    ends = {name: letters.get(repr(record)[:100], THERE) for name, record in BAD.items()}
    assert {name: end for name, end in ends.items() if place.ends[name] not in end} == {}
    assert sorted(place.numbers()) == list(range(len(BAD) + 1))
    assert figures.dead == len(letters) == sum(end != THERE for end in place.ends.values())
    assert figures.dropped == {}


# Places that are not there


@pytest.mark.parametrize("make", [
    lambda **place: MongoDBExporter(default_db="d", default_collection="t", **place),
    lambda **place: ElasticsearchExporter(default_index="t", **place),
    lambda **place: PostgreSQLExporter(
        target_host=place.pop("target_ip"), username="u", database="d", default_table="t", **place
    ),
    lambda **place: MySQLExporter(place.pop("target_ip"), username="u", database="d", default_table="t", **place),
], ids=["mongodb", "elastic", "postgres", "maria"])  # fmt: skip
@pytest.mark.parametrize("wrong", ["host", "port"])
def test_a_wrong_host_or_port_is_named_and_records_wait(make: Callable[..., Exporter], wrong: str) -> None:
    # Given an address where nobody is
    host, port = (HOST, free_port()) if wrong == "port" else ("nobody.invalid", 9)
    exporter = make(target_ip=host, target_port=port, timeout=10.0)

    # When
    assert not exporter.send({"n": 1}).successful
    exporter.flush(PATIENCE, max_records=1)

    # Then
    target = exporter.stats().targets[exporter.name]
    assert (target.pending, target.dead) == (1, 0)
    assert host in target.last_error, target.last_error
    exporter.close(0.0)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"default_db": "a b"}, "default_db='a b'"),
        ({"default_db": "d", "default_collection": "a$b"}, "default_collection='a$b'"),
        ({"default_db": "d", "default_collection": ".a"}, "default_collection='.a'"),
        ({"uri": "mongodb://h/a%20b"}, 'Bad database name "a b"'),
    ],
)
def test_a_name_that_mongodb_cannot_have_is_refused_at_construction(names: dict[str, str], words: str) -> None:
    place = {} if "uri" in names else {"target_ip": HOST}
    with pytest.raises(InvalidConfigError, match=words.replace("$", r"\$")):
        MongoDBExporter(**place, **names)  # type: ignore[arg-type] # all are texts


def test_a_record_with_a_name_that_mongodb_cannot_have_is_refused_alone(mongodb: Place) -> None:
    exporter = mongodb.make()
    exporter.send({"n": 1})
    exporter.send({"n": 2}, db="a b")
    exporter.send({"n": 3}, collection="a$b")
    exporter.send({"n": 4})
    assert exporter.flush(PATIENCE).complete
    assert sorted(mongodb.numbers()) == [1, 4]
    assert sorted(letter.data["n"] for letter in exporter.dead_letters()) == [2, 3]
    exporter.close()


@pytest.mark.parametrize("where", ["postgres", "maria"])
def test_a_table_that_is_not_there_holds_and_the_reason_names_it(where: str, request: pytest.FixtureRequest) -> None:
    # Given a misspelt table, which the exporter may not make
    place: Place = request.getfixturevalue(where)
    exporter = place.make()
    receipt = exporter.send({"n": 1}, table="raedings")

    # Then the record waits
    assert not receipt.successful
    target = exporter.stats().targets[exporter.name]
    assert (target.state, target.pending) == ("held", 1)
    assert "raedings" in target.last_error
    assert "create" in target.last_error
    exporter.close(0.0)
