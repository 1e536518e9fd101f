from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from resilient_exporters.exporters.elasticsearch_errors import judge_answer, judge_item, reason, retry_after

PRESSURE = (
    "rejected execution of coordinating operation [coordinating_and_primary_bytes=0, replica_bytes=0, all_bytes=0, "
    "coordinating_operation_bytes={}, max_coordinating_bytes=204800]"
)


def error(kind: str, text: str = "", **more: object) -> dict[str, object]:
    return {"type": kind, "reason": text, **more}


@pytest.mark.parametrize(
    ("status", "said", "verdict"),
    [
        (409, error("version_conflict_engine_exception"), "duplicate"),
        (429, error("es_rejected_execution_exception", "rejected execution of …"), "retry"),
        (429, error("es_rejected_execution_exception", PRESSURE.format(1000)), "retry"),
        (429, error("es_rejected_execution_exception", PRESSURE.format(204801)), "split"),
        (429, error("cluster_block_exception", "TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage"), "retry"),
        (429, error("circuit_breaking_exception"), "retry"),
        (503, error("unavailable_shards_exception"), "retry"),
        (503, error("process_cluster_event_timeout_exception"), "retry"),
        (413, error("es_rejected_execution_exception", "operation size exceeds"), "split"),
        (401, error("security_exception"), "hold"),
        (403, error("security_exception"), "hold"),
        (403, error("cluster_block_exception", "index [a1] blocked by: [FORBIDDEN/8/index write (api)];"), "hold"),
        (404, error("index_not_found_exception"), "hold"),
        (400, error("index_closed_exception"), "hold"),
        (400, error("validation_exception", "cluster currently has [4]/[1] maximum normal shards open"), "hold"),
        (400, error("illegal_argument_exception", "pipeline with id [x] does not exist"), "hold"),
        (400, error("illegal_argument_exception", "no write index is defined for alias [al]"), "hold"),
        (400, error("illegal_argument_exception", "only write ops with an op_type of create are allowed"), "hold"),
        (400, error("illegal_argument_exception", "Limit of total fields [1000] has been exceeded"), "reject"),
        (400, error("document_parsing_exception"), "reject"),
        (400, error("mapper_parsing_exception"), "reject"),
        (400, error("strict_dynamic_mapping_exception"), "reject"),
        (400, error("routing_missing_exception"), "reject"),
        (500, error("null_pointer_exception"), "unclear"),
        (0, None, "unclear"),
    ],
)
def test_items(status: int, said: object, verdict: str) -> None:
    assert judge_item(status, said)[0] == verdict


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (413, "<html>413 Request Entity Too Large</html>", "split"),
        (429, {"error": error("es_rejected_execution_exception")}, "retry"),
        (429, {"error": error("es_rejected_execution_exception", PRESSURE.format(300000))}, "split"),
        (429, {"error": error("circuit_breaking_exception", bytes_limit=999, bytes_wanted=2000)}, "split"),
        (429, {"error": error("circuit_breaking_exception", bytes_limit=5000, bytes_wanted=6000)}, "retry"),
        (502, "<html>Bad Gateway</html>", "retry"),
        (503, {"error": error("cluster_block_exception", "state not recovered / initialized")}, "retry"),
        (504, None, "retry"),
        (400, {"error": error("media_type_header_exception")}, "hold"),
        (406, {"error": "Content-Type header [x] is not supported", "status": 406}, "hold"),
        (401, {"error": error("security_exception")}, "hold"),
        (403, {"error": error("cluster_block_exception")}, "hold"),
        (403, "Forbidden", "hold"),
        (404, "not here", "hold"),
        (405, {"error": "Incorrect HTTP method"}, "hold"),
        (301, "", "hold"),
        (400, "<html>The plain HTTP request was sent to HTTPS port</html>", "hold"),
        (400, {"error": "no handler found for uri [/x/_bulk] and method [POST]"}, "hold"),
        (400, {"error": error("action_request_validation_exception")}, "reject"),
        (400, {"error": error("x_content_parse_exception")}, "reject"),
        (400, {"error": error("illegal_argument_exception", "Malformed action/metadata line [3]")}, "unclear"),
        (400, {"error": error("illegal_argument_exception", "explicit index in bulk is not allowed")}, "hold"),
        (500, {"error": error("exception")}, "unclear"),
        (200, "<html>Please log in</html>", "retry"),
        (200, {}, "retry"),
        (418, None, "unclear"),
    ],
)
def test_answers(status: int, body: object, verdict: str) -> None:
    assert judge_answer(status, body, 1000)[0] == verdict


def test_everything_that_holds_says_what_to_do() -> None:
    for status in (301, 401, 402, 403, 404, 405, 406, 501):
        assert judge_answer(status, None, 0)[1]
    for status in (401, 403):
        assert judge_item(status, {})[1]


def test_reason_has_the_causes_once_and_no_markup() -> None:
    deep = error("a", "outer", caused_by=error("b", "inner", caused_by=error("b", "inner")))
    assert reason(400, deep) == "400 a: outer; caused by b: inner"
    assert reason(400, {"error": deep, "status": 400}) == "400 a: outer; caused by b: inner"
    assert reason(502, "<html>\n<h1>502 Bad  Gateway</h1></html>") == "502: 502 Bad Gateway"
    assert reason(400, {"error": "no handler"}) == "400: no handler"
    assert reason(418, None) == "418"
    assert 300 < len(reason(400, error("a", "x" * 5000))) <= 1000


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after({"retry-after": "120"}) == 120.0
    assert retry_after({"retry-after": "1.5"}) == 1.5
    later = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=100), usegmt=True)
    assert 90 < (retry_after({"retry-after": later}) or 0) <= 100
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    for nonsense in ({}, {"retry-after": ""}, {"retry-after": "soon"}, {"retry-after": "-3"}):
        assert retry_after(nonsense) is None


@pytest.mark.parametrize("word", ["x", "<", "maximum ", "Content-Type header ", "coordinating_operation_bytes=9"])
def test_an_answer_that_quotes_a_large_document_costs_no_time(word: str) -> None:
    # Given what a server says that repeats 5 MB of the document: an expression that looks again from each letter on
    # would take hours, and hold up the whole program
    said = word * (5_000_000 // len(word))
    error = {"type": "document_parsing_exception", "reason": said}

    # Then it is understood all the same
    assert judge_item(400, error)[0] == "reject"
    assert judge_answer(413, {"error": error}, 1000)[0] == "split"
    assert len(reason(400, error)) <= 1000
    assert len(reason(502, said)) <= 1000
    # And the cause behind it is still told
    assert reason(400, {**error, "caused_by": {"type": "x", "reason": "too long"}}).endswith("; caused by x: too long")
