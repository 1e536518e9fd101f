"""What an error of a database means for the records that were being written."""

from __future__ import annotations

import re
import sqlite3
from typing import Final, Literal, TypeVar

from resilient_exporters import errors
from resilient_exporters.exporters.verdict import error_for

__all__ = ["Verdict", "judge", "outcome_error", "reason"]

Verdict = Literal["data", "retry", "hold", "schema", "split", "unclear"]
"""``data``: a row is refused, look for it. ``retry``: passing, all rows wait. ``hold``: someone has to mend something.
``schema``: the table is not what it was, look again. ``split``: fewer rows at once. ``unclear``: the engine
finds out."""


def judge(error: BaseException, dialect: str) -> Verdict:
    """Tell what an error means.

    The order is: lost connection, SQLSTATE, vendor number, text, exception class.

    Args:
        error: from SQLAlchemy, from a driver, or from Python (a value that a driver cannot bind).
        dialect: "sqlite", "postgresql", "mysql", "mssql" or another name of SQLAlchemy's.

    Sources: SQLite result codes (sqlite.org/rescode.html); SQLSTATE classes and codes (PostgreSQL manual,
    appendix A; ISO/IEC 9075-2 for the classes); MySQL server and client error message references; SQL Server
    "Database engine events and errors" and Azure SQL "transient fault error codes".
    """
    if isinstance(error, errors.HoldError | errors.MissingConfigError | errors.InvalidConfigError):
        return "hold"
    if isinstance(error, errors.ResilientExporterException):
        return "retry" if isinstance(error, errors.RetryableError) else "data"
    if getattr(error, "connection_invalidated", False):
        return "retry"
    origin = getattr(error, "orig", None) or error
    if dialect == "sqlite" and isinstance(origin, sqlite3.Error):
        return _sqlite(origin)
    found = _by_sqlstate(origin) or _by_number(origin, dialect) or _first(_TEXTS, str(origin))
    if found:
        return found
    names = {each.__name__ for each in type(error).__mro__} | {each.__name__ for each in type(origin).__mro__}
    if names & {"NoSuchTableError"}:
        return "schema"
    if names & {"IntegrityError", "DataError"}:
        return "data"
    if names & {"TimeoutError", "OSError", "InterfaceError", "OperationalError"}:
        return "retry"
    if names & {"StatementError", "TypeError", "ValueError", "OverflowError"} and not names & {"DBAPIError"}:
        return "data"
    return "unclear"


def reason(error: BaseException) -> str:
    """The database's own words, on one line, without the statement and without the values."""
    origin = getattr(error, "orig", None) or error
    text = " ".join((_primary(origin) or str(origin)).split())
    return f"{type(origin).__name__}: {text}"[:500]


def _primary(origin: BaseException) -> str | None:
    """The error of psycopg without its context, which would quote the row. Of keys, it is good to know which."""
    diag = getattr(origin, "diag", None)
    primary: str | None = getattr(diag, "message_primary", None)
    if primary and diag is not None and diag.sqlstate in {"23503", "23505"} and diag.message_detail:
        return f"{primary}: {diag.message_detail}"
    return primary


def outcome_error(error: Exception, verdict: Verdict, where: str) -> Exception:
    """The error of this package that says the same to the engine, with what to do next.

    Args:
        error: what was raised.
        verdict: what `judge` said of it.
        where: the target without secrets.
    """
    if verdict == "unclear":
        return error
    advice = (
        "make the table or column, or pass create_table=True"
        if verdict == "schema"
        else _first(_ADVICE, str(error)) or _CHECK
    )
    return error_for(error, verdict, f"{where}: {reason(error)}", advice)


Word = TypeVar("Word", bound=str)
Table = tuple[tuple[re.Pattern[str], Word], ...]


def _table(*rows: tuple[str, Word]) -> Table[Word]:
    return tuple((re.compile(pattern, re.IGNORECASE), meaning) for pattern, meaning in rows)


def _first(table: Table[Word], text: str) -> Word | None:
    return next((meaning for pattern, meaning in table if pattern.search(text)), None)


_CHECK: Final = "check the URL, the account and its rights; the records wait meanwhile"
_ADVICE: Final[Table[str]] = _table(
    (r"readonly|read.only", "make the database (file, directory and mount) writable for this user"),
    (r"unable to open", "check that the directory is there and that this user may write to it"),
    (
        r"not a database|malformed|encrypted",
        "this file is no sound SQLite database: restore it, or choose another path",
    ),
    (
        r"on conflict|unique or exclusion",
        "upsert_on needs a UNIQUE or PRIMARY KEY constraint on exactly these columns",
    ),
    (r"password|authenti|login failed|access denied", "check username and password"),
    (r"permission|denied", "grant this account INSERT (and CREATE, ALTER if tables and columns are to be made)"),
    (
        r"unknown database|does not exist|cannot open database",
        "create the database, or correct its name in the URL",
    ),
)


