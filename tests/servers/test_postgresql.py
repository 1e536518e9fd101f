"""PostgreSQLExporter against a server, and over links that go bad: every accepted record is there exactly once."""

from __future__ import annotations

import datetime as dt
import decimal
import logging
import math
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from resilient_exporters import Batch, PostgreSQLExporter, Record
from resilient_exporters.errors import HoldError, RetryableError
from tests.servers.provision import HOST, Instance, Link
from tests.servers.provision.server import poll
from tests.servers.story import Story
from tests.servers.watch import PATIENCE
from tests.unit.sql_bench import RUN, batch, reasons

MakeLink = Callable[[int], Link]
OwnServer = Callable[..., Instance]
UTC = dt.timezone.utc
HOSTILE = "None \\N \t\n\r O'Brien; drop table t;-- %s ß😀"
TABLE = "CREATE TABLE t (_id varchar(64) PRIMARY KEY, place serial, n bigint, text text)"


class Base:
    """A database of this test: a second connection to look at it, and exporters to it."""

    def __init__(self, port: int, name: str) -> None:
        self.port = port
        self.name = name
        self.other = psycopg.connect(host=HOST, port=port, user="postgres", dbname=name, autocommit=True)
        self._made: list[PostgreSQLExporter] = []

    def exporter(self, table: str | None = "t", port: int | None = None, **options: Any) -> PostgreSQLExporter:
        made = PostgreSQLExporter(None, HOST, self.name, port or self.port, "postgres", default_table=table, **options)
        self._made.append(made)
        return made

    def run(self, *statements: str) -> None:
        for each in statements:
            self.other.execute(each.encode())

    def rows(self, query: str = "SELECT * FROM t ORDER BY _id") -> list[tuple[Any, ...]]:
        return self.other.execute(query.encode()).fetchall()

    def numbers(self) -> list[int]:
        return [row[0] for row in self.rows("SELECT n FROM t ORDER BY place")]

    def close(self) -> None:
        for each in self._made:
            each.close(0)
            each.disconnect()
        self.other.close()


@pytest.fixture
def base(postgresql: Instance, postgresql_database: str) -> Iterator[Base]:
    made = Base(postgresql.port, postgresql_database.rpartition("/")[2])
    yield made
    made.close()


@pytest.fixture
def stream(base: Base) -> Callable[..., Story]:
    def make(port: int | None = None, **options: Any) -> Story:
        return Story(lambda **given: base.exporter(port=port, **given), base.numbers, **options)

    return make


