"""What an error of MongoDB means for the records that were being written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from resilient_exporters import errors
from resilient_exporters.exporters.verdict import error_for

__all__ = ["CODES", "Verdict", "judge", "judge_document", "on_id", "outcome_error", "reason"]

Verdict = Literal["duplicate", "reject", "retry", "hold", "split", "unclear"]
"""``reject``: a document is refused, look for it. ``retry``: passing, all wait. ``hold``: someone has to mend it.
``split``: fewer documents at once. ``unclear``: the engine finds out."""


CODES: Final[dict[int, Verdict]] = {
    # the document
    11000: "duplicate",  # DuplicateKey
    11001: "duplicate",  # DuplicateKey of an update, before 4.2
    121: "reject",       # DocumentValidationFailure
    15: "reject",        # Overflow: nested too deeply
    16: "reject",        # InvalidLength
    22: "reject",        # InvalidBSON
    28: "reject",        # PathNotViable
    52: "reject",        # DollarPrefixedFieldName
    53: "reject",        # InvalidIdField
    54: "reject",        # NotSingleValueField
    55: "reject",        # InvalidDBRef
    56: "reject",        # EmptyFieldName
    57: "reject",        # DottedFieldName
    61: "reject",        # ShardKeyNotFound
    66: "reject",        # ImmutableField: a replacement with another shard key
    73: "reject",        # InvalidNamespace
    116: "reject",       # DocTooLargeForCapped
    171: "reject",       # CannotIndexParallelArrays
    201: "reject",       # CannotBuildIndexKeys
    357: "reject",       # InvalidBSONType
    378: "reject",       # NonConformantBSON
    10003: "reject",     # CannotGrowDocumentInCappedNamespace
    16755: "reject",     # cannot extract geo keys
    17280: "reject",     # KeyTooLong, before 4.2
    10334: "split",      # BSONObjectTooLarge: the document, or the command
    # the server, for a while
    6: "retry",          # HostUnreachable
    7: "retry",          # HostNotFound
    24: "retry",         # LockTimeout
    46: "retry",         # LockBusy
    50: "retry",         # MaxTimeMSExpired
    63: "retry",         # StaleShardVersion
    64: "retry",         # WriteConcernTimeout
    70: "retry",         # ShardNotFound
    89: "retry",         # NetworkTimeout
    90: "retry",         # CallbackCanceled
    91: "retry",         # ShutdownInProgress
    94: "retry",         # NotYetInitialized: a replica set that starts
    109: "retry",        # ConfigurationInProgress
    112: "retry",        # WriteConflict
    117: "retry",        # ConflictingOperationInProgress
    133: "retry",        # FailedToSatisfyReadPreference: a shard without primary
    134: "retry",        # ReadConcernMajorityNotAvailableYet
    146: "retry",        # ExceededMemoryLimit
    149: "retry",        # NoConfigPrimary
    150: "retry",        # StaleEpoch
    175: "retry",        # QueryPlanKilled
    189: "retry",        # PrimarySteppedDown
    202: "retry",        # NetworkInterfaceExceededTimeLimit
    215: "retry",        # DatabaseDropPending
    216: "retry",        # ElectionInProgress
    249: "retry",        # StaleDbVersion
    250: "retry",        # StaleChunkHistory
    262: "retry",        # ExceededTimeLimit
    264: "retry",        # TooManyFilesOpen
    279: "retry",        # ClientDisconnect
    317: "retry",        # ConnectionPoolExpired
    319: "retry",        # MovePrimaryInProgress
    365: "retry",        # TemporarilyUnavailable
    371: "retry",        # UserWritesBlocked: a migration between clusters
    384: "retry",        # ConnectionError
    391: "retry",        # ReauthenticationRequired
    402: "retry",        # ResourceExhausted
    407: "retry",        # PooledConnectionAcquisitionExceededTimeLimit
    433: "retry",        # AdmissionQueueOverflow
    449: "retry",        # RateLimitExceeded
    450: "retry",        # PooledConnectionAcquisitionRejected
    453: "retry",        # InterruptedDueToReshardingCriticalSection
    462: "retry",        # IngressRequestRateLimitExceeded
    9001: "retry",       # SocketException
    10058: "retry",      # LegacyNotPrimary
    10107: "retry",      # NotWritablePrimary
    11600: "retry",      # InterruptedAtShutdown
    11601: "retry",      # Interrupted: killOp
    11602: "retry",      # InterruptedDueToReplStateChange
    12586: "retry",      # BackgroundOperationInProgressForDatabase
    12587: "retry",      # BackgroundOperationInProgressForNamespace
    13388: "retry",      # StaleConfig
    13435: "retry",      # NotPrimaryNoSecondaryOk
    13436: "retry",      # NotPrimaryOrSecondary
    14031: "retry",      # OutOfDiskSpace
    91331: "retry",      # RetriableRemoteCommandFailure
    # someone has to mend it
    11: "hold",          # UserNotFound
    13: "hold",          # Unauthorized
    18: "hold",          # AuthenticationFailed
    20: "hold",          # IllegalOperation
    31: "hold",          # RoleNotFound
    59: "hold",          # CommandNotFound: no MongoDB, or an old one
    75: "hold",          # WriteConcernLegacyOK
    76: "hold",          # NoReplicationEnabled
    79: "hold",          # UnknownReplWriteConcern: no such tag
    100: "hold",         # UnsatisfiableWriteConcern: more nodes than there are
    101: "hold",         # OutdatedClient
    115: "hold",         # CommandNotSupported
    166: "hold",         # CommandNotSupportedOnView: the collection is a view
    188: "hold",         # IncompatibleServerVersion
    214: "hold",         # AuthenticationRestrictionUnmet: not from this address
    227: "hold",         # CannotImplicitlyCreateCollection
    238: "hold",         # NotImplemented
    242: "hold",         # CannotCreateCollection
    322: "hold",         # APIVersionError
    323: "hold",         # APIStrictError
    334: "hold",         # MechanismUnavailable
    8000: "hold",        # AtlasError: account, quota
    13297: "hold",       # DatabaseDifferCase
}  # fmt: skip
"""Meaning of a server's error code, in whatever part of an answer it stands; codes that are not here are unclear.

