"""Connections to PostgreSQL that notice when the other end is gone."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, Final

from resilient_exporters.exporters.sql_engine import Session

__all__ = ["session"]


def session(parameters: Mapping[str, Any], timeout: float) -> Session:
    """The arguments of ``psycopg.connect``, and the settings of each session.

    Args:
        parameters: what the user gave; they win.
        timeout: seconds that an attempt may take; 0: no limit.
    """
    arguments: dict[str, Any] = {
        "application_name": "resilient-exporters",
        "client_encoding": "utf8",
        "prepare_threshold": None,  # a pooler may put the next statement on another connection
    }
    if timeout:
        patience = max(1, math.ceil(timeout))
        # Before `timeout` is over, so that the reason can be told. psycopg takes less than 2 s for 2 s.
        arguments |= {"connect_timeout": max(2, min(10, patience)), "tcp_user_timeout": patience * 1000}
        arguments |= {"keepalives_idle": patience, "keepalives_interval": max(1, patience // 3), "keepalives_count": 3}
    arguments |= parameters
    options = str(parameters.get("options", ""))
    settings = {name: value for name, value in _settings(timeout).items() if name not in options}
    return Session(arguments=arguments, prepare=functools.partial(_prepare, settings))


def _settings(timeout: float) -> dict[str, str]:
    found = {"client_min_messages": "warning"}  # "relation already exists, skipping" is no news
    if timeout:
        patience = max(1, math.ceil(timeout))
        found |= {
            "statement_timeout": f"{patience * 1000}",
            # A connection that broke in the middle of a batch holds its rows, and the next attempt waits for them.
            "idle_in_transaction_session_timeout": f"{2 * patience * 1000}",
            "tcp_keepalives_idle": f"{patience}",
            "tcp_keepalives_interval": f"{max(1, patience // 3)}",
            "tcp_keepalives_count": "3",
            "tcp_user_timeout": f"{patience * 1000}",
        }
    return found


# In one round trip, and only what this version of the server knows.
_SET: Final = (
    "SELECT set_config(s.name, g.value, false) FROM unnest(%s::text[], %s::text[]) g (name, value)"
    " JOIN pg_catalog.pg_settings s ON s.name = g.name"
)


def _prepare(settings: Mapping[str, str], raw: Any) -> None:
    raw.execute(_SET, [list(settings), list(settings.values())])
    raw.commit()