class TestValues:
    def test_every_type_arrives_exactly(self, base: Base) -> None:
        # Given a table of someone else with all kinds of columns
        base.run(
            "CREATE TYPE mood AS ENUM ('sad', 'ok')",
            "CREATE DOMAIN short AS varchar(3) CHECK (VALUE <> 'bad')",
            "CREATE TABLE t (_id text UNIQUE, b boolean, i2 smallint, i4 int, i8 bigint, f8 double precision,"
            " num numeric, txt text, vc varchar(20), by bytea, ts timestamp, tz timestamptz, d date,"
            " ti time, ttz timetz, iv interval,"
            " u uuid, j json, jb jsonb, ip inet, net cidr, mac macaddr, m mood, s short, r int4range, tr tstzrange,"
            " ints int[], texts text[], moods mood[], jbs jsonb[], grid double precision[], p point, bits bit(3),"
            " x xml)",
        )
        zone = dt.timezone(dt.timedelta(hours=5, minutes=30))
        identity = uuid.uuid4()
        rows: list[tuple[str, Any, Any]] = [
            ("b", True, True), ("i2", -(2**15), -(2**15)), ("i4", 2**31 - 1, 2**31 - 1), ("i8", -(2**63), -(2**63)),
            ("f8", 0.1 + 0.2, 0.1 + 0.2), ("f8", math.inf, math.inf), ("f8", -0.0, -0.0), ("f8", 5e-324, 5e-324),
            ("num", decimal.Decimal("1.10"), decimal.Decimal("1.10")), ("num", 10**40, decimal.Decimal(10**40)),
            ("num", math.inf, decimal.Decimal("Infinity")), ("num", 0.1, decimal.Decimal("0.1")),
            ("txt", HOSTILE, HOSTILE),
            ("txt", "\\.", "\\."), ("txt", "", ""), ("vc", "NULL", "NULL"),
            ("by", bytes(range(256)), bytes(range(256))),
            ("ts", dt.datetime(2024, 1, 2, 3, 4, 5, 678901), dt.datetime(2024, 1, 2, 3, 4, 5, 678901)),
            ("ts", dt.datetime(2024, 1, 2, 3, tzinfo=zone), dt.datetime(2024, 1, 1, 21, 30)),
            ("tz", dt.datetime(2024, 1, 2, 3, tzinfo=zone), dt.datetime(2024, 1, 2, 3, tzinfo=zone)),
            ("tz", dt.datetime(987, 1, 2, 3, 4, 5, 6, tzinfo=UTC), dt.datetime(987, 1, 2, 3, 4, 5, 6, tzinfo=UTC)),
            ("d", dt.date(2024, 2, 29), dt.date(2024, 2, 29)), ("ti", dt.time(1, 2, 3, 4), dt.time(1, 2, 3, 4)),
            ("ttz", dt.time(1, 2, tzinfo=zone), dt.time(1, 2, tzinfo=zone)),
            ("iv", dt.timedelta(days=-3, microseconds=7), dt.timedelta(days=-3, microseconds=7)),
            ("iv", "2 days", dt.timedelta(days=2)), ("u", identity, identity), ("u", str(identity), identity),
            ("j", {"a": [1, None, "é"]}, {"a": [1, None, "é"]}), ("jb", [1.5, math.nan], [1.5, None]), ("jb", "t", "t"),
            ("m", "ok", "ok"), ("s", "abc", "abc"), ("ints", [1, None, -3], [1, None, -3]), ("ints", [], []),
            ("texts", ['a,"b"\\', "NULL", "{}"], ['a,"b"\\', "NULL", "{}"]),
            ("grid", [[1, 2.5], [3, 4]], [[1, 2.5], [3, 4]]),
            ("jbs", [{"a": 1}, [2], "x"], [{"a": 1}, [2], "x"]), ("bits", "101", "101"), ("p", "(1,2)", "(1,2)"),
        ]  # fmt: skip
        texts = [
            ("ip", "10.0.0.1/24"), ("net", "10.0.0.0/8"), ("mac", "08:00:2b:01:02:03"), ("r", "[1,5)"), ("x", "<a/>"),
            ("moods", ["ok", "sad"]), ("tr", '["2024-01-01 00:00:00+00",)'),
        ]  # fmt: skip
        # When each arrives in its own record, and all together in one
        exporter = base.exporter()
        datas: list[dict[str, Any]] = [{name: value} for name, value, _ in rows] + [dict([each]) for each in texts]
        datas.append({name: value for name, value, _ in rows} | dict(texts))
        assert reasons(exporter.export(batch(*datas))) == {}
        # Then they are what was sent
        for n, (name, _, expected) in enumerate(rows):
            ((found,),) = base.rows(f"SELECT {name} FROM t WHERE _id = '{RUN}-{n}'")
            assert found == expected, name
            assert type(found) is type(expected), name
        for n, (name, value) in enumerate(texts, len(rows)):
            said = value if isinstance(value, str) else "{ok,sad}"
            ((found,),) = base.rows(f"SELECT {name}::text FROM t WHERE _id = '{RUN}-{n}'")
            assert found == said

    @pytest.mark.parametrize(
        "odd", [HOSTILE, "],[", '"],["', "null", "\\", 'C:\\new"', "\\.", '""', ",", "", " ", "\x01"]
    )
    def test_a_text_that_looks_like_the_format_of_the_batch(self, base: Base, odd: str) -> None:
        base.run("CREATE TABLE t (_id text PRIMARY KEY, a text, f double precision, n int, b boolean, c varchar(60))")
        rows = [
            ("x", 1.5, 1, True, odd),
            (odd, None, None, None, None),
            (odd, 2.0, -7, False, "y"),
            ("z",) + (None,) * 4,
        ]
        exporter = base.exporter()
        assert reasons(exporter.export(batch(*(dict(zip("afnbc", row, strict=True)) for row in rows)))) == {}
        assert base.rows("SELECT a, f, n, b, c FROM t ORDER BY _id") == rows

    def test_bad_values_among_many_readings(self, base: Base) -> None:
        base.run("CREATE TABLE t (_id text PRIMARY KEY, v double precision, w text, n int)")
        good: list[dict[str, Any]] = [{"v": at / 4, "w": f"w{at}", "n": at} for at in range(100)]
        bad: dict[int, dict[str, Any]] = {
            7: {"w": "a\0b"},
            23: {"n": 2**31},
            51: {"v": 2**53 + 1},
            52: {"v": decimal.Decimal("0.1234567890123456789")},
        }
        fine: dict[int, dict[str, Any]] = {
            60: {"v": math.nan},
            61: {"v": 3},
            62: {"v": decimal.Decimal("0.5")},
            63: {"n": None},
            64: {"w": "\n"},
        }
        rows = [row | bad.get(at, {}) | fine.get(at, {}) for at, row in enumerate(good)]
        found = reasons(base.exporter().export(batch(*rows)))
        assert set(found) == set(bad)
        assert ["NUL" in found[7], "bytes" in found[23], "digits" in found[51], "digits" in found[52]] == [True] * 4
        stored = {row[0]: row[1:] for row in base.rows("SELECT coalesce(n, 63), v, w FROM t")}
        assert len(stored) == 96
        assert (math.isnan(stored[60][0]), stored[61][0], stored[62][0], stored[64][1]) == (True, 3.0, 0.5, "\n")
        assert all(stored[at] == (at / 4, f"w{at}") for at in range(60) if at not in bad)

    def test_nan(self, base: Base) -> None:
        exporter = base.exporter(create_table_if_inexistent=True, columns={"d": decimal.Decimal})
        assert reasons(exporter.export(batch({"a": math.nan, "d": math.nan}))) == {}
        assert base.rows("SELECT a::text, d::text FROM t") == [("NaN", "NaN")]

    @settings(
        max_examples=40,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        data=st.lists(
            st.fixed_dictionaries(
                {
                    "b": st.none() | st.booleans(),
                    "i": st.none() | st.integers(-(2**63), 2**63 - 1),
                    "f": st.none() | st.floats(allow_nan=False),
                    "t": st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
                    "y": st.none() | st.binary(),
                    "d": st.none() | st.decimals(allow_nan=False, places=7),
                    "z": st.none() | st.datetimes(timezones=st.just(UTC)),
                    "v": st.none() | st.timedeltas(dt.timedelta(-10000), dt.timedelta(10000)),
                }
            ),
            min_size=1,
            max_size=20,
        )
    )
    def test_any_row_arrives_as_it_is(self, base: Base, data: list[dict[str, Any]]) -> None:
        base.run(
            "CREATE TABLE IF NOT EXISTS t (_id text PRIMARY KEY, b boolean, i bigint, f double precision, t text,"
            " y bytea, d numeric, z timestamptz, v interval)",
            "TRUNCATE t",
        )
        exporter = base.exporter()
        assert reasons(exporter.export(batch(*data))) == {}
        exporter.disconnect()
        found = base.rows("SELECT b, i, f, t, y, d, z, v FROM t ORDER BY split_part(_id, '-', 2)::int")
        assert found == [tuple(each[name] for name in "biftydzv") for each in data]

    def test_tuples_are_rows_in_table_order(self, base: Base) -> None:
        base.run("CREATE TABLE t (_id text PRIMARY KEY, a int, b text)")
        assert reasons(base.exporter().export(batch((1, "x"), ("mine", 2, "y")))) == {}
        assert base.rows() == [(f"{RUN}-0", 1, "x"), ("mine", 2, "y")]


