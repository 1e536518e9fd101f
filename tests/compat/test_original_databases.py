"""Rows 21 to 24 of the original's faults (FACTS A.8) with real servers: each test fails on what the original does."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import date, datetime, timezone
from typing import Any

import psycopg
import pymongo
import pytest

from resilient_exporters import (
    ElasticSearchExporter,
    MissingConfigError,
    MongoDBExporter,
    PostgreSQLExporter,
    SQLServerExporter,
)
from tests.servers.conftest import elasticsearch8, own_server, postgresql, postgresql_database, servers  # noqa: F401
from tests.servers.conftest import unique as unique_name
from tests.servers.provision import HOST, Instance
from tests.servers.provision.server import free_port
from tests.targets import PATIENCE

# ruff: noqa: F811 - fixtures are used by their names


def test_row_21_mongodb_credentials_are_handed_over_as_they_are(own_server: Callable[..., Instance]) -> None:
    # Given an account with all that a URI would need percent-encoded, and what looks encoded already
    user, password = "edge@plant", "p@ss:w/rd?%41#"
    server = own_server("ferretdb", user=user, password=password)

    # When
    exporter = MongoDBExporter(HOST, server.port, user, password, "plant", "readings")
    returned, successful = exporter.send({"n": 1})
    exporter.close()

    # Then it is in, and the result has the documented order
    assert successful
    with pymongo.MongoClient[dict[str, Any]](HOST, server.port, username=user, password=password) as client:
        assert list(client.plant.readings.find()) == [{"_id": returned, "n": 1}]


def test_row_21_a_missing_database_is_told_to_the_caller() -> None:
    # Given a collection without a database, which the original cannot even construct
    with MongoDBExporter(HOST, free_port(), default_collection="readings") as exporter:
        with pytest.raises(MissingConfigError, match="default_db"):
            exporter.send({"n": 1})

        # Then nothing waits for ever
        assert exporter.stats().pending == 0


def test_row_22_elasticsearch_works_with_its_clients(elasticsearch8: Instance) -> None:
    # Given host and port as the document has them, and no scheme
    index = unique_name("row22")
    exporter = ElasticSearchExporter(target_ip=HOST, target_port=elasticsearch8.port, default_index=index)

    # When
    returned, successful = exporter.send({"n": 1})

    # Then
    assert successful
    assert returned["result"] == "created"
    assert exporter.client.get(index=index, id=returned["_id"])["_source"] == {"n": 1}
    exporter.client.indices.delete(index=index)
    exporter.close()


def test_row_22_what_the_original_cannot_construct() -> None:
    for options in (
        {"target_ip": "es", "use_ssl": True},
        {"cloud_id": "cloud id", "api_key": "api key", "sniff_on_start": True},
        {"cluster_hosts": [{"host": "a", "port": 9200}, {"host": "b", "port": 9200, "use_ssl": True}]},
    ):
        ElasticSearchExporter(default_index="x", **options).close()
    assert ElasticSearchExporter("es", default_index="x").address() == "http://es:9200/x"


@pytest.fixture
def plant(postgresql: Instance, postgresql_database: str) -> Iterator[tuple[Any, Callable[..., PostgreSQLExporter]]]:
    """A connection of our own, and a way to make exporters for the same database."""
    made: list[PostgreSQLExporter] = []
    name = postgresql_database.rpartition("/")[2]

    def exporter(**options: Any) -> PostgreSQLExporter:
        made.append(
            PostgreSQLExporter(
                target_host=HOST, database=name, target_port=postgresql.port, username="postgres", **options
            )
        )
        return made[-1]

    with psycopg.connect(host=HOST, port=postgresql.port, user="postgres", dbname=name, autocommit=True) as connection:
        yield connection, exporter
        for one in made:
            one.close()


def test_row_23_values_are_values(plant: Any) -> None:
    # Given what the original puts into the text of a statement
    connection, make = plant
    connection.execute("CREATE TABLE victim (n int)")
    connection.execute("CREATE TABLE t (name text, flag int)")
    exporter = make(default_table="t")
    names = ["x',1); drop table victim;--", "O'Brien", "Nonesuch", "None", "\\", "\t", '"'.join("ab")]

    # When
    record = {"name": "yes", "flag": True}
    exporter.send([record, *({"name": name, "flag": 0} for name in names)])

    # Then each is there as it was, and so are the table and the caller's record
    assert exporter.flush(PATIENCE).complete
    found = connection.execute("SELECT name, flag FROM t").fetchall()
    assert sorted(found) == sorted([("yes", 1), *((name, 0) for name in names)])
    assert connection.execute("SELECT count(*) FROM victim").fetchone() == (0,)
    assert record == {"name": "yes", "flag": True}


def test_row_23_types_tuples_and_upserts(plant: Any) -> None:
    # Given
    connection, make = plant
    connection.execute("CREATE TABLE t (k uuid, day date, at timestamptz, more jsonb, UNIQUE (k, day, at, more))")
    exporter = make(default_table="t")
    row = {"k": uuid.uuid4(), "day": date(2024, 2, 29), "at": datetime.now(timezone.utc), "more": {"a": [1, None]}}

    # When a row is sent as a mapping, as a tuple, and to be updated by all of its columns
    exporter.send(row, upsert_on=tuple(row))
    exporter.send(tuple(row.values()), upsert_on=list(row))

    # Then
    assert exporter.flush(PATIENCE).complete
    assert not list(exporter.dead_letters())
    assert connection.execute("SELECT * FROM t").fetchall() == [tuple(row.values())]


def test_row_23_what_fails_fails_alone(plant: Any) -> None:
    # Given
    connection, make = plant
    connection.execute("CREATE TABLE t (n int CHECK (n <> 2))")
    exporter = make(default_table="t")

    # When a row breaks a constraint, one has a column that is not there, and the server drops the connection
    exporter.send([{"n": 1}, {"n": 2}, {"n": 3, "unknown": 4}, {"n": 5}])
    assert exporter.flush(PATIENCE).complete
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    exporter.send({"n": 6})

    # Then these two are dead letters that say why, and the others are there
    while not exporter.flush(PATIENCE).complete:
        pass
    assert connection.execute("SELECT n FROM t ORDER BY n").fetchall() == [(1,), (5,), (6,)]
    reasons = {letter.data["n"]: letter.reason for letter in exporter.dead_letters()}
    assert "t_n_check" in reasons[2]
    assert "no column for field 'unknown'" in reasons[3]


def test_row_23_tables_created_later_are_known(plant: Any) -> None:
    # Given an exporter that has written, and a record for a table that is not there
    connection, make = plant
    connection.execute("CREATE TABLE t (n int)")
    exporter = make(default_table="t")
    assert exporter.send({"n": 1}).result(PATIENCE).successful
    assert not exporter.send({"n": 2}, table="later").successful

    # When it is made
    connection.execute("CREATE TABLE later (n int)")
    while not exporter.flush(PATIENCE).complete:
        pass

    # Then
    assert connection.execute("SELECT n FROM later").fetchall() == [(2,)]


def test_row_24_sql_server_works() -> None:
    # Given the document's keywords. The original cannot be imported, and ignores the port. No server can be had.
    pytest.importorskip("pymssql", reason="no wheel for this machine")
    port = free_port()
    exporter = SQLServerExporter(
        target_host=HOST, database="plant", target_port=port, username="u", password="p", default_table="t"
    )

    # When
    receipt = exporter.send({"n": 1})

    # Then it was tried there, and waits
    assert not receipt.successful
    target = exporter.stats().targets[exporter.name]
    assert target.pending == 1
    assert f"{HOST}:{port}" in target.last_error
    exporter.close()
