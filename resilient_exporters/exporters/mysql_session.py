"""Connections to MySQL and MariaDB that are strict, in UTC, and end."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

from resilient_exporters.exporters.sql_engine import Session

__all__ = ["session"]


def session(parameters: Mapping[str, Any], timeout: float) -> Session:
    """The arguments of ``pymysql.connect``, and the settings of each session.

    Args:
        parameters: what the user gave; they win.
        timeout: seconds that an attempt may take; 0: no limit.
    """
    arguments: dict[str, Any] = {"charset": "utf8mb4"}
    if timeout:
        patience = max(1, math.ceil(timeout))
        arguments |= {"connect_timeout": min(10, patience), "read_timeout": patience, "write_timeout": patience}
    arguments |= parameters
    return Session(arguments=arguments, prepare=functools.partial(_prepare, max(1, math.ceil(timeout))))


def _prepare(patience: int, raw: Any) -> None:
    with raw.cursor() as cursor:
        # A server that is not strict cuts texts and bends numbers with a warning that nobody reads.
        cursor.execute(
            "SET SESSION sql_mode = CONCAT_WS(',', NULLIF(@@sql_mode, ''), 'STRICT_ALL_TABLES'),"
            " time_zone = '+00:00', innodb_lock_wait_timeout = LEAST(@@innodb_lock_wait_timeout, %s)",
            [patience],
        )
    raw.commit()