Sources: src/mongo/base/error_codes.yml of MongoDB's server (names, categories NetworkError, NotPrimaryError,
ShutdownError, ExceededTimeLimitError, StaleShardVersionError, SystemOverloadedError, RetriableError); the drivers'
specifications "Retryable Writes" and "Server Discovery and Monitoring"; MongoDB manual, "Error Codes". Atlas uses 8000
for whatever its proxy refuses.
"""


def judge(error: BaseException) -> Verdict:
    """Tell what an exception of pymongo or bson means for a whole command.

    A ``BulkWriteError`` has an answer for each document instead: see `judge_document`.
    """
    if isinstance(error, errors.HoldError | errors.MissingConfigError | errors.InvalidConfigError):
        return "hold"
    if isinstance(error, errors.RetryableError | errors.ConnectionError | errors.TimeoutError):
        return "retry"
    names = {each.__name__ for each in type(error).__mro__}
    if "DocumentTooLarge" in names:
        return "split"
    if names & {"InvalidDocument", "InvalidBSON", "InvalidName", "OverflowError", "UnicodeError"}:
        return "reject"
    if "ServerSelectionTimeoutError" in names:
        return "hold" if _BAD_TLS.search(str(error)) and not _BAD_CLOCK.search(str(error)) else "retry"
    code = _code(error)
    if isinstance(code, int) and code in CODES:
        return CODES[code]
    if names & {"ConnectionFailure", "ExecutionTimeout", "WTimeoutError"} or getattr(error, "timeout", False) is True:
        return "retry"
    if "ConfigurationError" in names:
        return "hold"
    if "InvalidOperation" in names:  # the client was closed under this attempt, since another one had timed out
        return "retry"
    if _BAD_CONCERN.search(str(error)):
        return "hold"
    if names & {"OSError"}:
        return "hold" if names & {"FileNotFoundError", "PermissionError", "SSLError"} else "retry"
    return "unclear"


def judge_document(error: Mapping[str, Any]) -> Verdict:
    """Tell what one entry of ``writeErrors`` or ``writeConcernErrors`` means.

    Code 2 (BadValue) beside a place is the document's fault: FerretDB says so of field names and nested arrays.
    """
    code = error.get("code")
    if code == 2 and "index" in error:
        return "reject"
    return CODES.get(code, "unclear") if isinstance(code, int) else "unclear"


def on_id(error: Mapping[str, Any]) -> bool | None:
    """Whether a duplicate is one of ``_id``; None: the server does not say.

    ``keyPattern`` comes with the error since MongoDB 4.4; the text has named the index ever since (``_id_``, of a
    clustered collection only the key).
    """
    pattern = error.get("keyPattern")
    if isinstance(pattern, Mapping):
        return list(pattern) == ["_id"]
    text = str(error.get("errmsg", ""))
    if found := re.search(r"index:\s+(?:\S*\$)?(\S+)\s", text):
        return found[1] == "_id_"
    if found := re.search(r"dup key: \{ (\S+):", text):
        return None if found[1] == "" else found[1] == "_id"
    return None


def reason(error: BaseException | Mapping[str, Any]) -> str:
    """The server's own words on one line, with the code; without the document."""
    if isinstance(error, Mapping):
        code, text = error.get("code"), str(error.get("errmsg", ""))
        if details := error.get("errInfo"):
            text += f" {details}"
    else:
        code, text = _code(error), str(error)
        text = re.sub(r",? ?(Timeout: [\d.]+m?s, )?Topology Description:.*|, full error: .*", "", text, flags=re.DOTALL)
    text = " ".join(text.split())[:500]
    kind = "" if isinstance(error, Mapping) else f"{type(error).__name__}: "
    return f"{kind}{text}" + (f" (code {code})" if isinstance(code, int) else "")


