"""Hubstorage through its real client, against a storage on loopback."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from resilient_exporters import MissingModuleError, RetryPolicy
from resilient_exporters.pipeline import ConfigurationError, Pipeline, PipelineError, check_for_errors
from resilient_exporters.pipeline.readers import HubstorageReader
from resilient_exporters.pipeline.writers import HubstorageReduceWriter, HubstorageWriter
from tests.hubstorage import KEY, Storage, storage
from tests.pipelines import Bomb, Numbers
from tests.readings import Keeping, run_with_stumbles

CODE = "def reduce_function(item, accumulator=None):\n    return (accumulator or 0) + item['n']"


@pytest.fixture
def hub() -> Iterator[Storage]:
    with storage() as made:
        yield made


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next attempt comes at once."""
    monkeypatch.setattr("resilient_exporters.pipeline.asking.SHORT", RetryPolicy(wait=0, stop=3))


@pytest.fixture
def options(hub: Storage) -> dict[str, Any]:
    return {"apikey": KEY, "project_id": 7, "collection_name": "pages", "endpoint": hub.url}


def fill(hub: Storage, number: int, name: str = "pages", **more: Any) -> None:
    hub.collections[f"7/s/{name}"] = {
        key: {"_key": key, "n": n, **more} for n in range(number) for key in [f"{'ab'[n % 2]}{n:04}"]
    }


def read(**options: Any) -> list[dict[str, Any]]:
    kept: list[Any] = []
    Pipeline(HubstorageReader(**options), writer=Keeping(kept)).run()
    return kept


def test_a_collection_that_is_interrupted_gives_every_record_once(hub: Storage, options: dict[str, Any]) -> None:
    # Given answers that fail, or break off, now and then
    fill(hub, 200)
    hub.fail = [200, 503, 200, 0, 200, 429]

    # When it is read with interruptions
    kept, runs = run_with_stumbles(lambda: HubstorageReader(**options, batch_size=30), [1, 31, 150])

    # Then every record came once, in the order of the keys
    assert runs == 4
    assert [one["_key"] for one in kept] == sorted(hub.collections["7/s/pages"])


def test_prefixes_times_count_and_other_collections_are_heeded(hub: Storage, options: dict[str, Any]) -> None:
    fill(hub, 100)
    fill(hub, 10, "more", title="t", n=-1)
    hub.times = {f"a{n:04}": 1_000 for n in range(50)}
    keys = [
        one["_key"]
        for one in read(**options, prefixes=["b009", "a00", "a000"], exclude_prefixes=["a003"], batch_size=7)
    ]
    assert keys == [f"a{n:04}" for n in range(0, 100, 2) if n // 10 != 3] + [f"b{n:04}" for n in (91, 93, 95, 97, 99)]
    assert [one["n"] for one in read(**options, startts="1970-01-01T00:00:01Z", batch_size=7)] == list(range(0, 50, 2))
    assert len(read(**options, count=13, batch_size=5)) == 13
    joined = read(**options, secondary_collections=["more"])
    assert [one["_key"] for one in joined if one.get("title") == "t" and one["n"] == -1] == [
        f"{'ab'[n % 2]}{n:04}" for n in (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
    ]


def test_an_error_is_an_error_and_not_the_end(hub: Storage, options: dict[str, Any]) -> None:
    for wrong, fail, text in (
        ({"apikey": "wrong"}, [], "401"),
        ({}, [404], "404"),
        ({}, [503] * 3, "503"),
        ({"endpoint": "http://127.0.0.1:1/"}, [], "reading collection pages of project 7: ConnectionError"),
    ):
        hub.fail = fail
        with pytest.raises(PipelineError, match=text) as caught:
            read(**{**options, **wrong})
        assert "wrong" not in str(caught.value)


def test_records_are_stored_under_their_keys_once(hub: Storage, options: dict[str, Any]) -> None:
    # Given a pipeline whose reader fails after 25 records
    def keyed(record: Any) -> Any:
        return {**record, "id": f"k{record['n']}", "at": dt.datetime(2026, 1, 2)}

    first = Pipeline(Numbers(count=40, bomb=Bomb(25)), keyed, writer=HubstorageWriter(**options, key_field="id"))
    with pytest.raises(OSError, match="disk full"):
        first.run()
    assert len(hub.collections["7/s/pages"]) == 20

    # When it is resumed, and an answer fails
    hub.fail = [503]
    again = Pipeline(
        Numbers(count=40), keyed, writer=HubstorageWriter(**options, key_field="id"), resume=first.persistence.job
    )
    report = again.run()

    # Then each is there, once
    assert report.written == 40
    assert hub.collections["7/s/pages"] == {
        f"k{n}": {"_key": f"k{n}", "id": f"k{n}", "n": n, "at": "2026-01-02T00:00:00"} for n in range(40)
    }


def test_records_without_a_key_or_too_large_are_bad(hub: Storage, options: dict[str, Any]) -> None:
    rows = [{"_key": "a"}, {"n": 1}, {"_key": "b", "text": "x" * (1 << 20)}, {"_key": "a", "n": 2}]
    report = Pipeline(rows, writer=HubstorageWriter(**options), on_bad_record="skip").run()
    assert (report.bad, report.written) == ({"writer": 2}, 2)
    assert hub.collections["7/s/pages"] == {"a": {"_key": "a", "n": 2}}


def test_what_records_are_reduced_to_is_stored_after_each_batch(hub: Storage) -> None:
    # Given a run that fails after two batches
    options: dict[str, Any] = {
        "collection_url": f"{hub.url}collections/7/s/sums",
        "key": "sum",
        "apikey": KEY,
        "code": CODE,
    }
    first = Pipeline(Numbers(count=30, bomb=Bomb(25)), writer=HubstorageReduceWriter(**options))
    with pytest.raises(OSError, match="disk full"):
        first.run()
    assert hub.collections["7/s/sums"] == {"sum": {"_key": "sum", "value": sum(range(20)), "_finished": False}}

    # When it is resumed
    Pipeline(Numbers(count=30), writer=HubstorageReduceWriter(**options), resume=first.persistence.job).run()

    # Then the value is that of all records
    assert hub.collections["7/s/sums"] == {"sum": {"_key": "sum", "value": sum(range(30)), "_finished": True}}


def test_mistakes_are_told(options: dict[str, Any]) -> None:
    for wrong, text in (
        ({"project_id": "x"}, "give the number of the project"),
        ({"collection_name": "a/b"}, "letters, digits and _ only"),
        ({"startts": "soon"}, "give milliseconds since 1970"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            HubstorageReader(**{**options, **wrong})
    with pytest.raises(ConfigurationError, match="right would be https"):
        HubstorageReduceWriter(collection_url="storage/7", key="k", apikey=KEY, code=CODE)
    assert KEY not in repr(HubstorageReader(**options))


def test_without_the_client_the_extra_is_named(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scrapinghub", None)
    for cls in (HubstorageReader, HubstorageWriter):
        with pytest.raises(MissingModuleError, match=r"pip install 'resilient-exporters\[hubstorage\]'"):
            cls(**options)
    found = check_for_errors(
        {"reader": {"name": "exporters.readers.hubstorage_reader.HubstorageReader", "options": options},
         "writer": {"name": "ConsoleWriter"}},
        raise_exception=False,
    )  # fmt: skip
    assert "resilient-exporters[hubstorage]" in str(found["reader"])
