"""Every real server does what the tests of the exporters rely on: it answers its client, crashes and comes back."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import elasticsearch as es
import psutil
import psycopg
import pymongo
import pymysql
import pytest
import sqlalchemy
from bson import Decimal128
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    DuplicateKeyError,
    NotPrimaryError,
    OperationFailure,
    WriteConcernError,
)

from tests.servers.conftest import or_skip
from tests.servers.provision import HOST, Cache, Instance, Link, ServerError, UnavailableError
from tests.servers.provision.cache import run

OwnServer = Callable[..., Instance]
ROOT = Path(__file__).parents[2]


# Elasticsearch


def test_elasticsearch_answers_each_item_of_a_bulk(elasticsearch: Instance, index: str) -> None:
    # Given an index with a mapping
    with es.Elasticsearch(elasticsearch.url) as client:
        assert client.ping()
        client.indices.create(index=index, mappings={"properties": {"v": {"type": "integer"}}})

        # When a bulk holds a new document, its duplicate, and one that does not fit
        create, put = {"create": {"_index": index, "_id": "1"}}, {"index": {"_index": index}}
        answer = client.bulk(operations=[create, {"v": 1}, create, {"v": 1}, put, {"v": "x"}], refresh=True)

        # Then each gets its own status
        assert [next(iter(item.values()))["status"] for item in answer["items"]] == [201, 409, 400]
        assert client.count(index=index)["count"] == 1


def test_elasticsearch_refuses_a_request_that_is_too_large(elasticsearch: Instance, index: str) -> None:
    with es.Elasticsearch(elasticsearch.url) as client, pytest.raises(es.ApiError) as caught:
        client.index(index=index, document={"v": "0" * (101 << 20)})
    assert caught.value.status_code == 413


def test_elasticsearch_under_pressure_answers_429_and_keeps_its_data_over_a_crash(own_server: OwnServer) -> None:
    # Given a server of our own with room for 200 kB of writes at a time, and a document
    server = own_server("elasticsearch8", settings={"indexing_pressure.memory.limit": "200kb"})
    with es.Elasticsearch(server.url, max_retries=0) as client:
        client.index(index="kept", id="1", document={"v": 1})

        # When a bulk is larger, then it is refused as a whole
        with pytest.raises(es.ApiError) as caught:
            client.bulk(operations=[{"index": {"_index": "kept"}}, {"v": "0" * (1 << 20)}])
        assert caught.value.status_code == 429

    # When it is killed and started again without that limit
    server.kill()
    server.start(settings={})

    # Then it has what it acknowledged
    with es.Elasticsearch(server.url) as client:
        client.cluster.health(wait_for_status="yellow")
        assert client.get(index="kept", id="1")["_source"] == {"v": 1}


def test_elasticsearch_9_takes_client_9(elasticsearch9: Instance, elasticsearch_client_9: Path) -> None:
    code = "import elasticsearch as es, sys; print(es.__version__[0], es.Elasticsearch(sys.argv[1]).ping())"
    environment = {**os.environ, "PYTHONPATH": str(elasticsearch_client_9)}
    done = subprocess.run(
        [sys.executable, "-c", code, elasticsearch9.url], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["9", "True"]


# MongoDB


def test_ferretdb_names_the_duplicates(ferretdb: Instance, mongo_database: str) -> None:
    with pymongo.MongoClient[dict](HOST, ferretdb.port) as client:
        things = client[mongo_database].things
        things.insert_many([{"_id": number} for number in range(10)])
        with pytest.raises(BulkWriteError) as caught:
            things.insert_many([{"_id": number} for number in range(8, 13)], ordered=False)
    details = caught.value.details or {}
    assert details["nInserted"] == 3
    assert [(error["index"], error["code"]) for error in details["writeErrors"]] == [(0, 11000), (1, 11000)]


def test_ferretdb_closes_the_connection_on_nan(ferretdb: Instance, mongo_database: str) -> None:
    with pymongo.MongoClient[dict](HOST, ferretdb.port) as client, pytest.raises(AutoReconnect):
        client[mongo_database].things.insert_one({"v": math.nan})


def test_ferretdb_keeps_its_data_over_a_crash_and_asks_for_a_password_over_tls(own_server: OwnServer) -> None:
    # Given a server of our own with a document
    server = own_server("ferretdb")
    with pymongo.MongoClient[dict](HOST, server.port) as client:
        client.test.things.insert_one({"_id": 1})

    # When it is killed, and comes back with a user and TLS
    server.kill()
    server.start(user="edge", password="secret", tls=True)

    # Then who knows the password finds the document, and who does not is turned away
    trust: dict[str, Any] = {"tls": True, "tlsCAFile": str(server.certificate), "serverSelectionTimeoutMS": 10_000}
    with pymongo.MongoClient[dict]("localhost", server.port, username="edge", password="secret", **trust) as client:
        assert client.test.things.find_one() == {"_id": 1}
    strangers: list[tuple[dict[str, Any], int]] = [({"username": "edge", "password": "wrong"}, 18), ({}, 13)]
    for credentials, code in strangers:
        with pymongo.MongoClient[dict]("localhost", server.port, **credentials, **trust) as stranger:
            with pytest.raises(OperationFailure) as caught:
                stranger.test.things.insert_one({})
            assert caught.value.code == code


def test_mongo_java_keeps_every_value(mongo_java: Instance) -> None:
    with pymongo.MongoClient[dict](HOST, mongo_java.port) as client:
        things = client.test.things
        things.insert_one({"_id": 1, "nan": math.nan, "price": Decimal128("1.50"), "nested": [[1], [2]], "a.b": 1})
        with pytest.raises(DuplicateKeyError):
            things.insert_one({"_id": 1})
        back = things.find_one() or {}
    assert math.isnan(back["nan"])
    assert (back["price"], back["nested"], back["a.b"]) == (Decimal128("1.50"), [[1], [2]], 1)


@pytest.fixture
def failing(failcommand: Instance, mongo_database: str):
    """A collection behind the fail point, and what sets it."""

    def fail(mode: object = None, **data: object) -> None:
        once = {"times": 1} if mode is None else mode
        point = {"failCommands": ["insert"], **data}
        client.admin.command("configureFailPoint", "failCommand", mode=once, data=point)

    with pymongo.MongoClient[dict](HOST, failcommand.port, retryWrites=False, socketTimeoutMS=5000) as client:
        yield client[mongo_database].things, fail


@pytest.mark.parametrize(("code", "kind"), [(10107, NotPrimaryError), (91, AutoReconnect), (50, OperationFailure)])
def test_failcommand_answers_with_an_error_code_once(failing, code: int, kind: type[Exception]) -> None:
    things, fail = failing
    fail(errorCode=code)
    with pytest.raises(kind):
        things.insert_one({"_id": 1})
    things.insert_one({"_id": 1})


def test_failcommand_breaks_the_connection_before_or_after_the_work(failing) -> None:
    things, fail = failing
    fail(closeConnection=True)
    with pytest.raises(AutoReconnect):
        things.insert_one({"_id": "never came"})
    fail(dropReply=True)
    with pytest.raises(AutoReconnect):
        things.insert_one({"_id": "came"})
    assert [thing["_id"] for thing in things.find()] == ["came"]


def test_failcommand_refuses_single_documents(failing) -> None:
    # Given that documents with bad=1 fail their validation, and a document that is there already
    things, fail = failing
    things.insert_one({"_id": 9})
    fail("alwaysOn", writeErrors={"field": "bad", "value": 1, "code": 121})

    # When an unordered insert holds two of them and a duplicate
    documents = [{"_id": 0}, {"_id": 1, "bad": 1}, {"_id": 2}, {"_id": 3, "bad": 1}, {"_id": 9}]
    with pytest.raises(BulkWriteError) as caught:
        things.insert_many(documents, ordered=False)

    # Then each is named at its place and the others are in
    details = caught.value.details or {}
    assert [(error["index"], error["code"]) for error in details["writeErrors"]] == [(1, 121), (3, 121), (4, 11000)]
    assert details["nInserted"] == 2
    assert things.count_documents({}) == 3


def test_failcommand_reports_a_write_concern_that_was_not_met(failing) -> None:
    things, fail = failing
    fail(writeConcernError={"code": 64, "errmsg": "waiting for replication timed out"})
    with pytest.raises(WriteConcernError):
        things.insert_one({"_id": 1})
    assert things.count_documents({}) == 1


def test_failcommand_skips_and_blocks_and_takes_writes_without_an_answer(failing) -> None:
    things, fail = failing
    fail({"skip": 1}, errorCode=91)
    things.insert_one({"_id": 1})
    with pytest.raises(AutoReconnect):
        things.insert_one({"_id": 2})
    fail("off")
    things.with_options(write_concern=pymongo.WriteConcern(0)).insert_one({"_id": 3})
    fail(blockConnection=True, blockTimeMS=10)
    things.insert_one({"_id": 4})
    assert things.count_documents({"_id": 4}) == 1


# SQL


def test_postgresql_refuses_what_breaks_its_rules(postgresql_database: str) -> None:
    engine = sqlalchemy.create_engine(postgresql_database)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id bigint PRIMARY KEY, v int CHECK (v < 100))")
        connection.exec_driver_sql("INSERT INTO t VALUES (1, 1)")
    for statement in ("INSERT INTO t VALUES (1, 1)", "INSERT INTO t VALUES (2, 100)"):
        with pytest.raises(sqlalchemy.exc.IntegrityError), engine.begin() as connection:
            connection.exec_driver_sql(statement)
    engine.dispose()


def test_postgresql_keeps_its_data_over_a_crash_and_knows_its_user(own_server: OwnServer) -> None:
    # Given a server with a user, a row in it, and a client that is connected
    server = own_server("postgresql", user="edge", password="secret")
    where: dict[str, Any] = {"host": HOST, "port": server.port, "dbname": "postgres", "user": "edge"}
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(**where, password="wrong")
    with psycopg.connect(**where, password="secret", autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS v")

        # When it is killed, then the client notices
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")

    # When it comes back, then the row is there
    server.start()
    with psycopg.connect(**where, password="secret") as connection:
        assert connection.execute("SELECT v FROM t").fetchall() == [(1,)]


def test_mariadb_refuses_a_duplicate(mariadb_database: str) -> None:
    engine = sqlalchemy.create_engine(mariadb_database)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (id bigint PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    with pytest.raises(sqlalchemy.exc.IntegrityError) as caught, engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    assert "1062" in str(caught.value)
    engine.dispose()


def test_mariadb_keeps_its_data_over_a_crash_and_knows_its_user(own_server: OwnServer) -> None:
    server = own_server("mariadb", user="edge", password="secret")
    with pytest.raises(pymysql.OperationalError):
        pymysql.connect(host=HOST, port=server.port, user="edge", password="wrong")
    with pymysql.connect(host=HOST, port=server.port, user="edge", password="secret", autocommit=True) as connection:
        connection.cursor().execute("CREATE DATABASE kept")
        connection.cursor().execute("CREATE TABLE kept.t AS SELECT 1 AS v")
    server.kill()
    server.start()
    with pymysql.connect(host=HOST, port=server.port, user="edge", password="secret") as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT v FROM kept.t")
        assert cursor.fetchall() == ((1,),)


# Links and gates


def test_a_link_is_cut_and_mended(link: Callable[[int], Link], nginx: Instance) -> None:
    # Given a link to a server
    bad = link(nginx.port)
    assert status(f"http://{HOST}:{bad.port}") == 200

    # When it is cut, then nobody gets through
    bad.cut()
    with pytest.raises(OSError, match="refused"):
        status(f"http://{HOST}:{bad.port}")

    # When it is mended, then all is as before
    bad.mend()
    assert status(f"http://{HOST}:{bad.port}") == 200


def test_a_link_resets_and_falls_silent(link: Callable[[int], Link], nginx: Instance) -> None:
    bad = link(nginx.port)
    bad.fault("reset_peer", timeout=0)
    with socket.create_connection((HOST, bad.port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    bad.mend()
    bad.fault("timeout", timeout=0)
    with socket.create_connection((HOST, bad.port), timeout=0.2) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(1)


@pytest.fixture
def nginx(own_server: OwnServer) -> Instance:
    """Takes everything."""
    return own_server("nginx")


def test_nginx_asks_for_credentials_and_limits_bodies(own_server: OwnServer) -> None:
    server = own_server("nginx", user="edge", password="secret", settings={"api_key": "k", "max_body": "10k"})
    key = {"Authorization": "ApiKey k"}
    assert status(server.url) == 401
    assert status(server.url, headers={"Authorization": "Basic ZWRnZTpzZWNyZXQ="}) == 200
    assert status(server.url, headers=key) == 200
    assert status(server.url, headers=key, body=b"0" * 20_000) == 413


def test_nginx_stands_in_front_of_another_over_tls(own_server: OwnServer, nginx: Instance) -> None:
    server = own_server("nginx", tls=True, upstream=nginx.port)
    assert status(server.url, trust=ssl.create_default_context(cafile=server.certificate)) == 200
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        status(server.url)


def test_nginx_asks_to_slow_down(own_server: OwnServer) -> None:
    server = own_server("nginx", settings={"rate": "1r/m"})
    assert [status(server.url) for _ in range(3)] == [200, 429, 429]


def status(
    url: str, *, headers: dict[str, str] | None = None, body: bytes | None = None, trust: ssl.SSLContext | None = None
) -> int:
    """The status of an answer."""
    request = urllib.request.Request(url, data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10, context=trust) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


# Processes


def test_a_server_that_does_not_start_says_why_and_leaves_nothing(own_server: OwnServer) -> None:
    with pytest.raises(ServerError, match="no_such_setting"):
        own_server("postgresql", settings={"no_such_setting": "1"})


def test_a_stopped_server_is_gone_and_can_be_started_again(nginx: Instance) -> None:
    # Given a running server and its children
    family = [psutil.Process(nginx.pid), *psutil.Process(nginx.pid).children(recursive=True)]
    assert len(family) > 1

    # When it is stopped, then none is left, and a second stop does nothing
    nginx.stop()
    nginx.stop()
    assert not any(member.is_running() and member.status() != psutil.STATUS_ZOMBIE for member in family)
    with pytest.raises(ServerError, match="does not run"):
        _ = nginx.pid

    # When it is started again, then it is on the same port
    nginx.start()
    assert status(nginx.url) == 200


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_servers_do_not_outlive_tests_that_were_killed(nginx: Instance, tmp_path: Path) -> None:
    # Given a process that has started a server (nginx is installed: this test has one)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.servers.provision", "run", "nginx"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("nginx is on")
        server = psutil.Process(process.pid).children()[0]

        # When it is killed
        process.send_signal(signal.SIGKILL)

    # Then the server goes with it
    psutil.wait_procs([server], timeout=10)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE


def test_what_cannot_be_had_is_skipped_with_the_reason_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Given a machine without any package client
    monkeypatch.setenv("PATH", str(tmp_path))

    # When a server is started that has to be installed
    def start() -> Instance:
        Cache(tmp_path).need("no-such-program", "no-such-package")
        raise AssertionError("it was there")

    # Then its test is skipped
    with pytest.raises(pytest.skip.Exception, match=r"^kafka CANNOT BE HAD: .* no apt-get here") as caught:
        or_skip("kafka", start)
    assert "\n" not in str(caught.value)


def test_a_failed_installation_says_what_went_wrong_and_leaves_no_half(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(UnavailableError, match="failed with 3: no room"), cache.installing("thing") as folder:
        run("sh", "-c", "echo begun; echo no room; exit 3", cwd=folder)
    assert [path.name for path in tmp_path.iterdir()] == ["thing.lock"]


def test_every_server_listens_on_loopback_only(ferretdb: Instance, toxiproxy: Instance, postgresql: Instance) -> None:
    for instance in (ferretdb, toxiproxy, postgresql):
        process = psutil.Process(instance.pid)
        listening = [at for at in process.net_connections("inet") if at.status == psutil.CONN_LISTEN]
        assert listening, instance.server.name
        assert {at.laddr.ip for at in listening} == {HOST}, json.dumps([str(at) for at in listening])