class TestRefusals:
    def test_only_the_bad_rows_are_refused_with_their_reasons(self, base: Base, caplog: Any) -> None:
        # Given rows that the definition, a check, a foreign key, a trigger and a type's own rules refuse
        base.run(
            "CREATE TABLE place (name text PRIMARY KEY)",
            "INSERT INTO place VALUES ('here')",
            "CREATE TABLE t (_id text PRIMARY KEY, n int NOT NULL CHECK (n <> 13), s varchar(3), r int4range,"
            " place text REFERENCES place, jb jsonb)",
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN IF NEW.s = 'no' THEN RAISE EXCEPTION 'the trigger says no'; END IF; RETURN NEW; END $$",
            "CREATE TRIGGER no AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION no()",
        )
        datas: list[dict[str, Any]] = [{"n": n, "s": "ok"} for n in range(100, 400)]
        bad: dict[int, tuple[dict[str, Any], str]] = {
            3: ({"n": None}, "must have a value"),
            50: ({"s": "ok"}, "'n' must have a value"),
            51: ({"n": 1, "s": "long"}, "4 characters"),
            120: ({"n": 13}, "t_n_check"),
            121: ({"n": 1, "place": "nowhere"}, "not present"),
            122: ({"n": 1, "s": "no"}, "the trigger says no"),
            200: ({"n": 1, "r": "[5,1)"}, "range lower bound"),
            201: ({"n": 1, "jb": {"a": "\0"}}, "Unicode"),
            202: ({"n": 1, "nonesuch": 5}, "no column"),
            299: ({"n": "many"}, "not a number"),
        }
        for place, (data, _) in bad.items():
            datas[place] = data
        exporter = base.exporter()
        with caplog.at_level(logging.WARNING):
            found = reasons(exporter.export(batch(*datas)))
        # Then these are dead letters with the reason, and all others are there
        assert found.keys() == bad.keys()
        for place, (_, why) in bad.items():
            assert why in found[place]
        assert base.rows("SELECT count(*) FROM t") == [(290,)]
        # And nothing is spoiled, and no library has anything to complain of
        assert reasons(exporter.export(batch({"n": 1}, start=1000))) == {}
        assert not [each for each in caplog.records if each.name.startswith(("psycopg", "sqlalchemy"))]

    def test_a_reason_does_not_quote_the_row(self, base: Base) -> None:
        base.run("CREATE TABLE t (_id text PRIMARY KEY, a text CHECK (length(a) < 5), b int)")
        found = reasons(base.exporter().export(batch({"a": "secret words", "b": 1})))
        assert "secret" not in found[0]
        assert "t_a_check" in found[0]

    def test_a_trigger_may_fill_in_what_is_missing(self, base: Base) -> None:
        base.run(
            "CREATE TABLE t (_id text PRIMARY KEY, n int NOT NULL)",
            "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.n = 7; RETURN NEW; END $$",
            "CREATE TRIGGER fill BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION fill()",
        )
        assert reasons(base.exporter().export(batch({}))) == {}
        assert base.rows("SELECT n FROM t") == [(7,)]

    def test_a_lone_surrogate(self, base: Base) -> None:
        base.run(TABLE)
        found = reasons(base.exporter().export(batch({"text": "a"}, {"text": "\udc00"}, {"text": "b"})))
        assert list(found) == [1]
        assert "surrogate" in found[1]

    def test_columns_that_the_database_fills_itself(self, base: Base) -> None:
        base.run(
            "CREATE TABLE t (_id text PRIMARY KEY, a int GENERATED ALWAYS AS IDENTITY, b int,"
            " c int GENERATED ALWAYS AS (b * 2) STORED)",
        )
        exporter = base.exporter()
        found = reasons(exporter.export(batch({"b": 1}, {"a": 5, "b": 1}, {"b": 1, "c": 3})))
        assert found.keys() == {1, 2}
        assert base.rows("SELECT b, c FROM t") == [(1, 2)]


