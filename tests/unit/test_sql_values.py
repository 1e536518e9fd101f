"""What SQLite holds after any value was sent: the same, or a dead letter that says why."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_exporters.exporters.sql import SQLExporter
from tests.unit.sql_bench import Bench, batch, reasons


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "target.db")
    yield made
    made.close()


HOSTILE = [
    "Nonesuch",
    "O'Brien",
    "x',1); drop table victim;--",
    'say "hi"',
    "%s %(a)s :name ? $1",
    "a\0b",
    "",
    "NULL",
    "ß≠😀\n\t",
    "`; -- /* */",
    "\\'",
    "x" * 100_000,
]


class TestHostileTexts:
    @pytest.mark.parametrize("text", HOSTILE)
    def test_values_arrive_as_they_are(self, bench: Bench, text: str) -> None:
        bench.other.execute("CREATE TABLE victim (a)")
        exporter = bench.exporter()
        assert exporter.export(batch({"a": text})) is None
        assert bench.rows()[0]["a"] == text
        assert bench.rows("SELECT count(*) n FROM victim") == [{"n": 0}]

    @pytest.mark.parametrize(
        "name", ["x',1); drop table victim;--", 'a"b', "select", "a b", "%s", ":x", "?", "ä", "a.b"]
    )
    def test_names_of_columns_and_tables_are_names_only(self, bench: Bench, name: str) -> None:
        bench.other.execute("CREATE TABLE victim (a)")
        exporter = bench.exporter(table=name)
        datas = [{name: n, "other": "x"} for n in range(60)]
        # When the table is made, found again after a restart, widened and upserted
        assert exporter.export(batch(*datas)) is None
        again = bench.exporter(table=name)
        assert again.export(batch({name: 60, f"{name} 2": 1}, start=60)) is None
        quoted = '"' + name.replace('"', '""') + '"'
        assert [row[name] for row in bench.rows(f"SELECT * FROM {quoted} ORDER BY rowid")] == list(range(61))
        assert bench.rows("SELECT count(*) n FROM victim") == [{"n": 0}]

    @pytest.mark.parametrize("key", ["", "a\0b", "\udc00"])
    def test_a_key_that_can_be_no_column_is_a_dead_letter(self, bench: Bench, key: str) -> None:
        exporter = bench.exporter()
        found = reasons(exporter.export(batch({"a": 1}, {"a": 2, key: 3}, {"a": 4})))
        assert list(found) == [1]
        assert [r["a"] for r in bench.rows()] == [1, 4]

    def test_a_lone_surrogate_is_refused_by_name(self, bench: Bench) -> None:
        exporter = bench.exporter()
        found = reasons(exporter.export(batch({"a": "x"}, {"a": "\udc00"}, {"a": "y"})))
        assert "'a'" in found[1]
        assert "surrogate" in found[1]
        assert [r["a"] for r in bench.rows()] == ["x", "y"]


class TestExactValues:
    @pytest.mark.parametrize(
        ("value", "stored"),
        [
            (2**63 - 1, 2**63 - 1),
            (-(2**63), -(2**63)),
            (2**70, str(2**70)),
            (0.1, 0.1),
            (math.inf, math.inf),
            (math.nan, None),
            (5e-324, 5e-324),
            (decimal.Decimal("1.10"), "1.10"),
            (decimal.Decimal("0.1234567890123456789012"), "0.1234567890123456789012"),
            (dt.date(1, 1, 1), "0001-01-01"),
            (dt.time(1, 2, 3, 4), "01:02:03.000004"),
            (dt.timedelta(days=1, microseconds=1), 86400.000001),
            (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
            (b"\x00\xff", b"\x00\xff"),
            (bytearray(b"ab"), b"ab"),
            (True, 1),
        ],
    )
    def test_scalars(self, bench: Bench, value: Any, stored: Any) -> None:
        assert bench.exporter().export(batch({"v": value})) is None
        found = bench.rows()[0]["v"]
        assert found == stored
        assert type(found) is type(stored)

    @pytest.mark.parametrize(
        "value",
        [
            dt.datetime(2024, 2, 29, 23, 59, 59, 999999),
            dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc),
            dt.datetime(1999, 12, 31, 1, 2, 3, 4, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=45))),
        ],
    )
    def test_times_come_back_with_offset_and_microseconds(self, bench: Bench, value: dt.datetime) -> None:
        assert bench.exporter().export(batch({"v": value})) is None
        found = dt.datetime.fromisoformat(bench.rows()[0]["v"])
        assert found == value
        assert found.tzinfo == value.tzinfo

    def test_maps_and_lists_are_json(self, bench: Bench) -> None:
        value = {"a": [1, 2.5, None, True, "ü", {"b": {}}], "big": 2**70}
        assert bench.exporter().export(batch({"v": value}, {"v": [1]}, {"v": "text"}, {"v": None})) is None
        found = [row["v"] for row in bench.rows()]
        assert [None if each is None else json.loads(each) for each in found] == [value, [1], "text", None]

    def test_what_json_has_not_is_told_in_text(self, bench: Bench) -> None:
        value = {
            1: b"ab", "d": decimal.Decimal("1.10"), "t": dt.datetime(2024, 1, 1), "n": math.nan, "s": {3},
            "x": "\udc00",
            (1, 2): uuid.UUID(int=1),
        }  # fmt: skip
        assert bench.exporter().export(batch({"v": value})) is None
        assert json.loads(bench.rows()[0]["v"]) == {
            "1": "YWI=", "d": "1.10", "t": "2024-01-01T00:00:00", "n": None, "s": [3], "x": "\udc00",
            "(1, 2)": str(uuid.UUID(int=1)),
        }  # fmt: skip

    def test_nan_by_policy(self, bench: Bench) -> None:
        bench.exporter(table="a", nan="text").export(batch({"v": math.nan}, {"v": 1.5}))
        found = reasons(
            bench.exporter(table="b", nan="reject").export(batch({"v": math.nan}, {"v": 1.5}, {"v": math.inf}))
        )
        assert [row["v"] for row in bench.rows("SELECT v FROM a")] == ["NaN", 1.5]
        assert "nan" in found[0]
        assert [row["v"] for row in bench.rows("SELECT v FROM b")] == [1.5, math.inf]

    def test_kinds_that_differ_within_the_first_batch_are_all_kept(self, bench: Bench) -> None:
        values = [1, "007", 2.5, b"x", None, "2024"]
        assert bench.exporter().export(batch(*({"v": each} for each in values))) is None
        assert [row["v"] for row in bench.rows()] == values

    @pytest.mark.parametrize(
        ("first", "later", "stored"),
        [
            (1, 2.5, 2.5),
            (1, "n/a", "n/a"),
            (1, "7", 7),
            (1.5, 3, 3.0),
            (1.5, "1.50", 1.5),
            ("x", 7, "7"),
            ("x", True, "true"),
            ("x", decimal.Decimal("1.10"), "1.10"),
            (1, decimal.Decimal("2.5"), 2.5),
            (True, 0, 0),
            (1, b"z", b"z"),
            (1, dt.date(2024, 1, 1), "2024-01-01"),
            (1, {"a": 1}, '{"a":1}'),
        ],
    )
    def test_another_kind_in_a_column_keeps_its_value(self, bench: Bench, first: Any, later: Any, stored: Any) -> None:
        exporter = bench.exporter()
        exporter.export(batch({"v": first}))
        assert exporter.export(batch({"v": later}, start=1)) is None
        found = bench.rows()[1]["v"]
        assert found == stored
        assert type(found) is type(stored)

    @pytest.mark.parametrize(
        ("first", "later"),
        [
            (1, 2**63),
            (1, "007"),
            (1, " 7 "),
            (1.5, 2**53 + 1),
            (1.5, "0.12345678901234567890"),
            (1, decimal.Decimal("1E+1000")),
            (1.5, decimal.Decimal("0.12345678901234567890")),
            ({"a": 1}, 2**70),
        ],
    )
    def test_a_value_that_would_be_altered_is_refused_and_named(self, bench: Bench, first: Any, later: Any) -> None:
        exporter = bench.exporter()
        exporter.export(batch({"v": first}))
        found = reasons(exporter.export(batch({"v": later}, {"v": first}, start=1)))
        assert list(found) == [0]
        assert "'v'" in found[0]
        assert len(bench.rows()) == 2

    def test_numpy(self, bench: Bench) -> None:
        np = pytest.importorskip("numpy")
        value = {
            "i": np.int64(5), "f": np.float32(0.5), "b": np.bool_(True), "s": np.str_("x"),
            "a": np.array([[1, 2], [3, 4]]),
            "t": np.datetime64("2024-01-01T00:00:00.000000001"), "n": np.float64("nan"),
        }  # fmt: skip
        assert bench.exporter().export(batch(value)) is None
        row = bench.rows()[0]
        assert (row["i"], row["f"], row["b"], row["s"], row["n"]) == (5, 0.5, 1, "x", None)
        assert json.loads(row["a"]) == [[1, 2], [3, 4]]
        assert dt.datetime.fromisoformat(row["t"]) == dt.datetime(2024, 1, 1)

    def test_a_value_without_a_form_is_refused(self, bench: Bench) -> None:
        exporter = bench.exporter()
        found = reasons(exporter.export(batch({"v": 1}, {"v": object()}, {"v": {"deep": [object()]}})))
        assert sorted(found) == [1, 2]
        assert "object" in found[1]

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.none(),
                st.integers(min_value=-(2**80), max_value=2**80),
                st.floats(allow_nan=False),
                st.text(st.characters(exclude_categories=["Cs"])),
                st.binary(),
            ),
            min_size=1,
            max_size=8,
        )
    )
    def test_any_values_are_kept_or_refused_never_altered(self, values: list[Any]) -> None:
        # Given an in-memory database that the test can see too
        engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
        exporter = SQLExporter(engine, "t")
        # When values of any kind come to one column, each in a batch of its own
        refused = 0
        for n, value in enumerate(values):
            refused += len(reasons(exporter.export(batch({"v": value, "n": n}, start=n))))
        # Then each row has its value, as it was, as its text, or as the number that its text says
        with engine.connect() as connection:
            columns = (
                {each["name"] for each in sa.inspect(connection).get_columns("t")} if refused < len(values) else set()
            )
            rows = connection.exec_driver_sql("SELECT n, v FROM t").all() if "v" in columns else []
        for n, found in rows:
            sent = values[n]
            same = found == sent or found == str(sent) or found == repr(sent)
            said = (
                isinstance(sent, str)
                and isinstance(found, int | float)
                and decimal.Decimal(sent) == decimal.Decimal(repr(found))
            )
            assert same or said, (sent, found)
        engine.dispose()
