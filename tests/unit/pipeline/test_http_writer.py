"""Records to a web service: each batch once, under a key that its repetition has, too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from resilient_exporters.pipeline import BadRecordError, ConfigurationError, Pipeline, PipelineError, retries
from resilient_exporters.pipeline.formatters import JsonExportFormatter
from resilient_exporters.pipeline.readers import IterableReader
from resilient_exporters.pipeline.writers import HTTPWriter
from tests.services import Request, WebService, web_service


@pytest.fixture
def service() -> Iterator[WebService]:
    with web_service() as service:
        yield service


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of all retries, which take no time here."""
    asked: list[float] = []
    monkeypatch.setitem(retries.retrying.__kwdefaults__ or {}, "sleep", asked.append)
    return asked


def records_of(requests: list[Request]) -> list[int]:
    return [json.loads(line)["n"] for request in requests for line in request.body.splitlines()]


def run(service: WebService, number: int = 10, **options: Any) -> Any:
    settings = {name: options.pop(name) for name in ("on_bad_record", "formatter", "resume") if name in options}
    writer = HTTPWriter(url=f"{service.url}/in", **options)
    return Pipeline(
        IterableReader(({"n": n} for n in range(number)), batch_size=4), writer=writer, **settings
    )  # fmt: skip


def test_requests_have_a_number_of_records_and_a_key_each(service: WebService) -> None:
    report = run(service, items_per_buffer_write=3, headers={"Authorization": "Bearer x"}).run()
    assert records_of(service.requests) == list(range(10))
    assert [request.body.count(b"\n") for request in service.requests] == [3, 3, 3, 1]
    assert len({request.headers["Idempotency-Key"] for request in service.requests}) == 4
    assert {request.headers["Authorization"] for request in service.requests} == {"Bearer x"}
    assert {request.headers["Content-Type"] for request in service.requests} == {"application/x-ndjson"}
    assert (report.written, report.figures["writer"]["requests"]) == (10, 4)


def test_requests_have_a_size(service: WebService) -> None:
    run(service, size_per_buffer_write=20).run()
    assert records_of(service.requests) == list(range(10))
    assert max(len(request.body) for request in service.requests) <= 20 + 2


def test_the_formatter_makes_the_body(service: WebService) -> None:
    run(service, formatter=JsonExportFormatter(jsonlines=False)).run()
    assert [one["n"] for one in json.loads(service.requests[0].body)] == list(range(10))
    assert service.requests[0].headers["Content-Type"] == "application/json"


def test_an_empty_export_sends_nothing(service: WebService) -> None:
    assert run(service, 0).run().complete
    assert service.requests == []


@pytest.mark.parametrize("bad", [(503, {"Retry-After": "7"}, b""), (429, {}, b""), (-1, {}, b"")])
def test_a_passing_failure_is_tried_again_with_the_same_key(service: WebService, waits: list[float], bad: Any) -> None:
    answers = [bad, bad, (200, {}, b"")]
    service.answer = lambda request: answers.pop(0) if answers else (200, {}, b"")
    run(service).run()
    assert len({request.headers["Idempotency-Key"] for request in service.requests}) == 1
    assert len({request.body for request in service.requests}) == 1
    assert len(service.requests) == 3
    assert waits == ([7.0, 7.0] if bad[1] else [2.0, 4.0])


def test_a_dead_service_ends_the_run_and_the_resume_sends_all_once(service: WebService, waits: list[float]) -> None:
    service.answer = lambda request: (503, {}, b"") if len(service.requests) > 1 else (200, {}, b"")
    first = run(service, items_per_buffer_write=3)
    with pytest.raises(Exception, match="503"):
        first.run()
    assert waits == [2, 4, 8, 10, 10, 10, 10, 10, 10]
    failed = service.requests[-1]
    service.requests[1:] = []
    service.answer = lambda request: (200, {}, b"")
    run(service, items_per_buffer_write=3, resume=first.persistence.job).run()
    assert records_of(service.requests) == list(range(10))
    assert service.requests[1].headers["Idempotency-Key"] == failed.headers["Idempotency-Key"]


def test_a_refusal_ends_the_run_with_what_the_service_said(service: WebService, waits: list[float]) -> None:
    service.answer = lambda request: (422, {}, b'{"error": "no field x"}')
    with pytest.raises(PipelineError, match=r"10 records.*422.*no field x"):
        run(service).run()
    assert waits == []


def test_a_refused_batch_is_put_aside_if_asked_for(service: WebService) -> None:
    service.answer = lambda request: (400, {}, b"") if b'"n":4' in request.body else (200, {}, b"")
    report = run(service, items_per_buffer_write=5, on_bad_record="dead").run()
    assert report.bad == {"writer": 1}
    assert report.written == 5
    assert records_of(service.requests) == list(range(10))


def test_headers_that_are_given_take_the_place_of_ours(service: WebService) -> None:
    run(service, headers={"content-type": "application/json"}).run()
    assert [name for name in service.requests[0].headers if name.lower() == "content-type"] == ["content-type"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "ftp://host/x"}, "url='ftp://host/x': give a URL like https://host/path"),
        ({"url": "http://host", "headers": {"X": "a\r\nB: c"}}, "headers: 'X'"),
        (
            {"url": "http://host", "headers": {"idempotency-KEY": "1"}},
            "headers: Idempotency-Key is made for each request",
        ),
        ({"url": "http://host", "items_per_buffer_write": 0}, "items_per_buffer_write=0: give 1 or more"),
        ({"url": "http://host", "method": "GET"}, "method='GET' is none of POST, PUT, PATCH"),
        ({}, "Option url is missing"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        HTTPWriter(**options)
    assert message in str(error.value)


def test_no_secret_in_an_error(service: WebService) -> None:
    service.answer = lambda request: (401, {}, b"")
    address = service.url.replace("://", "://user:geheim@") + "/in?token=geheim"
    with pytest.raises(PipelineError) as error:
        Pipeline([{"n": 1}], writer=HTTPWriter(url=address)).run()
    assert "geheim" not in str(error.value)
    assert service.requests[0].headers["authorization"].startswith("Basic ")
    assert "geheim" not in repr(HTTPWriter(url=address, headers={"A": "geheim"}))


def test_a_record_that_cannot_be_formatted_is_a_bad_one(service: WebService) -> None:
    writer = HTTPWriter(url=service.url)
    record: dict[str, Any] = {}
    record["itself"] = record
    with pytest.raises(BadRecordError):
        Pipeline([record], writer=writer).run()
