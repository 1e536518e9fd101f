from __future__ import annotations

import datetime as dt
import threading
import time
import uuid
from decimal import Decimal
from typing import Any

import bson
import numpy as np
import pymongo
import pytest
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions

from resilient_exporters import (
    Batch,
    InvalidConfigError,
    MissingConfigError,
    MongoDBExporter,
    Record,
    Reject,
    from_url,
)
from resilient_exporters.errors import DataTypeError
from resilient_exporters.exporters.mongodb_client import ClientFactory
from resilient_exporters.exporters.mongodb_documents import DocumentMaker
from tests.targets import PATIENCE, SOON

NOBODY = "127.0.0.1"
UNREACHABLE = 1  # no server listens on tcpmux


def pymongo_threads() -> list[str]:
    """Those that are still there once closed clients have had the time to stop theirs."""
    threads = [thread for thread in threading.enumerate() if "pymongo" in thread.name]
    for thread in threads:
        thread.join(PATIENCE)
    return [thread.name for thread in threads if thread.is_alive()]


def record(data: Any, offset: int = 0, **options: Any) -> Record:
    return Record(run="0" * 16, offset=offset, data=data, options=options)


def test_constructing_needs_no_server_and_starts_no_thread() -> None:
    # Given nothing that listens
    before = set(threading.enumerate())

    # When an exporter is made
    began = time.monotonic()
    with MongoDBExporter(
        NOBODY, UNREACHABLE, default_db="plant", default_collection="readings", timeout=3600
    ) as exporter:
        seconds = time.monotonic() - began

        # Then nothing was waited for, and nothing runs
        assert seconds < SOON
        assert set(threading.enumerate()) == before
        assert exporter.address() == "127.0.0.1:1/plant.readings"
        assert exporter.name == "mongodb:127.0.0.1:1/plant.readings"
    assert pymongo_threads() == []


def test_a_record_for_a_server_that_is_away_waits() -> None:
    with MongoDBExporter(NOBODY, UNREACHABLE, default_db="a", default_collection="b", timeout=3) as exporter:
        # When a record is sent
        receipt = exporter.send({"n": 1})

        # Then the first attempt ends, and fails (that send itself does not wait is law 6)
        assert receipt.successful is False
        target = exporter.stats().targets[exporter.name]
        assert (target.pending, target.dead, target.delivered) == (1, 0, 0)
        assert "ServerSelectionTimeoutError" in target.last_error
        assert "Topology" not in target.last_error
    assert pymongo_threads() == []


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ({"target_ip": "db.local"}, "db.local:27017/"),
        ({"target_ip": "db.local:5", "default_db": "a"}, "db.local:5/a"),
        ({"target_ip": ["one", "two:3"], "target_port": 9}, "one:9,two:3/"),
        ({"target_ip": "::1", "target_port": 9}, "[::1]:9/"),
        ({"target_ip": "a", "username": "u@:/%", "password": "p@:/%"}, "a:27017/"),
        ({"uri": "mongodb://u:p@a,b:5/x.y?replicaSet=rs&authSource=admin"}, "a:27017,b:5/x.y"),
        ({"uri": "mongodb://u%40:p%2F@a/x", "default_db": "z", "default_collection": "c"}, "a:27017/z.c"),
        ({"uri": "mongodb+srv://u:p@cluster.example.net/x?tls=true"}, "cluster.example.net/x"),
        ({"target_ip": "mongodb://u:p@a:7/"}, "a:7/"),
    ],
)
def test_address_says_where_and_never_who(options: dict[str, Any], address: str) -> None:
    with MongoDBExporter(**options) as exporter:
        assert exporter.address() == address


