"""What an answer of Elasticsearch means for the records it concerns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal, NamedTuple

__all__ = ["ANSWERS", "ITEMS", "Row", "Verdict", "judge_answer", "judge_item", "reason", "retry_after"]

Verdict = Literal["retry", "reject", "hold", "split", "unclear", "duplicate"]
"""``retry``: not now. ``reject``: never, a dead letter. ``hold``: someone has to mend something. ``split``: too much at
once. ``duplicate``: a document with this id is there. ``unclear``: the engine finds out."""


class Row(NamedTuple):
    """One line of a table: the first that fits counts.

    Attributes:
        statuses: of HTTP; those from 1 to 9 stand for a whole class.
        type: of the error, None for any.
        reason: expression that its reason holds, None for any.
        verdict: what it means.
        advice: what someone has to do.
    """

    statuses: tuple[int, ...]
    type: str | None
    reason: str | None
    verdict: Verdict
    advice: str = ""


ITEMS: Final = (
    Row((409,), "version_conflict_engine_exception", None, "duplicate"),
    Row((429, 413), "es_rejected_execution_exception", r"too large|exceed", "split"),
    Row((429, 502, 503, 504, 507), None, None, "retry"),
    Row((413,), None, None, "split"),
    Row((401,), None, None, "hold", "check username and password or api_key"),
    Row((403,), "cluster_block_exception", None, "hold", "the index is read-only: take away its block"),
    Row((403,), None, None, "hold", "grant this account the right to write to the index (create_doc, auto_configure)"),
    Row((404,), "index_not_found_exception", None, "hold", "create the index, correct its name, or let it be created"),
    Row((400,), "index_closed_exception", None, "hold", "open the index"),
    Row((400,), "validation_exception", r"maximum .*shards", "hold", "the cluster has all the shards it may have"),
    Row((400,), "illegal_argument_exception", r"pipeline with id", "hold", "create the pipeline, or correct its name"),
    Row((400,), "illegal_argument_exception", r"op_type of create", "hold", 'data streams take op_type="create" only'),
    Row((400,), "illegal_argument_exception", r"no write index", "hold", "give the alias a write index"),
    Row((400, 404), "illegal_state_exception", r"\balias\b", "hold", "give the alias one index to write to"),
    Row((400,), None, None, "reject"),
)
"""An item of a bulk answer.

