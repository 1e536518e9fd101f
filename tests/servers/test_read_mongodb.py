"""Documents and changes from servers that speak MongoDB's wire protocol: every one once.

FerretDB has no change streams: that is an error here, too. mongo-java has them, with its oplog.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pymongo
import pytest
from bson import Decimal128, Int64, ObjectId

from resilient_exporters.pipeline import ConfigurationError, Pipeline, PipelineError
from resilient_exporters.pipeline.readers import MongoChangeStreamReader, MongoReader
from tests.readings import Keeping, run_with_stumbles
from tests.servers.conftest import unique
from tests.servers.provision import HOST, Instance

Place = tuple[str, str, Any]


@pytest.fixture
def place(ferretdb: Instance, mongo_database: str) -> Iterator[Place]:
    """URI, database and collection in FerretDB."""
    with pymongo.MongoClient[dict](HOST, ferretdb.port) as client:
        yield f"mongodb://{HOST}:{ferretdb.port}", mongo_database, client[mongo_database].things


def test_a_collection_that_is_interrupted_gives_every_document_once(place: Place) -> None:
    # Given documents with ids in no order
    uri, database, things = place
    things.insert_many([{"_id": ObjectId(), "n": number} for number in range(500)])

    # When it is read with interruptions
    kept, runs = run_with_stumbles(
        lambda: MongoReader(uri=uri, database=database, collection="things", batch_size=60), [1, 61, 300]
    )

    # Then every one came once, in the order of the ids
    assert runs == 4
    assert [one["n"] for one in kept] == [one["n"] for one in things.find().sort("_id", 1)]


def test_a_filter_narrows_it_also_in_extended_json(place: Place) -> None:
    uri, database, things = place
    at = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
    things.insert_many([{"_id": number, "at": at + dt.timedelta(days=number), "v": 1} for number in range(100)])
    kept: list[Any] = []
    reader = MongoReader(
        uri=f"{uri}/{database}.things", filter={"at": {"$gte": {"$date": "2026-03-01T00:00:00Z"}}},
        projection={"at": 1}, batch_size=10,
    )  # fmt: skip
    Pipeline(reader, writer=Keeping(kept)).run()
    assert [one["_id"] for one in kept] == list(range(59, 100))
    assert kept[0] == {"_id": 59, "at": at + dt.timedelta(days=59)}


def test_ids_of_every_type_are_read_once(mongo_java: Instance) -> None:
    # Given one collection with ids of all types; to mongo-java, and to it alone, a UUID is no binary
    name, now = unique("db"), dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
    ids: list[Any] = [
        None, -1.5, 7, Int64(1 << 40), Decimal128("0.25"), "", "é", "é.", {"a": 1, "b": 2}, {"b": 1}, b"\0", b"\1\2",
        ObjectId(), ObjectId(), False, True, now, now + dt.timedelta(days=1),
    ]  # fmt: skip
    uri = f"mongodb://{HOST}:{mongo_java.port}/{name}.things"
    with pymongo.MongoClient[dict](uri, uuidRepresentation="standard") as client:
        client[name].things.insert_many([{"_id": one} for one in ids])
        try:
            # When it is read one by one, resumed after each but the last
            kept, _ = run_with_stumbles(lambda: MongoReader(uri=uri, batch_size=2), list(range(1, len(ids), 3)))
        finally:
            client.drop_database(name)

    # Then each came once
    assert len(kept) == len(ids)
    assert all(sum(type(one["_id"]) is type(each) and one["_id"] == each for one in kept) == 1 for each in ids)


def test_a_server_that_fails_for_a_while_is_asked_again(failcommand: Instance, mongo_database: str) -> None:
    uri = f"mongodb://{HOST}:{failcommand.port}/{mongo_database}.things"
    with pymongo.MongoClient[dict](uri) as client:
        client[mongo_database].things.insert_many([{"_id": number} for number in range(50)])
        point: dict[str, Any] = {"failCommands": ["find"], "closeConnection": True}
        client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=point)
        kept: list[Any] = []
        Pipeline(MongoReader(uri=uri, batch_size=20), writer=Keeping(kept)).run()
        assert [one["_id"] for one in kept] == list(range(50))

        # And one that refuses is an error, not the end
        point = {"failCommands": ["find"], "errorCode": 13}
        client.admin.command("configureFailPoint", "failCommand", mode={"times": 1}, data=point)
        with pytest.raises(PipelineError, match=r"reading .*things"):
            Pipeline(MongoReader(uri=uri), writer=Keeping([])).run()


def test_mistakes_are_told() -> None:
    for options, text in (
        ({"host": HOST}, "database is missing"),
        ({"host": HOST, "database": "d"}, "collection is missing"),
        ({"uri": f"mongodb://{HOST}/d.c", "projection": {"_id": 0}}, "without _id"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            MongoReader(**options)


# Changes


@pytest.fixture
def changing(own_server: Callable[..., Instance]) -> Iterator[Place]:
    """URI, database and collection in a server with an oplog."""
    server = own_server("mongo-java", settings={"oplog": ""})
    with pymongo.MongoClient[dict](HOST, server.port) as client:
        client.d.things.insert_one({"_id": "before"})
        yield f"mongodb://{HOST}:{server.port}", "d", client.d.things


def test_changes_come_once_over_interruptions(changing: Place) -> None:
    # Given a job whose beginning is on record
    uri, database, things = changing

    begun = threading.Event()

    class Watched(MongoChangeStreamReader):
        def committed(self, position: Any) -> None:
            if position is not None:
                begun.set()

    def change() -> None:
        assert begun.wait(60)
        things.insert_many([{"_id": number} for number in range(30)])
        things.update_one({"_id": 3}, {"$set": {"v": 1}})
        things.delete_one({"_id": 4})
        things.insert_many([{"_id": number} for number in range(30, 38)])

    options = {"uri": uri, "database": database, "collection": "things", "batch_size": 7, "count": 40}
    changes = threading.Thread(target=change)
    changes.start()

    # When changes come and the run is interrupted
    kept, runs = run_with_stumbles(lambda: Watched(**options, batch_seconds=0.2), [5, 20])
    changes.join()

    # Then each came once, in its order, and none from before
    assert runs == 3
    inserted = [one["fullDocument"]["_id"] for one in kept if one["operationType"] == "insert"]
    assert inserted == list(range(38))
    assert [(one["operationType"], one["documentKey"].get("_id")) for one in kept[30:32]] == [
        ("update", None),  # mongo-java puts something else there
        ("delete", 4),
    ]


def test_changes_end_when_nothing_changes(changing: Place) -> None:
    uri, database, _ = changing
    report = Pipeline(MongoChangeStreamReader(uri=uri, database=database, idle_timeout=0.3), writer=Keeping([])).run()
    assert (report.complete, report.read) == (True, 0)


def test_a_server_without_change_streams_is_an_error(place: Place) -> None:
    uri, database, _ = place
    with pytest.raises(PipelineError, match=r"changeStream"):
        Pipeline(MongoChangeStreamReader(uri=uri, database=database, collection="things"), writer=Keeping([])).run()