@pytest.mark.parametrize("secret", ["p@ss", "p:ss", "p/ss", "p%ss", "p%40ss", "pä?#ss"])
def test_credentials_reach_the_client_as_they_are(secret: str) -> None:
    with MongoDBExporter("host", username=f"u{secret}", password=secret) as exporter:
        credentials = exporter.client.options._options  # there is no public way to see them
        assert (credentials["username"], credentials["password"]) == (f"u{secret}", secret)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({}, MissingConfigError, "target_ip"),
        ({"target_ip": None}, MissingConfigError, "uri="),
        ({"target_ip": "a", "uri": "mongodb://a"}, InvalidConfigError, "one of them"),
        ({"target_ip": ""}, InvalidConfigError, "target_ip=''"),
        ({"target_ip": 5}, InvalidConfigError, "target_ip"),
        ({"target_ip": "a", "target_port": 0}, InvalidConfigError, "target_port=0"),
        ({"target_ip": "a", "target_port": "x"}, InvalidConfigError, "target_port='x'"),
        ({"uri": "http://a"}, InvalidConfigError, "connection string"),
        ({"uri": "mongodb://"}, InvalidConfigError, "connection string"),
        ({"uri": "mongodb://a/?replicaSett=x"}, InvalidConfigError, "replicasett"),
        ({"uri": "mongodb://a/?w=0"}, InvalidConfigError, "w=0"),
        ({"target_ip": "a", "w": 0}, InvalidConfigError, "w=0"),
        ({"target_ip": "a", "w": -1}, InvalidConfigError, "w"),
        ({"target_ip": "a", "wtimeout": -1}, InvalidConfigError, "wtimeout"),
        ({"target_ip": "a", "id": "uuid"}, InvalidConfigError, "id="),
        ({"target_ip": "a", "on_duplicate": "replce"}, InvalidConfigError, "replace"),
        ({"target_ip": "a", "default_db": ""}, InvalidConfigError, "default_db"),
        ({"target_ip": "a", "tls": "yes"}, InvalidConfigError, "tls='yes'"),
        ({"target_ip": "a", "client_options": {"nonsense": 1}}, InvalidConfigError, "nonsense"),
        ({"target_ip": "a", "auth_mechanism": "TELEPATHY"}, InvalidConfigError, "authMechanism"),
        ({"target_ip": "a", "serverTimeout": 1}, InvalidConfigError, "serverTimeout"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        MongoDBExporter(**options)


def test_a_password_is_not_in_an_error() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        MongoDBExporter(uri="mongodb:/user:hunter2@host")
    assert "hunter2" not in str(caught.value)


def test_retries_are_ours_and_an_attempt_ends_in_time() -> None:
    # Given a URI that asks for pymongo's retries
    with MongoDBExporter(uri="mongodb://a/?retryWrites=true&socketTimeoutMS=77", timeout=6) as exporter:
        options = exporter.client.options

        # Then there are none, and the time-outs follow from ours unless they are said
        assert options.retry_writes is False
        assert options.retry_reads is False
        assert options.server_selection_timeout == 2
        assert options.pool_options.connect_timeout == 2
        assert options.pool_options.socket_timeout == 0.077


def test_the_write_concern_reaches_the_client() -> None:
    with MongoDBExporter("a", w="majority", journal=True, wtimeout=2.5) as exporter:
        assert exporter.client.write_concern.document == {"w": "majority", "j": True, "wtimeout": 2500}


def test_client_db_and_collection_are_for_the_program() -> None:
    with MongoDBExporter("a", default_db="plant", default_collection="readings") as exporter:
        assert isinstance(exporter.client, pymongo.MongoClient)
        assert exporter.client is exporter.client
        assert exporter.db is not None
        assert exporter.collection is not None
        assert (exporter.db.name, exporter.collection.full_name) == ("plant", "plant.readings")
        with pytest.raises(AttributeError):
            exporter.client = None  # type: ignore[misc, assignment] # it is read-only
    with MongoDBExporter("a") as bare:
        assert bare.db is None
        assert bare.collection is None
    assert pymongo_threads() == []


def test_send_says_that_database_or_collection_is_missing() -> None:
    with MongoDBExporter("a", default_db="plant") as exporter:
        with pytest.raises(MissingConfigError, match="default_collection"):
            exporter.send({"n": 1})
        with pytest.raises(MissingConfigError, match="must be a name"):
            exporter.send({"n": 1}, collection="")
        with pytest.raises(InvalidConfigError, match="index"):
            exporter.send({"n": 1}, index="x")
        exporter.send({"n": 1}, collection="readings")
        assert exporter.stats().accepted == 1


def test_records_that_say_nothing_are_refused_alone_where_send_could_not_look() -> None:
    # Given an exporter without defaults, as a pool calls it
    with MongoDBExporter(NOBODY, UNREACHABLE, timeout=0.3) as exporter:
        exporter._client = exporter._clients.make()

        # When it is given a record without names
        answers = exporter.export(Batch([record({"n": 1})]))
        exporter.disconnect()

    # Then that one becomes a dead letter
    assert isinstance(answers, list)
    assert isinstance(answers[0], Reject)
    assert "default_db" in answers[0].reason


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mongodb://u:p%40@host:9/plant/readings?w=1&tls=true", "host:9/plant.readings"),
        ("mongodb://host/plant?default_collection=readings&replicaSet=rs", "host:27017/plant.readings"),
        ("mongodb://host", "host:27017/"),
        ("mongodb+srv://u:p@cluster.example.net/plant/readings", "cluster.example.net/plant.readings"),
        ("mongodb://a,b/plant/readings", "a:27017,b:27017/plant.readings"),
        ("mongodb://u:p%2F@a:1,b,[::1]:3/plant/readings?replicaSet=rs", "a:1,b:27017,[::1]:3/plant.readings"),
    ],
)
def test_from_url(url: str, address: str) -> None:
    with from_url(url, max_memory="1 MB") as exporter:
        assert isinstance(exporter, MongoDBExporter)
        assert exporter.address() == address


