"""Documents to a search engine that has no time, and requests that are signed. Real engines: tests/servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from resilient_exporters.pipeline import ConfigurationError, Pipeline, PipelineError, retries
from resilient_exporters.pipeline.writers import CloudSearchWriter
from tests.services import Request, WebService, web_service

RECORDS = [{"_key": f"k{n}", "n": n} for n in range(10)]


@pytest.fixture
def service() -> Iterator[WebService]:
    with web_service() as service:
        yield service


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    asked: list[float] = []
    monkeypatch.setitem(retries.retrying.__kwdefaults__ or {}, "sleep", asked.append)
    return asked


def ids(request: Request) -> list[str]:
    return [json.loads(line)["index"]["_id"] for line in request.body.splitlines()[::2]]


def test_only_what_the_engine_had_no_time_for_comes_again(service: WebService, waits: list[float]) -> None:
    seen: set[str] = set()

    def answer(request: Request) -> tuple[int, dict[str, str], bytes]:
        items = []
        for one in ids(request):
            busy = one in ("k2", "k7") and one not in seen
            seen.add(one)
            items.append({"index": {"_id": one, "status": 429 if busy else 201}})
        return 200, {}, json.dumps({"items": items}).encode()

    service.answer = answer
    Pipeline(RECORDS, writer=CloudSearchWriter(endpoint_url=f"{service.url}/readings")).run()
    assert [ids(request) for request in service.requests] == [[f"k{n}" for n in range(10)], ["k2", "k7"]]
    assert service.requests[0].path == "/readings/_bulk"
    assert waits == [2.0]


@pytest.mark.parametrize("answer", [b"<html>Sign in</html>", b"{}", b'{"items": []}', b'{"items": [1]}', b"[]"])
def test_an_answer_that_no_engine_gives_is_said(service: WebService, waits: list[float], answer: bytes) -> None:
    service.answer = lambda request: (200, {}, answer)
    with pytest.raises(PipelineError, match=r"127\.0\.0\.1.* is no search engine: it answered") as caught:
        Pipeline(RECORDS[:1], writer=CloudSearchWriter(endpoint_url=f"{service.url}/x")).run()
    assert answer.decode() in str(caught.value)


def test_requests_are_signed_for_aws(service: WebService) -> None:
    pytest.importorskip("botocore")
    items = json.dumps({"items": [{"index": {"status": 201}}] * 10}).encode()
    service.answer = lambda request: (200, {}, items)
    writer = CloudSearchWriter(
        endpoint_url=service.url, index="a b", access_key="AKID", secret_key="geheim", aws_region="eu-west-1"
    )
    Pipeline(RECORDS, writer=writer).run()
    request = service.requests[0]
    assert request.path == "/a%20b/_bulk"
    assert request.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKID/")
    assert "/eu-west-1/es/aws4_request" in request.headers["Authorization"]
    assert "geheim" not in str(request.headers)


def test_an_account_without_a_region_is_a_user(service: WebService) -> None:
    items = json.dumps({"items": [{"index": {"status": 201}}] * 10}).encode()
    service.answer = lambda request: (200, {}, items)
    writer = CloudSearchWriter(endpoint_url=f"{service.url}/x", access_key="user", secret_key="word")
    Pipeline(RECORDS, writer=writer).run()
    assert service.requests[0].headers["authorization"] == "Basic dXNlcjp3b3Jk"


def test_a_refusal_ends_the_run(service: WebService, waits: list[float]) -> None:
    service.answer = lambda request: (403, {}, b"no right")
    with pytest.raises(PipelineError, match=r"403.*no right"):
        Pipeline(RECORDS, writer=CloudSearchWriter(endpoint_url=f"{service.url}/x")).run()
    assert waits == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoint_url": "https://host"}, "index: give it"),
        ({"endpoint_url": "host/x"}, "give a URL"),
        ({"endpoint_url": "https://host/x", "access_key": "a"}, "access_key and secret_key: give both"),
        ({"endpoint_url": "https://host/x", "aws_region": "x"}, "aws_region: give access_key and secret_key"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CloudSearchWriter(**options)