Sources: the bulk API's reference; ``status()`` of the exceptions in Elasticsearch's server module
(``ElasticsearchException``, ``RestStatus``, ``ClusterBlockException``: 403, or 429 for a block with
``allowReleaseResources``, that of a full disk); "Rejected requests", "Indexing pressure" and "Fix common cluster
issues" in its guide; and tests/servers/test_elasticsearch.py, which brings about most of them.
"""

ANSWERS: Final = (
    Row((413,), None, None, "split"),
    Row((408, 421, 425, 429, 502, 503, 504, 507), None, None, "retry"),
    Row((400, 406, 415), "media_type_header_exception", None, "hold", "media"),
    Row((406, 415), None, None, "hold", "media"),
    Row((400,), None, r"Content-Type header .* is not supported", "hold", "media"),
    Row((401,), None, None, "hold", "check username and password or api_key"),
    Row((403,), "cluster_block_exception", None, "hold", "the cluster or the index is read-only: take away its block"),
    Row((403,), None, None, "hold", "grant this account the right to write (create_doc, auto_configure)"),
    Row((402,), None, None, "hold", "the licence does not cover this"),
    Row((404, 405, 501), None, None, "hold", "check host, port and path: this is not the bulk API"),
    Row((3,), None, None, "hold", "this address sends elsewhere: give the address that it sends to"),
    Row((400,), "illegal_argument_exception", r"explicit index", "hold", "allow explicit ones, or use none"),
    Row((400,), "parse_exception", None, "reject"),
    Row((400,), "x_content_parse_exception", None, "reject"),
    Row((400,), "json_parse_exception", None, "reject"),
    Row((400,), "x_content_e_o_f_exception", None, "reject"),
    Row((400,), "json_e_o_f_exception", None, "reject"),
    Row((400,), "action_request_validation_exception", None, "reject"),
    Row((400,), "", None, "hold", "this is not how Elasticsearch answers: check host, port and use_ssl"),
)
"""An answer to a whole request. With the type "" there is no error of Elasticsearch's in it: something in between said
it. What is not here is unclear."""


def judge_item(status: int, error: object) -> tuple[Verdict, str]:
    """What the status and error of one item mean, and what to do."""
    if isinstance(error, Mapping) and _never_fits(error):
        return "split", ""
    return _find(ITEMS, status, error)


def judge_answer(status: int, body: object, size: int) -> tuple[Verdict, str]:
    """What an answer without items means, and what to do.

    Args:
        status: of HTTP.
        body: decoded JSON, or a text.
        size: bytes of the request.
    """
    error = body.get("error") if isinstance(body, Mapping) else None
    if isinstance(error, Mapping) and (_never_fits(error) or _breaks(error, size)):
        return "split", ""
    if 200 <= status < 300:
        # A portal that wants a login first, or another service at this address: it may be gone in a minute.
        return "retry", "this is not how Elasticsearch answers: check host, port and use_ssl"
    return _find(ANSWERS, status, error)


def reason(status: int, error: object) -> str:
    """The server's own words on one line, with what it says to be the cause."""
    if isinstance(error, Mapping) and "error" in error:
        error = error["error"]
    if not isinstance(error, Mapping) or not error:
        text = re.sub(r"<[^>]*>", " ", str(error or "")[: 10 * _MOST])
        return f"{status}: {' '.join(text.split())}"[:_MOST].rstrip(": ")
    said: list[str] = []
    each: object = error
    while isinstance(each, Mapping) and len(said) < 4:
        words = f"{each.get('type')}: {each.get('reason')}"[: _MOST // 3]  # a quoted document leaves room for the cause
        if not any(words in before for before in said):
            said.append(words)
        each = each.get("caused_by")
    return " ".join(f"{status} {'; caused by '.join(said)}".split())[:_MOST]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a Retry-After header asks to wait (RFC 9110, 10.2.3: a number, or a date)."""
    text = str(headers.get("retry-after") or "").strip()
    if not text:
        return None
    try:
        return max(0.0, float(text)) if text.replace(".", "", 1).isdigit() else _until(parsedate_to_datetime(text))
    except (TypeError, ValueError):
        return None


_MOST: Final = 1000


def _until(moment: datetime) -> float:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())


def _find(table: tuple[Row, ...], status: int, error: object) -> tuple[Verdict, str]:
    kind, text = "", _start(error)
    if isinstance(error, Mapping):
        kind, text = str(error.get("type") or ""), _start(error.get("reason"))
    for row in table:
        if (
            (status in row.statuses or status // 100 in row.statuses)
            and (row.type is None or row.type == kind)
            and (row.reason is None or re.search(row.reason, text))
        ):
            return row.verdict, row.advice
    return "unclear", ""


_PRESSURE: Final = re.compile(r"_operation_bytes=(\d+), max_[a-z_]{1,40}_bytes=(\d+)")


def _never_fits(error: Mapping[str, Any]) -> bool:
    """Whether an operation is larger than all the memory for indexing: then waiting does not help."""
    found = _PRESSURE.search(_start(error.get("reason")))
    return found is not None and int(found[1]) > int(found[2])


def _start(text: object) -> str:
    """The start of what a server says. It may quote a whole document, and no expression may take long over that."""
    return str(text or "")[:_MOST]


def _breaks(error: Mapping[str, Any], size: int) -> bool:
    """Whether a circuit breaker stops a request that is larger than the breaker's limit by itself."""
    limit = error.get("bytes_limit")
    return error.get("type") == "circuit_breaking_exception" and isinstance(limit, int) and 0 < limit < size
