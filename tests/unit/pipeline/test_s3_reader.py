"""Objects of a bucket as a source: prefixes, pointers, patterns, days; and what is not there."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from resilient_exporters.codec import decode, encode
from resilient_exporters.pipeline import Pipeline
from resilient_exporters.pipeline.errors import (
    BadRecordError,
    ConfigCheckError,
    ConfigurationError,
    InvalidDateRangeError,
    UnreadableStreamError,
)
from resilient_exporters.pipeline.readers import S3Reader
from resilient_exporters.testing import RecordingExporter
from tests.s3 import ACCOUNT, s3_server


@pytest.fixture(scope="module")
def store() -> Iterator[tuple[str, Any]]:
    with s3_server("field") as (url, client):
        for key in ("a/1.jl.gz", "a/2.jl.gz", "b/1.jl", "b/notes.txt", "2026/11/19/x.jl", "2026/11/20/x.jl"):
            body = json.dumps({"key": key}).encode() + b"\n"
            client.put_object(Bucket="field", Key=key, Body=gzip.compress(body) if key.endswith(".gz") else body)
        client.put_object(Bucket="field", Key="b/folder/", Body=b"")
        client.put_object(Bucket="field", Key="latest", Body=b"b/1\n\na/2\n")
        yield url, client


def reader(store: tuple[str, Any], **options: Any) -> S3Reader:
    return S3Reader(**{"bucket": "field", "endpoint_url": store[0], **ACCOUNT, **options})


def keys(source: S3Reader) -> list[str]:
    found = []
    while not source.is_finished():
        found += [record["key"] for record in source.get_next_batch()]
    source.close()
    return found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"prefix": "a/"}, ["a/1.jl.gz", "a/2.jl.gz"]),
        ({"prefix": "a/1"}, ["a/1.jl.gz"]),
        ({"prefix": ["b/1", "a/", "a/2"]}, ["b/1.jl", "a/1.jl.gz", "a/2.jl.gz"]),
        ({"prefix": "b/", "pattern": r"\.jl$"}, ["b/1.jl"]),
        ({"prefix_pointer": "latest"}, ["b/1.jl", "a/2.jl.gz"]),
        ({"prefix": "nothing/like/it"}, []),
        ({"prefix": "%Y/%m/%d/", "prefix_format_using_date": "2026-11-20"}, ["2026/11/20/x.jl"]),
        (
            {"prefix": "%Y/%m/%d/", "prefix_format_using_date": ["2026-11-18", "2026-11-20"]},
            ["2026/11/19/x.jl", "2026/11/20/x.jl"],
        ),
    ],
)
def test_the_keys_that_are_asked_for(store: tuple[str, Any], options: dict[str, Any], expected: list[str]) -> None:
    assert keys(reader(store, **options)) == expected


def test_keys_of_all_kinds(store: tuple[str, Any]) -> None:
    odd = ["odd/ /b.jl", "odd//b.jl", "odd/?y=1.jl", "odd/[z]*.jl", "odd/a%2F+b.jl", "odd/h#1.jl", "odd/ü.jl"]
    for key in odd:
        store[1].put_object(Bucket="field", Key=key, Body=json.dumps({"key": key}).encode())
    assert sorted(keys(reader(store, prefix="odd/"))) == sorted(odd)


def test_days_count_from_the_day_on_which_the_job_began(store: tuple[str, Any]) -> None:
    # Given a job that began on the 20th and is resumed some other day
    source = reader(store, prefix="%Y/%m/%d/", prefix_format_using_date="yesterday")
    source.set_state({"today": "2026-11-20", "pointed": None})

    # Then it still reads what yesterday was then
    assert keys(source) == ["2026/11/19/x.jl"]
    assert source.get_state() == {"today": "2026-11-20", "pointed": None}
    fresh = reader(store, prefix="%Y", prefix_format_using_date="today")
    assert fresh.get_state()["today"] == dt.datetime.now().astimezone().date().isoformat()


def test_what_a_pointer_named_holds_for_the_whole_job(store: tuple[str, Any]) -> None:
    # Given a job that has begun, and a pointer that names something else by now
    store[1].put_object(Bucket="field", Key="moving", Body=b"a/")
    source = reader(store, prefix_pointer="moving", batch_size=1)
    first = [record["key"] for record in source.get_next_batch()]
    store[1].put_object(Bucket="field", Key="moving", Body=b"b/1")

    # Then a resume reads what it named
    again = reader(store, prefix_pointer="moving")
    again.set_state(decode(encode(source.get_state())))
    again.set_last_position(source.get_last_position())
    assert first + keys(again) == ["a/1.jl.gz", "a/2.jl.gz"]
    source.close()


@pytest.mark.parametrize("bucket", ["no-such-bucket", "field"])
def test_what_is_not_there_is_a_clear_error_before_any_output(store: tuple[str, Any], bucket: str) -> None:
    target = RecordingExporter()
    pointer = {} if bucket != "field" else {"prefix_pointer": "no-such-key"}
    with pytest.raises(
        UnreadableStreamError, match="no such bucket" if not pointer else "prefix_pointer='no-such-key'"
    ):
        Pipeline(reader(store, bucket=bucket, **pointer), writer=target, on_bad_record="skip").run()
    assert list(target.records) == []


def test_an_object_that_disappears_is_a_bad_record(store: tuple[str, Any]) -> None:
    _, client = store
    client.put_object(Bucket="field", Key="gone/1.jl", Body=b'{"key": "gone/1.jl"}\n')
    client.put_object(Bucket="field", Key="gone/2.jl", Body=b'{"key": "gone/2.jl"}\n')
    for choice in ("fail", "skip"):
        source = reader(store, prefix="gone/")
        source.bad_records.choice = choice
        listed = source.get_read_streams()
        source.get_read_streams = lambda listed=listed: listed  # type: ignore[method-assign,misc]  # as listed before
        client.delete_object(Bucket="field", Key="gone/1.jl")
        if choice == "fail":
            with pytest.raises(BadRecordError, match=r"gone/1\.jl.*no such file or object"):
                keys(source)
            source.close()
            client.put_object(Bucket="field", Key="gone/1.jl", Body=b'{"key": "gone/1.jl"}\n')
        else:
            assert keys(source) == ["gone/2.jl"]
            assert source.bad_records.count == {"reader": 1}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"prefix_format_using_date": ["2026-11-20", "2026-11-19"]}, "ends on 2026-11-19, before it begins"),
        ({"prefix_format_using_date": "the day of the flood"}, "is no date; write for instance 2026-01-31"),
        ({"prefix_format_using_date": ["2026-11-20"]}, r"neither a date nor \[start, end\]"),
        ({"prefix": "a", "prefix_pointer": "b"}, "give one of them"),
        ({"pattern": "("}, r"pattern='\(' is no regular expression"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigurationError, match=error):
        S3Reader(bucket="field", **options)


def test_a_range_that_ends_before_it_begins_has_an_error_of_its_own() -> None:
    from resilient_exporters.pipeline.readers.days import check_days

    with pytest.raises(InvalidDateRangeError):
        check_days(["today", "yesterday"])


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORTERS_S3READER_AWS_KEY", "from-the-environment")
    monkeypatch.setenv("EXPORTERS_S3READER_AWS_SECRET", "hidden")
    source = S3Reader(bucket="field")
    assert source.read_option("aws_access_key_id") == "from-the-environment"
    assert source.read_option("aws_secret_access_key") == "hidden"
    with pytest.raises(ConfigCheckError, match="bucket: Option bucket is missing"):
        S3Reader()


def test_a_read_that_breaks_off_is_taken_up_again(store: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an object, and a connection that breaks in its middle, twice
    _, client = store
    body = b"".join(json.dumps({"key": str(number)}).encode() + b"\n" for number in range(50_000))
    client.put_object(Bucket="field", Key="long/1.jl", Body=body)
    source = reader(store, prefix="long/")
    monkeypatch.setattr(type(source), "retry_policy", type(source.retry_policy)(0.0, stop=8))
    opened, breaks = source.open_stream, iter([100_000, 500_000])

    def breaking(name: str) -> Any:
        stream, left = opened(name), next(breaks, None)
        if left is None:
            return stream
        whole = stream.read

        def read(size: int) -> bytes:
            nonlocal left
            if left <= 0:
                raise ConnectionResetError("by peer")
            left -= size
            found: bytes = whole(min(size, 20_000))
            return found

        setattr(stream, "read", read)  # noqa: B010 - a method is replaced on purpose
        return stream

    source.open_stream = breaking  # type: ignore[method-assign,assignment]  # a wire that breaks

    # Then every record comes once
    assert keys(source) == [str(number) for number in range(50_000)]