# --- SQLite --------------------------------------------------------------------------------------------------------

_SQLITE: Final[dict[int, Verdict]] = {
    3: "hold",      # PERM
    4: "retry",     # ABORT
    5: "retry",     # BUSY: another connection writes
    6: "retry",     # LOCKED
    7: "retry",     # NOMEM
    8: "hold",      # READONLY
    9: "retry",     # INTERRUPT
    10: "retry",    # IOERR: a passing state on a bad card
    11: "hold",     # CORRUPT
    13: "retry",    # FULL: the disk
    14: "hold",     # CANTOPEN
    15: "retry",    # PROTOCOL: lock race
    17: "schema",   # SCHEMA
    18: "data",     # TOOBIG
    19: "data",     # CONSTRAINT
    20: "data",     # MISMATCH
    23: "hold",     # AUTH
    25: "data",     # RANGE
    26: "hold",     # NOTADB
}  # fmt: skip

_SQLITE_TEXTS: Final[Table[Verdict]] = _table(
    (r"no such (table|column)|has no column named|table .* has \d+ columns", "schema"),
    (r"already exists|duplicate column", "schema"),
    (r"on conflict clause does not match", "hold"),
    (r"too many sql variables|statement too long", "split"),
    (r"too many columns|string or blob too big|null character|error binding parameter", "data"),
    (r"type '?.*'? is not supported|probably unsupported type|cannot store", "data"),
    (r"locked|busy|interrupted|disk i/o|disk is full|out of memory", "retry"),
    (r"readonly|unable to open|not a database|malformed|access permission|authorization", "hold"),
    (r"constraint failed|may not be null|not unique|datatype mismatch", "data"),
)  # the numbers came with Python 3.11, and SQLITE_ERROR (1) says nothing without its text


def _sqlite(error: sqlite3.Error) -> Verdict:
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and (found := _SQLITE.get(code & 0xFF)) is not None:
        return found
    if (told := _first(_SQLITE_TEXTS, str(error))) is not None:
        return told
    if isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | sqlite3.InterfaceError):
        return "data"
    return "unclear"


# --- servers -------------------------------------------------------------------------------------------------------

_SQLSTATES: Final[dict[str, Verdict]] = {
    "0A000": "schema",  # feature_not_supported: COPY into a table with row-level security, which the writer then avoids
    "42809": "schema",  # wrong_object_type: COPY into a view, likewise
    "428C9": "data",    # generated_always: a value for a column that makes its own
    "42501": "hold",    # insufficient_privilege
    "42P10": "hold",    # invalid_column_reference: ON CONFLICT without a unique constraint
    "42P01": "schema",  # undefined_table
    "42703": "schema",  # undefined_column
    "42S02": "schema",  # base table not found (ODBC)
    "42S22": "schema",  # column not found (ODBC)
    "42P07": "schema",  # duplicate_table: someone else made it
    "42701": "schema",  # duplicate_column
    "42710": "schema",  # duplicate_object: the row type of a table that someone else makes just now
    "42804": "data",    # datatype_mismatch
    "42846": "data",    # cannot_coerce
    "42883": "data",    # undefined_function: no operator for this type
    "25006": "hold",    # read_only_sql_transaction
    "55006": "retry",   # object_in_use
    "55P03": "retry",   # lock_not_available
    "57014": "retry",   # query_canceled: a statement timeout
    "57P01": "retry",   # admin_shutdown
    "57P02": "retry",   # crash_shutdown
    "57P03": "retry",   # cannot_connect_now
    "57P05": "retry",   # idle_session_timeout
    "P0001": "data",    # raise_exception: a trigger refuses the row
    "HYT00": "retry",   # timeout (ODBC)
    "HYT01": "retry",   # connection timeout (ODBC)
}  # fmt: skip

_SQLSTATE_CLASSES: Final[dict[str, Verdict]] = {
    "08": "retry",   # connection exception
    "21": "data",    # cardinality violation: one upsert hits a row twice
    "22": "data",    # data exception
    "23": "data",    # integrity constraint violation
    "25": "retry",   # invalid transaction state
    "28": "hold",    # invalid authorization
    "3D": "hold",    # invalid catalog name: no such database
    "3F": "schema",  # invalid schema name
    "40": "retry",   # transaction rollback: 40001 serialization, 40P01 deadlock
    "44": "data",    # WITH CHECK OPTION violation
    "53": "retry",   # insufficient resources: disk full, memory, too many connections
    "54": "data",    # program limit exceeded
    "58": "retry",   # system error
    "XX": "unclear", # internal error
}  # fmt: skip


