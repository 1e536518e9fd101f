"""Rows of real databases through a pipeline: every one once, whatever its key is made of."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from resilient_exporters.pipeline.readers import SQLReader
from tests.readings import run_with_stumbles
from tests.servers.provision import Link

POSTGRESQL = {
    "text": "'é ' || n || ' A'",
    "varying text": "upper(to_hex(n))",
    "numeric": "n / 7.0::numeric",
    "double precision": "n / 7.0::float8",
    "timestamptz": "timestamptz '2026-10-25 00:30+00' + n * interval '37 minutes'",
    "uuid": "md5(n::text)::uuid",
    "bytea": "decode(md5(n::text), 'hex')",
}
MARIADB = {
    "BIGINT UNSIGNED": "18446744073709551615 - n",
    "DECIMAL(20, 10)": "n / 7",
    "DOUBLE": "n / 7",
    "DATETIME(6)": "TIMESTAMP '2026-10-25 00:30:00.000001' + INTERVAL n MICROSECOND",
    "TIMESTAMP(3) NULL": "TIMESTAMP '2026-10-25 00:30:00.000' + INTERVAL n * 37 MINUTE",
}


def test_postgresql_gives_every_row_once_whatever_its_key(postgresql_database: str) -> None:
    for kind, value in POSTGRESQL.items():
        # Given 300 rows in no order, with a key of this type
        rows = f"SELECT {value}, n, '{{\"deep\": [1, null]}}' FROM generate_series(1, 300) AS n ORDER BY md5(n::text)"
        expected = filled(
            postgresql_database,
            "DROP TABLE IF EXISTS source",
            f"CREATE TABLE source (k {'text' if kind == 'varying text' else kind} PRIMARY KEY, n int, more jsonb)",
            f"INSERT INTO source {rows}",
        )

        # When the run is interrupted
        kept, _ = run_with_stumbles(lambda: SQLReader(url=postgresql_database, table="source", batch_size=70), [1, 150])

        # Then every row came once, in the order of the key, with its values
        assert [(one["k"], one["n"]) for one in kept] == expected, kind
        assert kept[0]["more"] == {"deep": [1, None]}


def test_mariadb_gives_every_row_once_whatever_its_key(mariadb_database: str) -> None:
    for kind, value in MARIADB.items():
        expected = filled(
            mariadb_database,
            "SET time_zone = '+00:00'",
            "DROP TABLE IF EXISTS source",
            f"CREATE TABLE source (k {kind}, n INT, UNIQUE (k))",
            f"INSERT INTO source SELECT {value}, n FROM (SELECT seq AS n FROM seq_1_to_300) AS s ORDER BY MD5(n)",
        )
        kept, _ = run_with_stumbles(
            lambda: SQLReader(url=mariadb_database, table="source", key=["k"], batch_size=70), [1, 150]
        )
        assert [(one["k"], one["n"]) for one in kept] == expected, kind


def filled(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """The rows that these statements leave in the table ``source``, in the order of ``k``."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        rows = [tuple(row) for row in connection.exec_driver_sql("SELECT k, n FROM source ORDER BY k")]
    engine.dispose()
    return rows


def test_a_link_that_breaks_is_waited_for(postgresql_database: str, link: Callable[[int], Link]) -> None:
    # Given a reader behind a link, after its first page
    filled(
        postgresql_database,
        "CREATE TABLE source (k int PRIMARY KEY, n int)",
        "INSERT INTO source SELECT n, n FROM generate_series(1, 50) AS n",
    )
    url = sa.make_url(postgresql_database)
    assert url.port is not None
    bad = link(url.port)
    reader = SQLReader(url=url.set(port=bad.port).render_as_string(False), table="source", batch_size=20)
    kept = [one["k"] for one in reader.get_next_batch()]

    # When the link is broken as it asks for more, and mended before the second attempt
    bad.cut()
    asked, stop = threading.Event(), threading.Event()

    def stopping() -> bool:
        asked.set()  # it waits for the next attempt
        return stop.is_set()

    reader.stopping = stopping

    def mend() -> None:
        asked.wait(60)
        bad.mend()

    mending = threading.Thread(target=mend)
    mending.start()
    while not reader.is_finished():
        kept += [one["k"] for one in reader.get_next_batch()]
    mending.join()

    # Then nothing is missing or there twice; and broken again, a run that is to stop does not wait
    assert kept == list(range(1, 51))
    assert asked.is_set()
    bad.cut()
    stop.set()
    assert list(reader.get_next_batch()) == []
    reader.close()


def test_a_key_of_two_columns_and_a_query(postgresql_database: str) -> None:
    # Given readings by device and number
    engine = sa.create_engine(postgresql_database)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE source (device uuid, n int, v float8, PRIMARY KEY (n, device))")
        connection.exec_driver_sql(
            "INSERT INTO source SELECT md5(d::text)::uuid, n, n / 3.0 "
            "FROM generate_series(1, 9) d, generate_series(1, 50) n"
        )
    engine.dispose()

    # When a table and a query are read with interruptions
    def table() -> SQLReader:
        return SQLReader(url=postgresql_database, table="source", schema="public", batch_size=17)

    def query() -> SQLReader:
        text = "SELECT device, n, v::text AS v FROM source WHERE n > :least"
        return SQLReader(
            url=postgresql_database, query=text, parameters={"least": 10}, key=["device", "n"], batch_size=17
        )

    # Then each gives its rows once
    for reader, number in ((table, 450), (query, 360)):
        kept: list[dict[str, Any]]
        kept, _ = run_with_stumbles(reader, [1, 100, 222])
        assert len(kept) == len({(one["device"], one["n"]) for one in kept}) == number
