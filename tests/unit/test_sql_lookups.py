"""How often a table is looked up: on a far link that may take as long as an attempt has."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from resilient_exporters.errors import HoldError, RetryableError
from resilient_exporters.exporters.sql import SQLExporter
from tests.targets import PATIENCE
from tests.unit.sql_bench import RUN, Bench, batch


class Lookups:
    """Questions for the columns of a table, as they are asked. ``meanwhile`` is called during the first."""

    def __init__(self) -> None:
        self.count = 0
        self.meanwhile: Callable[[], None] = lambda: None

    def seen(self, *event: Any) -> None:
        if "table_xinfo" in event[2]:
            self.count += 1
            if self.count == 1:
                self.meanwhile()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "target.db")
    made.other.execute("CREATE TABLE t (_id VARCHAR(64) PRIMARY KEY, a INTEGER)")
    yield made
    made.close()


@pytest.fixture
def lookups() -> Iterator[Lookups]:
    made = Lookups()
    sa.event.listen(sa.engine.Engine, "before_cursor_execute", made.seen)
    yield made
    sa.event.remove(sa.engine.Engine, "before_cursor_execute", made.seen)


def test_a_broken_connection_is_no_reason_to_look_again(bench: Bench, lookups: Lookups) -> None:
    # Given: it was looked up, and an attempt took too long
    exporter = bench.exporter()
    with pytest.raises(RetryableError, match="timeout"):
        exporter.export(batch({"a": 1}, deadline=0.0))
    assert lookups.count == 1

    # When
    exporter.disconnect()
    exporter.connect()
    assert exporter.export(batch({"a": 1})) is None

    # Then
    assert lookups.count == 1


def test_what_was_mended_there_is_seen_at_the_next_attempt(bench: Bench) -> None:
    # Given: a field for which there is no column, and none may be made
    exporter = bench.exporter(new_columns="json", extra_column="more", create_table=False)
    with pytest.raises(HoldError, match="add a column 'more'"):
        exporter.export(batch({"a": 1, "b": 2}))

    # When
    exporter.disconnect()
    bench.other.execute("ALTER TABLE t ADD COLUMN more JSON")

    # Then
    assert exporter.export(batch({"a": 1, "b": 2})) is None
    assert bench.rows() == [{"_id": f"{RUN}-0", "a": 1, "more": '{"b":2}'}]


def test_threads_that_wait_for_a_lookup_make_none_of_their_own(bench: Bench, lookups: Lookups) -> None:
    # Given: while one thread looks, another one begins
    exporter = bench.exporter(sqlite_busy_timeout=PATIENCE)
    begun = threading.Event()
    with ThreadPoolExecutor(1) as other:
        second: list[Any] = []

        def meanwhile() -> None:
            second.append(other.submit(_export, exporter, begun))
            assert begun.wait(PATIENCE)

        lookups.meanwhile = meanwhile

        # When
        assert exporter.export(batch({"a": 1})) is None
        assert second[0].result(PATIENCE) is None

    # Then
    assert lookups.count == 1
    assert sorted(row["a"] for row in bench.rows()) == [1, 2]


def _export(exporter: SQLExporter, begun: threading.Event) -> Any:
    begun.set()
    return exporter.export(batch({"a": 2}, start=1))