def _by_sqlstate(error: BaseException) -> Verdict | None:
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if state is None and error.args and isinstance(error.args[0], str) and re.fullmatch(r"[0-9A-Z]{5}", error.args[0]):
        state = error.args[0]  # pyodbc
        number = re.search(r"\((\d{3,5})\)", " ".join(str(each) for each in error.args[1:]))
        if number and (found := _MSSQL.get(int(number[1]))):
            return found
    if not isinstance(state, str) or len(state) != 5 or state in {"HY000", "42000"}:
        return None
    return _SQLSTATES.get(state) or _SQLSTATE_CLASSES.get(state[:2])


_MYSQL: Final[dict[int, Verdict]] = {
    **dict.fromkeys((1021, 1040, 1041, 1042, 1053, 1114, 1158, 1159, 1160, 1161, 1180, 1203, 1205, 1206), "retry"),
    **dict.fromkeys(
        (1213, 1226, 1317, 1614, 1637, 1969, 2002, 2003, 2006, 2013, 2014, 2055, 3024, 3058, 3101), "retry"
    ),
    **dict.fromkeys(
        (1044, 1045, 1049, 1130, 1133, 1142, 1143, 1227, 1251, 1290, 1370, 1698, 1792, 1820, 1836, 2005), "hold"
    ),
    **dict.fromkeys((2026, 2059, 2061), "hold"),  # TLS and authentication plugins
    **dict.fromkeys((1050, 1051, 1054, 1060, 1109, 1136, 1146), "schema"),
    **dict.fromkeys((1153, 1390, 1436), "split"),  # packet too large, too many placeholders
    **dict.fromkeys((1022, 1048, 1062, 1101, 1117, 1118, 1169, 1216, 1217, 1264, 1265, 1292, 1364, 1366, 1367), "data"),
    **dict.fromkeys((1406, 1411, 1416, 1451, 1452, 1557, 1586, 1644, 1690, 3140, 3141, 3819, 4025), "data"),
}

_MSSQL: Final[dict[int, Verdict]] = {
    **dict.fromkeys((701, 802, 845, 921, 1101, 1105, 1204, 1205, 1222, 3960, 3967, 4221, 8645, 8651, 9002), "retry"),
    **dict.fromkeys((10053, 10054, 10060, 10928, 10929, 20003, 20006, 20009, 20047, 40143, 40197, 40501), "retry"),
    **dict.fromkeys((40540, 40544, 40549, 40550, 40551, 40552, 40553, 40613, 49918, 49919, 49920), "retry"),
    **dict.fromkeys(
        (229, 230, 262, 297, 300, 911, 916, 3906, 4060, 4064, 18452, 18456, 18470, 18486, 18487, 18488), "hold"
    ),
    **dict.fromkeys((40532, 40615), "hold"),  # Azure: unknown server, firewall
    **dict.fromkeys((207, 208, 2705, 2714), "schema"),
    **dict.fromkeys((8003,), "split"),  # more than 2,100 parameters
    **dict.fromkeys(
        (220, 232, 235, 241, 242, 244, 245, 248, 257, 260, 295, 296, 515, 544, 547, 2601, 2627, 2628), "data"
    ),
    **dict.fromkeys((8114, 8115, 8152, 8169, 9420, 13608, 13609), "data"),
}


def _by_number(error: BaseException, dialect: str) -> Verdict | None:
    number = getattr(error, "errno", None)
    if not isinstance(number, int):
        number = error.args[0] if error.args else None
    if not isinstance(number, int):
        return None
    table = _MYSQL if dialect in {"mysql", "mariadb"} else _MSSQL if dialect == "mssql" else {}
    return table.get(number)


_TEXTS: Final[Table[Verdict]] = _table(
    (r"password authentication failed|no pg_hba\.conf entry|role .* does not exist|login failed", "hold"),
    (r"no password supplied|not permitted to log in|server does not support SSL|certificate verify failed", "hold"),
    (r"connection requires a valid client certificate|invalid connection option|sslmode value", "hold"),
    (r"database .* does not exist|unknown database|access denied|permission denied", "hold"),
)  # libpq gives no SQLSTATE for a connection that was refused