def test_several_hosts_of_a_url_reach_the_client() -> None:
    with from_url("mongodb://a:1,b,[::1]:3/plant/readings?replicaSet=rs", max_memory="1 MB") as exporter:
        assert isinstance(exporter, MongoDBExporter)
        client = exporter._clients.make()
        assert client._topology_settings.seeds == {("a", 1), ("b", 27017), ("::1", 3)}
        assert client.options.replica_set_name == "rs"
        client.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mongodb://a:1,b:99999/plant", "99999|[Rr]ange"),
        ("mongodb://a:1,,b/plant", "no host"),
        ("mongodb+srv://a.example.net,b.example.net/plant", r"mongodb\+srv://a.*one name"),
        ("mongodb+srv://a.example.net:27017/plant", "without a port"),
    ],
)
def test_hosts_that_cannot_be(url: str, words: str) -> None:
    with pytest.raises(InvalidConfigError, match=words):
        from_url(url)


def test_from_url_refuses_what_is_no_option() -> None:
    with pytest.raises(InvalidConfigError, match="replicaSet"):
        from_url("mongodb://host/plant?replcaSet=x&replicaSet=rs")


# Documents


def made(data: Any, make_id: Any = "record") -> dict[str, Any]:
    options: CodecOptions[Any] = CodecOptions(tz_aware=True, uuid_representation=UuidRepresentation.STANDARD)
    raw = DocumentMaker(make_id).make(record(data)).raw(options)
    return bson.decode(raw, options.with_options(uuid_representation=UuidRepresentation.UNSPECIFIED))


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (5, 5),
        (2**62, 2**62),
        (1.5, 1.5),
        (True, True),
        (None, None),
        ("ä\0", "ä\0"),
        (b"\0", b"\0"),
        (bytearray(b"x"), b"x"),
        ([1, [2]], [1, [2]]),
        ((1, 2), [1, 2]),
        ({3}, [3]),
        ({"a": {"b": 1}}, {"a": {"b": 1}}),
        ({1: "x", None: "y"}, {"1": "x", "null": "y"}),
        (Decimal("1.50"), bson.Decimal128("1.50")),
        (Decimal("NaN"), bson.Decimal128("NaN")),
        (uuid.UUID(int=7), bson.Binary(uuid.UUID(int=7).bytes, 4)),
        (dt.date(2026, 1, 2), dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc)),
        (dt.time(1, 2, 3), "01:02:03"),
        (dt.timedelta(minutes=1), 60.0),
        (dt.datetime(2026, 1, 2, 3, 4, 5, 6789), dt.datetime(2026, 1, 2, 3, 4, 5, 6000, dt.timezone.utc)),
        (
            dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.timezone(dt.timedelta(hours=2))),
            dt.datetime(2026, 1, 2, 1, 4, tzinfo=dt.timezone.utc),
        ),
        (np.int32(4), 4),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.arange(3), [0, 1, 2]),
        (np.datetime64("2026-01-02T00:00:00.000000001"), dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc)),
        (bson.ObjectId("0" * 24), bson.ObjectId("0" * 24)),
        (bson.Int64(3), 3),
        (bson.Regex("a"), bson.Regex("a")),
        (bson.Timestamp(1, 2), bson.Timestamp(1, 2)),
    ],
)
def test_values(value: Any, stored: Any) -> None:
    assert made({"v": value})["v"] == stored


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("a text", "a str is no document"),
        (b"x", "a bytes is no document"),
        ((1, 2), "a tuple is no document"),
        ({"v": 2**63}, "64 bits"),
        ({"a\0b": 1}, "NUL"),
        ({(1, 2): 1}, "key of type tuple"),
        ({"v": "\ud800"}, "surrogate"),
        ({1: 1, "1": 2}, "same text"),
        ({"v": Decimal("1" * 40)}, "34 digits"),
        ({"v": "x" * 17_000_000}, "16 MiB"),
        ({"v": object()}, "object"),
    ],
)
def test_what_cannot_be_a_document_is_refused_with_the_reason(data: Any, reason: str) -> None:
    with pytest.raises(DataTypeError, match=reason):
        made(data)


def test_the_caller_s_data_is_not_changed_and_the_id_comes_first() -> None:
    data = {"n": 1, "set": {1}}
    assert list(made(data)) == ["_id", "n", "set"]
    assert data == {"n": 1, "set": {1}}
    own = {"n": 1, "_id": 7}
    assert list(made(own)) == ["_id", "n"]
    assert list(own) == ["n", "_id"]


def test_ids() -> None:
    assert made({"n": 1})["_id"] == f"{'0' * 16}-0"
    assert made({"n": 1}, "objectid")["_id"] == made({"n": 2}, "objectid")["_id"]
    assert isinstance(made({"n": 1}, "objectid")["_id"], bson.ObjectId)
    assert made({"n": 1}, "server")["_id"] != made({"n": 1}, "server")["_id"]
    assert made({"n": 1}, lambda record: ("x", record.data["n"]))["_id"] == ["x", 1]
    assert made({"n": 1, "_id": 5}, lambda record: 6)["_id"] == 5
    with pytest.raises(DataTypeError, match="KeyError"):
        made({"n": 1}, lambda record: record.data["m"])


def test_certificates_are_not_opened_at_construction() -> None:
    factory = ClientFactory("a", 1, None, 5.0, {"tls": True, "tlsCAFile": "/not/there/yet.pem"})
    with pytest.raises((OSError, pymongo.errors.PyMongoError)):
        factory.make()