class TestSchemaChanges:
    def test_a_table_made_later(self, base: Base) -> None:
        exporter = base.exporter()
        with pytest.raises(HoldError, match="no table 't'"):
            exporter.export(batch({"n": 1}))
        base.run(TABLE)
        assert reasons(exporter.export(batch({"n": 1}))) == {}

    def test_columns_labels_and_lengths_changed_later(self, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
        base.run("CREATE TYPE mood AS ENUM ('sad')", "CREATE TABLE t (_id text PRIMARY KEY, s varchar(2), m mood)")
        exporter = base.exporter()
        assert reasons(exporter.export(batch({"s": "ab", "m": "sad"}))) == {}
        base.run(
            "ALTER TYPE mood ADD VALUE 'ok'", "ALTER TABLE t ALTER s TYPE varchar(9)", "ALTER TABLE t ADD extra int"
        )
        monkeypatch.setattr("resilient_exporters.exporters.sql._FRESH", 0.0)
        assert reasons(exporter.export(batch({"s": "abcdef", "m": "ok", "extra": 1}, start=1))) == {}

    def test_a_column_dropped_or_a_table_replaced_under_us(self, base: Base) -> None:
        base.run(TABLE)
        exporter = base.exporter(new_columns="ignore")
        assert reasons(exporter.export(batch({"n": 1, "text": "x"}))) == {}
        base.run("ALTER TABLE t DROP text")
        assert reasons(exporter.export(batch({"n": 2, "text": "x"}, start=1))) == {}
        base.run("DROP TABLE t", "CREATE TABLE t (_id text PRIMARY KEY, n text)")
        assert reasons(exporter.export(batch({"n": "3", "text": "x"}, start=2))) == {}
        assert base.rows() == [(f"{RUN}-2", "3")]

    def test_many_make_the_table_at_once(self, base: Base) -> None:
        exporters = [base.exporter(create_table_if_inexistent=True) for _ in range(4)]
        barrier = threading.Barrier(4)
        found: list[Any] = []

        def deliver(number: int) -> None:
            barrier.wait()
            found.append(reasons(exporters[number].export(batch({"n": number, f"own{number}": 1}, start=number))))

        threads = [threading.Thread(target=deliver, args=(number,)) for number in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert found == [{}] * 4
        assert base.rows("SELECT count(*) FROM t") == [(4,)]


class TestOnce:
    @pytest.mark.parametrize("key", ["PRIMARY KEY", "UNIQUE", ""])
    def test_a_batch_sent_again(self, base: Base, key: str) -> None:
        base.run(f"CREATE TABLE t (_id text {key}, n int)")
        base.exporter().export(batch({"n": 1}, {"n": 2}))
        again = base.exporter()
        assert reasons(again.export(batch({"n": 1}, {"n": 2}, {"n": 3}, redelivered=True))) == {}
        assert [row[1] for row in base.rows()] == [1, 2, 3]

    def test_a_batch_that_another_attempt_wrote_meanwhile(self, base: Base) -> None:
        # Given an attempt that was given up, and yet was committed; the engine does not know
        base.run(TABLE)
        base.exporter().export(batch({"n": 1}, {"n": 2}))
        assert reasons(base.exporter().export(batch({"n": 1}, {"n": 2}, {"n": 3}))) == {}
        assert base.numbers() == [1, 2, 3]

    def test_by_the_ledger(self, base: Base) -> None:
        base.run("CREATE TABLE t (n int)")
        base.exporter(ledger=True).export(batch({"n": 1}, {"n": 2}))
        again = base.exporter(ledger=True)
        assert reasons(again.export(batch({"n": 1}, {"n": 2}, {"n": 3}, redelivered=True))) == {}
        assert base.rows("SELECT n FROM t ORDER BY n") == [(1,), (2,), (3,)]

    def test_a_users_own_id(self, base: Base) -> None:
        base.run("CREATE TABLE t (_id int PRIMARY KEY, n int)")
        exporter = base.exporter()
        assert reasons(exporter.export(batch({"_id": 1, "n": 1}, {"_id": 1, "n": 9}, {"_id": 2, "n": 2}))) == {}
        assert reasons(exporter.export(batch({"_id": 2, "n": 9}, {"_id": 3, "n": 3}, redelivered=True))) == {}
        assert base.rows() == [(1, 1), (2, 2), (3, 3)]


class TestUpsert:
    def test_the_later_record_wins(self, base: Base) -> None:
        base.run("CREATE TABLE t (device text PRIMARY KEY, n int, note text DEFAULT 'kept')")
        exporter = base.exporter(upsert_on="device", id_column=None)
        datas = [{"device": f"d{n % 7}", "n": n} for n in range(100)]
        assert reasons(exporter.export(batch(*datas))) == {}
        assert reasons(exporter.export(batch({"device": "d0", "n": -1}, {"device": "d0", "n": -2}, start=100))) == {}
        expected = [("d0", -2, "kept")] + [(f"d{n}", max(range(n, 100, 7)), "kept") for n in range(1, 7)]
        assert base.rows("SELECT * FROM t ORDER BY device") == expected

    def test_keys_that_are_one_to_the_database_only(self, base: Base) -> None:
        base.run("CREATE TABLE t (k char(4) PRIMARY KEY, n int)")
        exporter = base.exporter(upsert_on=["k"], id_column=None)
        assert reasons(exporter.export(batch({"k": "a", "n": 1}, {"k": "b", "n": 2}, {"k": "a ", "n": 3}))) == {}
        assert base.rows("SELECT k, n FROM t ORDER BY k") == [("a   ", 3), ("b   ", 2)]

    def test_per_record_and_beside_a_bad_row(self, base: Base) -> None:
        base.run("CREATE TABLE t (_id text, k int UNIQUE, n int CHECK (n <> 13))")
        exporter = base.exporter()
        datas = [{"k": 1, "n": 1}, {"k": 2, "n": 13}, {"k": 1, "n": 3}]
        assert reasons(exporter.export(batch(*datas, upsert_on=("k",)))).keys() == {1}
        assert base.rows("SELECT k, n FROM t") == [(1, 3)]

    def test_without_a_constraint_it_holds(self, base: Base) -> None:
        base.run("CREATE TABLE t (k int, n int)")
        with pytest.raises(HoldError, match="UNIQUE"):
            base.exporter(upsert_on="k").export(batch({"k": 1, "n": 1}))

    def test_more_shapes_than_temporary_tables_are_kept(self, base: Base) -> None:
        columns = ", ".join(f"c{n} int" for n in range(40))
        base.run(f"CREATE TABLE t (k int PRIMARY KEY, {columns})")
        exporter = base.exporter(upsert_on="k", id_column=None)
        assert reasons(exporter.export(batch(*[{"k": n % 3, f"c{n}": n} for n in range(40)]))) == {}
        assert reasons(exporter.export(batch({"k": 0, "c0": -1}, start=40))) == {}
        assert base.rows("SELECT c0, c39 FROM t WHERE k = 0") == [(-1, 39)]


class TestWhereCopyCannotGo:
    def test_a_view(self, base: Base) -> None:
        base.run("CREATE TABLE real (_id text PRIMARY KEY, n int)", "CREATE VIEW t AS SELECT _id, n FROM real")
        exporter = base.exporter()
        assert reasons(exporter.export(batch({"n": 1}))) == {}
        assert reasons(exporter.export(batch({"n": 2}, start=1))) == {}
        assert base.rows("SELECT n FROM real ORDER BY n") == [(1,), (2,)]

    def test_row_level_security(self, base: Base, postgresql: Instance) -> None:
        role = f"writer_{base.name}"
        base.run(
            TABLE, f"CREATE ROLE {role} LOGIN", f"GRANT SELECT, INSERT ON t TO {role}",
            f"GRANT USAGE ON SEQUENCE t_place_seq TO {role}",
            "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY p ON t USING (true) WITH CHECK (n < 100)",
        )  # fmt: skip
        exporter = PostgreSQLExporter(
            target_host=HOST, database=base.name, target_port=base.port, username=role, default_table="t"
        )
        found = reasons(exporter.export(batch({"n": 1}, {"n": 2})))
        exporter.disconnect()
        base.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
        assert found == {}
        assert base.numbers() == [1, 2]

    def test_a_partitioned_table(self, base: Base) -> None:
        base.run(
            "CREATE TABLE t (_id text, n int, PRIMARY KEY (_id, n)) PARTITION BY RANGE (n)",
            "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100)",
        )
        assert reasons(base.exporter().export(batch({"n": 1}, {"n": 500}, {"n": 2}))).keys() == {1}
        assert [row[1] for row in base.rows()] == [1, 2]


def raises_once(base: Base, sqlstate: str) -> None:
    """Make a trigger that fails the first insert with this code. A sequence is not rolled back."""
    base.run(
        TABLE,
        "CREATE SEQUENCE tries",
        f"CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('tries') = 1 THEN"
        f" RAISE EXCEPTION 'the first one fails' USING ERRCODE = '{sqlstate}'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER fail BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION fail()",
    )


class TestAnswers:
    @pytest.mark.parametrize("sqlstate", ["40P01", "40001", "53100", "53200", "53300", "55P03", "57014", "58030"])
    def test_passing_troubles_are_tried_again(self, base: Base, stream: Any, sqlstate: str) -> None:
        raises_once(base, sqlstate)
        rows = stream()
        rows.send(150)
        rows.watch.wait_for_trouble()
        rows.all_arrive_once()

    def test_a_real_deadlock(self, base: Base) -> None:
        # Given two transactions that want each other's rows
        base.run("CREATE TABLE t (k int PRIMARY KEY, n int)", "INSERT INTO t VALUES (1, 0), (2, 0)")
        exporter = base.exporter(upsert_on="k", id_column=None, timeout=20)
        with psycopg.connect(host=HOST, port=base.port, user="postgres", dbname=base.name) as second:
            second.execute("SET deadlock_timeout = '1h'")  # the other one is to be the victim
            second.execute("UPDATE t SET n = 1 WHERE k = 2")
            exporter.connect()
            errors: list[Exception] = []

            def deliver() -> None:
                try:
                    exporter.export(batch({"k": 1, "n": 5}, {"k": 2, "n": 5}))
                except Exception as error:
                    errors.append(error)

            worker = threading.Thread(target=deliver)
            worker.start()
            second.execute("UPDATE t SET n = 1 WHERE k = 1") if _waits(base) else pytest.fail("it does not wait")
            worker.join(PATIENCE)
            second.commit()
        # Then the batch is to be tried again, and that works
        assert [type(each) for each in errors] == [RetryableError]
        assert reasons(exporter.export(batch({"k": 1, "n": 5}, {"k": 2, "n": 5}, redelivered=True))) == {}
        assert base.rows("SELECT n FROM t") == [(5,), (5,)]

    def test_read_only_holds_until_it_is_not(self, base: Base, stream: Any) -> None:
        base.run(TABLE, f'ALTER DATABASE "{base.name}" SET default_transaction_read_only = on')
        rows = stream()
        rows.send(10)
        assert "read-only" in rows.watch.wait_until_held()
        base.run(
            "SET default_transaction_read_only = off",
            f'ALTER DATABASE "{base.name}" RESET default_transaction_read_only',
        )
        rows.exporter.mended()
        rows.all_arrive_once()

    def test_a_missing_database_holds_until_it_is_made(self, base: Base, postgresql: Instance) -> None:
        exporter = PostgreSQLExporter(target_host=HOST, database="nonesuch", target_port=base.port, username="postgres")
        with pytest.raises(HoldError, match="does not exist; create the database"):
            exporter.connect()

    def test_a_wrong_password_holds(self, own_server: OwnServer) -> None:
        server = own_server("postgresql", user="me", password="p@:/% ")
        place = {"target_host": HOST, "database": "postgres", "target_port": server.port, "username": "me"}
        with pytest.raises(HoldError, match="check username and password") as caught:
            PostgreSQLExporter(password="wrong secret", **place).connect()  # type: ignore[arg-type] # keywords of a dict
        assert "wrong secret" not in str(caught.value)
        right = PostgreSQLExporter(password="p@:/% ", **place)  # type: ignore[arg-type] # options of mixed types
        right.connect()
        right.disconnect()

    def test_missing_rights_hold(self, base: Base) -> None:
        role = f"reader_{base.name}"
        base.run(TABLE, f"CREATE ROLE {role} LOGIN")
        exporter = PostgreSQLExporter(
            target_host=HOST, database=base.name, target_port=base.port, username=role, default_table="t"
        )
        with pytest.raises(HoldError, match="grant this account INSERT"):
            exporter.export(batch({"n": 1}))
        exporter.disconnect()
        base.run(f"DROP ROLE {role}")

    def test_too_many_connections_wait(self, base: Base, stream: Any) -> None:
        base.run(TABLE, f'ALTER DATABASE "{base.name}" CONNECTION LIMIT 1')
        role = f"many_{base.name}"
        base.run(f"CREATE ROLE {role} LOGIN", f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
                 f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")  # fmt: skip
        exporter = PostgreSQLExporter(
            target_host=HOST, database=base.name, target_port=base.port, username=role, default_table="t"
        )
        with pytest.raises(RetryableError, match="too many connections"):
            exporter.connect()
        base.run(f'ALTER DATABASE "{base.name}" CONNECTION LIMIT -1')
        assert reasons(exporter.export(batch({"n": 1}))) == {}
        exporter.disconnect()
        base.run(f"DROP OWNED BY {role}", f"DROP ROLE {role}")

    def test_a_statement_that_takes_too_long_is_ended_by_the_server(self, base: Base) -> None:
        base.run(TABLE)
        exporter = base.exporter(timeout=1)
        exporter.connect()
        with psycopg.connect(host=HOST, port=base.port, user="postgres", dbname=base.name) as second:
            second.execute("LOCK TABLE t")
            with pytest.raises(RetryableError):
                exporter.export(batch({"n": 1}))
            second.rollback()
        assert reasons(exporter.export(batch({"n": 1}, redelivered=True))) == {}

    def test_a_record_that_cannot_be_sent_at_all(self, base: Base) -> None:
        base.run("CREATE TABLE t (_id text PRIMARY KEY, j jsonb)")
        nested: Any = 1
        for _ in range(100):
            nested = [nested]
        big = "x" * 20_000_000
        assert reasons(base.exporter().export(batch({"j": nested}, {"j": big}))) == {}
        assert base.rows("SELECT length(j #>> '{}') FROM t WHERE jsonb_typeof(j) = 'string'") == [(20_000_000,)]


def _waits(base: Base) -> bool:
    """Whether a session comes to wait for a lock. The server tells nobody, it must be asked."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return poll(lambda: base.rows(query) == [(1,)], PATIENCE)


class TestLostConnections:
    def test_a_terminated_backend_is_replaced(self, base: Base, stream: Any) -> None:
        base.run(TABLE)
        rows = stream()
        rows.send(100)
        rows.watch.wait_for(100)
        base.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'resilient-exporters'"
        )
        rows.send(100)
        rows.all_arrive_once()

    def test_a_stale_connection_costs_no_attempt(self, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("resilient_exporters.exporters.sql_engine._TRUSTED", 0.0)
        base.run(TABLE)
        exporter = base.exporter()
        exporter.connect()
        exporter.export(batch({"n": 1}))
        base.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'resilient-exporters'"
        )
        assert reasons(exporter.export(batch({"n": 2}, start=1))) == {}


class TestBadLinks:
    def test_the_answer_to_the_commit_is_lost(self, base: Base, link: MakeLink) -> None:
        # Given a link that lets the server's words through up to the COMMIT of this batch
        base.run(TABLE)
        bad = link(base.port)
        exporter = base.exporter(port=bad.port)
        exporter.connect()
        assert exporter.export(batch({"n": 0})) is None
        done = threading.Event()
        base.run("CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$")
        raw = exporter._database.engine.raw_connection()
        commit = raw.dbapi_connection.commit  # type: ignore[union-attr] # connected here

        def cut_first() -> None:
            bad.fault("timeout", timeout=500)  # from now on the server hears, and is not heard, and then it is cut
            done.set()
            commit()

        raw.dbapi_connection.commit = cut_first  # type: ignore[union-attr, method-assign]
        raw.close()
        # When the batch is written, and sent again once the link is back
        with pytest.raises(RetryableError):
            exporter.export(batch({"n": 1}, {"n": 2}, start=1))
        assert done.is_set()
        bad.mend()
        exporter.disconnect()
        assert base.numbers() == [0, 1, 2]
        assert reasons(exporter.export(batch({"n": 1}, {"n": 2}, start=1, redelivered=True))) == {}
        # Then nothing is there twice
        assert base.numbers() == [0, 1, 2]

    def test_a_link_that_swallows_everything_holds_no_thread_for_ever(self, base: Base, link: MakeLink) -> None:
        base.run(TABLE)
        bad = link(base.port)
        rows = Story(lambda **given: base.exporter(port=bad.port, **given), base.numbers, timeout=1.0)
        rows.send(10)
        rows.watch.wait_for(10)
        bad.fault("timeout", timeout=0)
        rows.send(10)
        rows.watch.wait_for_trouble()
        # When more attempts are made, the one that hangs in the middle of a batch is hung up on
        rows.exporter.flush(PATIENCE)
        assert poll(lambda: rows.exporter.stats().targets[rows.exporter.name].hung == 0, PATIENCE)
        bad.mend()
        rows.exporter.flush(PATIENCE)
        rows.all_arrive_once()


def test_records_keep_the_options_of_their_send(base: Base) -> None:
    base.run(TABLE, "CREATE TABLE u (_id text PRIMARY KEY, n int)")
    exporter = base.exporter()
    records = [
        Record(run=RUN, offset=0, data={"n": 1}, options={}),
        Record(run=RUN, offset=1, data={"n": 2}, options={"table": "u"}),
    ]
    assert reasons(exporter.export(Batch(records))) == {}
    assert base.rows("SELECT n FROM u") == [(2,)]
