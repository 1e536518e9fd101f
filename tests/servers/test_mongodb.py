"""MongoDBExporter against servers, and over links that go bad: every accepted record is there exactly once."""

from __future__ import annotations

import datetime as dt
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import bson
import pymongo
import pytest

from resilient_exporters import Batch, DeadLetter, Delivered, MongoDBExporter, Record, Reject
from tests.servers.conftest import unique
from tests.servers.provision import HOST, Instance, Link
from tests.servers.provision.server import free_port
from tests.servers.story import Story
from tests.targets import balanced

OwnServer = Callable[..., Instance]
MakeLink = Callable[[int], Link]


def pymongo_threads(before: Iterable[threading.Thread] = ()) -> list[str]:
    """Those that are still there once closed clients have had the time to stop theirs."""
    threads = [thread for thread in set(threading.enumerate()) - set(before) if "pymongo" in thread.name]
    for thread in threads:
        thread.join(5)
    return [thread.name for thread in threads if thread.is_alive()]


def there(port: int, database: str) -> list[int]:
    """What is in the collection, in the order of writing."""
    with pymongo.MongoClient[dict[str, Any]](HOST, port) as client:
        return [document["n"] for document in client[database].t.find({}, {"n": 1})]


@pytest.fixture
def story() -> Iterator[Callable[..., Story]]:
    made: list[Story] = []
    before = threading.enumerate()

    def make(port: int, database: str, **options: Any) -> Story:
        made.append(
            Story(
                lambda **given: MongoDBExporter(HOST, port, default_db=database, default_collection="t", **given),
                lambda: there(port, database),
                **options,
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.exporter.close(0)
    assert pymongo_threads(before) == []


@pytest.fixture
def plain(ferretdb: Instance, mongo_database: str) -> Any:
    with pymongo.MongoClient[dict[str, Any]](HOST, ferretdb.port, tz_aware=True) as client:
        yield client[mongo_database]


def export(
    exporter: MongoDBExporter, *data: Any, redelivered: bool = False, start: int = 0, **options: Any
) -> list[Any]:
    """What a batch of these records is answered."""
    records = [Record(run="0" * 16, offset=start + n, data=one, options=options) for n, one in enumerate(data)]
    answers = exporter.export(Batch(records, redelivered=redelivered, deadline=time.monotonic() + exporter.timeout))
    assert isinstance(answers, list)
    return answers


@pytest.fixture
def exporter(ferretdb: Instance, mongo_database: str) -> Iterator[Callable[..., MongoDBExporter]]:
    made: list[MongoDBExporter] = []

    def make(**options: Any) -> MongoDBExporter:
        given = {"default_db": mongo_database, "default_collection": "t", **options}
        made.append(MongoDBExporter(HOST, ferretdb.port, **given))
        made[-1].connect()
        return made[-1]

    yield make
    for one in made:
        one.disconnect()
        one.close()


# What arrives


def test_documents_arrive_and_the_id_comes_back(
    ferretdb: Instance, mongo_database: str, plain: Any, story: Any
) -> None:
    # Given an exporter
    it = story(ferretdb.port, mongo_database)
    data = {"n": 1, "when": dt.datetime(2026, 1, 2, 3, tzinfo=dt.timezone(dt.timedelta(hours=2)))}

    # When a record is sent, one for another collection, and the first is changed afterwards
    receipt = it.exporter.send(data)
    other = it.exporter.send({"n": 2}, db=mongo_database, collection="other")
    data["n"] = 99

    # Then both are where they belong, as they were sent, under the ids that the receipts return
    assert (receipt.successful, receipt.returned) == (True, receipt.id)
    assert other.returned == other.id
    assert plain.t.find_one() == {"_id": receipt.id, "n": 1, "when": dt.datetime(2026, 1, 2, 1, tzinfo=dt.timezone.utc)}
    assert plain.other.find_one() == {"_id": other.id, "n": 2}
    assert it.exporter.collection is not None
    assert it.exporter.collection.count_documents({}) == 1


def test_no_thread_of_pymongo_before_the_first_delivery_and_none_after_close(
    ferretdb: Instance, mongo_database: str, story: Any
) -> None:
    before = set(threading.enumerate())
    it = story(ferretdb.port, mongo_database)
    assert set(threading.enumerate()) == before
    it.send(1)
    it.watch.wait_for(1)
    it.exporter.close()
    assert pymongo_threads(before) == []


def test_mongo_java_keeps_every_value(mongo_java: Instance, story: Any) -> None:
    # Given a server that takes all of BSON
    database = unique("db")
    it = story(mongo_java.port, database)
    values = {
        "nan": math.nan, "inf": math.inf, "big": 2**63 - 1, "nested": [[1], [2]], "a.b": 1, "$c": 2, "": 3,
        "price": bson.Decimal128("1.50"), "id": bson.ObjectId(), "bytes": b"\0\1", "none": None, "deep": nested(90),
        "regex": bson.Regex("^a", "i"), "stamp": bson.Timestamp(1, 2), "min": bson.MinKey(), "text": "ä\0€",
    }  # fmt: skip

    # When they are sent
    receipt = it.exporter.send(values)
    assert receipt.successful

    # Then they come back
    with pymongo.MongoClient[dict[str, Any]](HOST, mongo_java.port) as client:
        back = client[database].t.find_one({"_id": receipt.id}) or {}
    assert math.isnan(back.pop("nan"))
    values.pop("nan")
    assert back == {"_id": receipt.id, **values}


def nested(levels: int) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for _ in range(levels):
        document = {"in": document}
    return document


# Single documents


def test_what_is_refused_is_refused_alone(plain: Any, exporter: Any) -> None:
    # Given a unique index, and a document in it
    plain.t.create_index("serial", unique=True)
    plain.t.insert_one({"_id": "there", "serial": 7})

    # When a batch has all that can be wrong with a document
    answers = export(
        exporter(),
        {"serial": 1}, {"serial": 7}, {"_id": "there", "serial": 3}, {"serial": 4, "a.b": 1}, {"serial": 5, "$x": 1},
        {"serial": 6, "v": [[1]]}, "a text", {"serial": 8, "v": 2**64}, {"serial": 9, "v\0": 1}, {"serial": 10},
    )  # fmt: skip

    # Then each has its reason, and the others are written
    assert [type(answer) for answer in answers] == [Delivered, *[Reject] * 8, Delivered]
    reasons = [answer.reason for answer in answers if isinstance(answer, Reject)]
    expected = ("code 11000", "code 11000", "code 2", "code 2", "nested arrays", "a str", "64 bits", "NUL")
    assert [text for text, said in zip(expected, reasons, strict=True) if text not in said] == [], reasons
    assert sorted(document["serial"] for document in plain.t.find()) == [1, 7, 10]


def test_our_own_duplicates_are_delivered(plain: Any, exporter: Any) -> None:
    it = exporter()
    first = export(it, {"n": 0}, {"n": 1})
    again = export(it, {"n": 0}, {"n": 1}, {"n": 2}, redelivered=True)
    assert first == again[:2]
    assert [type(answer) for answer in again] == [Delivered] * 3
    assert plain.t.count_documents({}) == 3


def test_our_own_document_is_known_again_whichever_key_is_named(plain: Any, exporter: Any) -> None:
    # Given a unique index beside _id, and a document of ours that is there already
    plain.t.create_index("serial", unique=True)
    it = exporter()
    export(it, {"serial": 1})

    # When it comes again, with another record that has its serial
    ours, other = export(it, {"serial": 1}, {"serial": 1}, redelivered=True)

    # Then ours is delivered, and the other refused
    assert isinstance(ours, Delivered)
    assert isinstance(other, Reject)


def test_duplicates_of_the_user_s_ids(plain: Any, exporter: Any) -> None:
    # Given a document of someone else
    plain.t.insert_one({"_id": "a", "n": 0})

    # Then by default the record is refused, whether or not the batch was sent before
    assert isinstance(export(exporter(), {"_id": "a", "n": 1})[0], Reject)
    assert isinstance(export(exporter(), {"_id": "a", "n": 1}, redelivered=True)[0], Reject)

    # But a document that is this very record, sent again, is delivered
    when = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.timezone.utc)
    mine = {"n": 5, "x": 1.5, "_id": bson.ObjectId(), "big": 2**40, "t": when, "l": [1, {"a": None}]}
    assert isinstance(export(exporter(), mine)[0], Delivered)
    assert isinstance(export(exporter(), mine, redelivered=True)[0], Delivered)
    assert isinstance(export(exporter(), mine)[0], Reject)

    # And "ignore" leaves what is there, "replace" writes over it, the later last
    assert isinstance(export(exporter(on_duplicate="ignore"), {"_id": "a", "n": 1})[0], Delivered)
    assert plain.t.find_one({"_id": "a"})["n"] == 0
    answers = export(exporter(on_duplicate="replace"), *[{"_id": "a", "n": n} for n in range(1, 9)], {"n": 9})
    assert [type(answer) for answer in answers] == [Delivered] * 9
    assert plain.t.find_one({"_id": "a"})["n"] == 8


def test_ids_made_by_a_function(plain: Any, exporter: Any) -> None:
    it = exporter(id=lambda record: f"{record.data['device']}-{record.data['t']}")
    good, bad = export(it, {"device": "d", "t": 1}, {"device": "d"})
    assert good == Delivered("d-1")
    assert isinstance(bad, Reject)
    assert "KeyError" in bad.reason
    assert plain.t.count_documents({}) == 1


def test_a_batch_for_many_collections(plain: Any, exporter: Any) -> None:
    it = exporter(default_db=None, default_collection=None)
    records = [
        Record(run="0" * 16, offset=n, data={"n": n}, options={"db": plain.name, "collection": f"c{n % 3}"})
        for n in range(9)
    ]
    records.append(Record(run="0" * 16, offset=9, data={"n": 9}, options={"db": plain.name, "collection": "$bad"}))
    answers = it.export(Batch(records, deadline=time.monotonic() + 10))
    assert [type(answer) for answer in answers[:9]] == [Delivered] * 9
    assert not isinstance(answers[9], Delivered)
    assert [plain[f"c{n}"].count_documents({}) for n in range(3)] == [3, 3, 3]


# What a failing cluster answers


@pytest.fixture
def fail(failcommand: Instance) -> Iterator[Callable[..., None]]:
    with pymongo.MongoClient[dict[str, Any]](HOST, failcommand.port) as client:

        def point(mode: object = None, **data: object) -> None:
            once = {"times": 1} if mode is None else mode
            client.admin.command(
                "configureFailPoint", "failCommand", mode=once, data={"failCommands": ["insert"], **data}
            )

        yield point


@pytest.mark.parametrize("code", [10107, 13435, 91, 189, 11600, 11602, 50, 89, 64, 112, 14031, 462])
def test_passing_codes_are_waited_for(
    code: int, failcommand: Instance, mongo_database: str, fail: Any, story: Any
) -> None:
    it = story(failcommand.port, mongo_database)
    fail({"times": 2}, errorCode=code)
    it.send(20)
    it.all_arrive_once()
    assert any(f"code {code}" in reason for reason in it.watch.reasons), it.watch.reasons


@pytest.mark.parametrize("code", [13, 18, 8000])
def test_codes_that_someone_has_to_mend_hold(
    code: int, failcommand: Instance, mongo_database: str, fail: Any, story: Any
) -> None:
    # Given an account without rights
    it = story(failcommand.port, mongo_database)
    fail("alwaysOn", errorCode=code)
    it.send(20)
    it.watch.wait_until_held()
    assert f"code {code}" in it.watch.reasons[0]
    assert balanced(it.exporter).targets[it.exporter.name].pending == 20

    # When it gets them, and someone says so
    fail("off")
    it.exporter.mended()

    # Then all arrive
    it.all_arrive_once()


@pytest.mark.parametrize("code", [121, 171])
def test_single_documents_that_are_refused(
    code: int, failcommand: Instance, mongo_database: str, plain: Any, fail: Any, story: Any
) -> None:
    it = story(failcommand.port, mongo_database)
    fail("alwaysOn", writeErrors={"field": "n", "value": 7, "code": code, "errmsg": "not this one"})
    it.send(20)
    it.watch.wait_for(20)
    letters = it.letters()
    assert [(letter.data["n"], letter.reason) for letter in letters] == [(7, f"not this one (code {code})")]
    assert plain.t.count_documents({}) == 19


def test_single_documents_that_have_to_wait(failcommand: Instance, mongo_database: str, fail: Any, story: Any) -> None:
    it = story(failcommand.port, mongo_database)
    fail({"times": 1}, writeErrors={"field": "n", "value": 7, "code": 112})
    it.send(20)
    it.all_arrive_once()


def test_a_command_that_is_refused_for_one_of_its_documents(
    failcommand: Instance, mongo_database: str, plain: Any, fail: Any, story: Any
) -> None:
    # Given that insert commands are refused as a whole for a while, as for a document nested too deeply
    it = story(failcommand.port, mongo_database, batch_records=4)
    fail({"times": 3}, errorCode=15)

    # When four records are sent as one batch: 4, 2 and 1 are refused
    it.exporter.send([{"n": n} for n in range(4)])
    it.watch.wait_for(4)

    # Then the one that stood alone is the dead letter, and the others are written
    (alone,) = [letter.data["n"] for letter in it.letters()]
    assert sorted(document["n"] for document in plain.t.find()) == [n for n in range(4) if n != alone]


def test_write_concern_that_is_not_satisfied_is_waited_for(
    failcommand: Instance, mongo_database: str, fail: Any, story: Any
) -> None:
    it = story(failcommand.port, mongo_database)
    fail({"times": 2}, writeConcernError={"code": 64, "errmsg": "waiting for replication timed out"})
    it.send(20)
    it.all_arrive_once()
    assert any("code 64" in reason for reason in it.watch.reasons), it.watch.reasons


def test_write_concern_that_cannot_be_satisfied_holds(
    failcommand: Instance, mongo_database: str, fail: Any, story: Any
) -> None:
    it = story(failcommand.port, mongo_database)
    fail("alwaysOn", writeConcernError={"code": 100, "errmsg": "not enough data-bearing nodes"})
    it.send(5)
    it.watch.wait_until_held()
    assert "write concern" in it.watch.reasons[-1]
    fail("off")
    it.exporter.mended()
    it.all_arrive_once()


@pytest.mark.parametrize("times", [1, 3])
def test_answers_lost_after_the_work_was_done(
    times: int, failcommand: Instance, mongo_database: str, fail: Any, story: Any
) -> None:
    it = story(failcommand.port, mongo_database)
    fail({"times": times}, dropReply=True)
    it.send(50)
    it.all_arrive_once()


def test_a_server_that_answers_too_late(failcommand: Instance, mongo_database: str, fail: Any, story: Any) -> None:
    # Given a server that works longer than an attempt may take
    it = story(failcommand.port, mongo_database, timeout=1.0)
    fail({"times": 2}, blockConnection=True, blockTimeMS=1500)
    it.send(20)

    # Then the attempts end by themselves, and all is well afterwards
    it.all_arrive_once()
    assert it.exporter.stats().targets[it.exporter.name].hung == 0
    assert not any("no answer within" in reason for reason in it.watch.reasons), it.watch.reasons


# Poison


def test_poison_that_makes_the_server_hang_up_ends_as_a_dead_letter(
    ferretdb: Instance, mongo_database: str, plain: Any, story: Any
) -> None:
    # Given records of which one makes FerretDB close the connection
    it = story(ferretdb.port, mongo_database, retry=0)
    it.exporter.send([{"n": n, "v": math.nan if n == 37 else 1.0} for n in range(100)])

    # Then it is singled out, and the others are there once
    it.watch.wait_for(100)
    letters: list[DeadLetter] = it.letters()
    assert [letter.data["n"] for letter in letters] == [37]
    assert "the connection broke under this batch, while the server is there" in letters[0].reason
    assert sorted(document["n"] for document in plain.t.find()) == [n for n in range(100) if n != 37]
    balanced(it.exporter)


def test_a_document_of_20_mb(ferretdb: Instance, mongo_database: str, plain: Any, story: Any) -> None:
    it = story(ferretdb.port, mongo_database, max_memory="128 MB", timeout=30.0)
    it.exporter.send([{"n": 0}, {"n": 1, "v": "x" * 20_000_000}, {"n": 2}])
    it.watch.wait_for(3)
    (reason,) = [letter.reason for letter in it.letters()]
    assert "bytes of BSON: a document has at most 16777216 (16 MiB)" in reason
    assert sorted(document["n"] for document in plain.t.find()) == [0, 2]


# The link


def test_a_link_that_is_cut_again_and_again(
    ferretdb: Instance, mongo_database: str, link: MakeLink, story: Any
) -> None:
    bad = link(ferretdb.port)
    it = story(bad.port, mongo_database)
    for turn in range(5):
        it.send(200)
        bad.cut()
        it.send(50)
        it.watch.wait_for_trouble(turn)
        bad.mend()
        it.watch.wait_for(it.sent)
    it.all_arrive_once()


# The server


def test_a_wrong_password_holds_and_the_right_one_delivers(own_server: OwnServer, story: Any) -> None:
    # Given a server that asks for a password full of special characters, over TLS
    secret = "p@ss:w/rd%40"
    server = own_server("ferretdb", user="edge", password=secret, tls=True)
    trust = {"username": "edge", "tls": True, "tls_ca_file": str(server.certificate), "name": "plant"}

    def told(**options: Any) -> Story:
        it: Story = story(server.port, "plant", **{**trust, **options})
        return it

    # When an exporter has a wrong one
    wrong = told(password="secret", client_options={"tlsAllowInvalidHostnames": True})
    wrong.send(10)
    wrong.watch.wait_until_held()
    assert "code 18" in wrong.watch.reasons[0]
    assert "auth_source" in wrong.watch.reasons[0]
    assert secret not in wrong.watch.reasons[0]
    wrong.exporter.close()

    # Then the next one, with the right one, delivers what waits
    right = told(password=secret, client_options={"tlsAllowInvalidHostnames": True})
    right.exporter.send({"n": 10})
    right.watch.wait_for(11)
    assert right.exporter.collection is not None
    assert sorted(document["n"] for document in right.exporter.collection.find()) == list(range(11))
    right.exporter.close()


def test_a_certificate_that_is_not_trusted_holds(own_server: OwnServer, story: Any) -> None:
    server = own_server("ferretdb", tls=True)
    it = story(server.port, "plant", tls=True)
    it.send(1)
    it.watch.wait_until_held()
    assert "tls_ca_file" in it.watch.reasons[0]


def test_a_certificate_file_that_is_missing_holds(own_server: OwnServer, story: Any) -> None:
    it = story(free_port(), "plant", tls=True, tls_ca_file="/not/mounted/ca.pem")
    it.send(1)
    it.watch.wait_until_held()
    assert "ca.pem" in it.watch.reasons[0]


def test_a_restart_of_the_program_delivers_the_backlog_once(
    ferretdb: Instance, mongo_database: str, link: MakeLink, story: Any
) -> None:
    # Given a program that ends while the link is down, some of its records delivered
    bad = link(ferretdb.port)
    first = story(bad.port, mongo_database, name="plant")
    first.send(300)
    first.watch.wait_for(300)
    bad.cut()
    first.send(300)
    first.watch.wait_for_trouble()
    report = first.exporter.close(1)
    assert (report.lost, report.pending) == (0, 300)

    # When the next one starts, with the link up again
    bad.mend()
    second = story(bad.port, mongo_database, name="plant")
    second.exporter.send({"n": 600})
    second.watch.wait_for(301)

    # Then each is there once
    with pymongo.MongoClient[dict[str, Any]](HOST, ferretdb.port) as client:
        assert sorted(document["n"] for document in client[mongo_database].t.find()) == list(range(601))