def _code(error: BaseException) -> object:
    """The server's code. A ``NotPrimaryError`` has it among its details only."""
    code = getattr(error, "code", None)
    if code is None and isinstance(details := getattr(error, "details", None), Mapping):
        code = details.get("code")
    return code


def outcome_error(error: Exception, verdict: Verdict, where: str) -> Exception:
    """The error of this package that says the same to the engine, with what to do next.

    Args:
        error: what was raised.
        verdict: what `judge` said of it.
        where: the target without secrets.
    """
    return error_for(error, verdict, f"{where}: {reason(error)}", _advice(str(error), _code(error)))


_BAD_TLS: Final = re.compile(
    r"certificate verify failed|hostname mismatch|sslv3|tlsv1 alert|wrong_version_number", re.IGNORECASE
)
_BAD_CLOCK: Final = re.compile(r"not yet valid|has expired", re.IGNORECASE)
"""A program that starts before NTP has answered sees this, and it passes."""
_BAD_CONCERN: Final = re.compile(r"not replicated|'w' > 1|write ?concern", re.IGNORECASE)
"""A standalone server refuses a write concern with BadValue, which says nothing of the documents."""


def _advice(text: str, code: object) -> str:
    if code in (11, 18, 31, 334):
        return "check username, password, auth_source and auth_mechanism"
    if code in (13, 214):
        return "give username and password, and grant the account readWrite (insert; with resends also find)"
    if code in (20, 75, 76, 79, 100) or _BAD_CONCERN.search(text):
        return "choose a write concern (w) that this deployment can satisfy"
    if _BAD_TLS.search(text):
        return "check tls, tls_ca_file, the host name, and the port"
    if code == 13297:
        return "a database whose name differs by case only is there: use its spelling"
    return "check address, account and options; the records wait meanwhile"
