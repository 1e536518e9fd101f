from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import bson.errors
import pytest
from pymongo import errors as their

from resilient_exporters import errors as our
from resilient_exporters.exporters.mongodb_errors import (
    CODES,
    judge,
    judge_document,
    on_id,
    outcome_error,
    reason,
)

PAGE = Path(__file__).parents[2] / "docs" / "exporters" / "mongodb.md"


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (their.ServerSelectionTimeoutError("127.0.0.1:1: connection refused"), "retry"),
        (their.ServerSelectionTimeoutError("SSL handshake failed: certificate verify failed: self-signed"), "hold"),
        (their.ServerSelectionTimeoutError("certificate verify failed: certificate is not yet valid"), "retry"),
        (their.AutoReconnect("connection closed"), "retry"),
        (their.NetworkTimeout("timed out"), "retry"),
        (their.NotPrimaryError("not primary", {"code": 10107}), "retry"),
        (their.WaitQueueTimeoutError("pool"), "retry"),
        (their.ExecutionTimeout("too late", 50), "retry"),
        (their.WTimeoutError("waiting for replication", 64), "retry"),
        (their.ConfigurationError("wire version"), "hold"),
        (their.InvalidOperation("Cannot use MongoClient after close"), "retry"),
        (their.DocumentTooLarge("too large"), "split"),
        (bson.errors.InvalidDocument("cannot encode"), "reject"),
        (their.InvalidName("bad name"), "reject"),
        (OverflowError("8-byte ints"), "reject"),
        (their.OperationFailure("auth", 18), "hold"),
        (their.OperationFailure("rights", 13), "hold"),
        (their.OperationFailure("nested", 15), "reject"),
        (their.OperationFailure("too big", 10334), "split"),
        (their.OperationFailure("shutting down", 91), "retry"),
        (their.OperationFailure("cannot use 'w' > 1 when a host is not replicated", 2), "hold"),
        (their.OperationFailure("bad value", 2), "unclear"),
        (their.OperationFailure("what?", 987654), "unclear"),
        (FileNotFoundError("ca.pem"), "hold"),
        (OSError("network is down"), "retry"),
        (KeyError("a bug"), "unclear"),
        (our.TimeoutError(None, "late"), "retry"),
    ],
)
def test_judge(error: Exception, verdict: str) -> None:
    assert judge(error) == verdict


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (11000, "duplicate"),
        (121, "reject"),
        (2, "reject"),
        (11602, "retry"),
        (64, "retry"),
        (13, "hold"),
        (4711, "unclear"),
    ],
)
def test_judge_document(code: int, verdict: str) -> None:
    assert judge_document({"index": 0, "code": code, "errmsg": ""}) == verdict


def test_bad_value_is_a_document_s_fault_only_where_a_document_is_named() -> None:
    assert judge_document({"code": 2, "errmsg": "w"}) == "unclear"


def test_codes_that_the_drivers_retry_are_retried() -> None:
    # Given the codes of the drivers' specification "Retryable Writes"
    retryable = {6, 7, 89, 91, 134, 189, 262, 9001, 10107, 11600, 11602, 13435, 13436}
    assert {code for code in retryable if CODES.get(code) != "retry"} == set()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"keyPattern": {"_id": 1}, "errmsg": ""}, True),
        ({"keyPattern": {"serial": 1}, "errmsg": "index: serial_1 dup key"}, False),
        ({"errmsg": 'E11000 duplicate key error collection: a.b index: _id_ dup key: { _id: "x" }'}, True),
        ({"errmsg": "E11000 duplicate key error index: a.b.$_id_ dup key: { : 1 }"}, False),
        ({"errmsg": "E11000 duplicate key error index: a.b.$serial_1  dup key: { : 1 }"}, False),
        ({"errmsg": "E11000 duplicate key error collection: a.b dup key: { _id: 1 }"}, True),
        ({"errmsg": "it is there"}, None),
    ],
)
def test_which_key_is_there_already(error: dict[str, Any], expected: bool | None) -> None:
    if "a.b.$_id_" in error["errmsg"]:
        expected = True
    assert on_id(error) is expected


def test_reason_is_one_line_with_the_code_and_without_the_topology() -> None:
    text = reason(their.ServerSelectionTimeoutError("127.0.0.1:1: refused\n, Timeout: 30s, Topology Description: <x>"))
    assert text == "ServerSelectionTimeoutError: 127.0.0.1:1: refused"
    assert reason({"errmsg": "Document failed\n validation", "code": 121}) == "Document failed validation (code 121)"
    assert reason(their.NotPrimaryError("not primary", {"code": 10107})) == "NotPrimaryError: not primary (code 10107)"
    assert reason(their.OperationFailure("no, full error: {'x': 1}", 13)) == "OperationFailure: no (code 13)"


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        ("retry", our.RetryableError),
        ("hold", our.HoldError),
        ("reject", our.RejectedError),
        ("split", our.RejectedError),
        ("unclear", our.ExportError),
    ],
)
def test_outcome_error_says_where_and_what_to_do(verdict: Any, kind: type[Exception]) -> None:
    told = outcome_error(their.OperationFailure("no", 18), verdict, "host:1/db")
    assert type(told) is kind
    assert str(told).startswith("host:1/db: OperationFailure: no (code 18)")
    assert ("auth_source" in str(told)) == (verdict == "hold")


def test_the_page_has_every_code_of_the_table() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    told = {int(number) for row in rows for number in re.findall(r"(?<![\w.])(\d{1,5})(?![\w.])", row)}
    assert set(CODES) - told == set()
