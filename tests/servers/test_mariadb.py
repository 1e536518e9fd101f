"""MySQLExporter against MariaDB: values, refusals, packets, answers, lost connections."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest

from resilient_exporters import MySQLExporter
from resilient_exporters.errors import HoldError, RetryableError
from tests.servers.provision import HOST, Instance, Link
from tests.servers.story import Story
from tests.unit.sql_bench import RUN, batch, reasons

MakeLink = Callable[[int], Link]
OwnServer = Callable[..., Instance]
UTC = dt.timezone.utc
TABLE = "CREATE TABLE t (_id varchar(64) PRIMARY KEY, place int NOT NULL AUTO_INCREMENT UNIQUE, n bigint, text text)"


class Base:
    """A database of this test: a second connection to look at it, and exporters to it."""

    def __init__(self, port: int, name: str) -> None:
        self.port = port
        self.name = name
        self._made: list[MySQLExporter] = []
        self.look()

    def look(self) -> None:
        self.other = pymysql.connect(host=HOST, port=self.port, user="root", database=self.name, autocommit=True)

    def exporter(self, table: str | None = "t", port: int | None = None, **options: Any) -> MySQLExporter:
        made = MySQLExporter(HOST, self.name, port or self.port, "root", default_table=table, **options)
        self._made.append(made)
        return made

    def run(self, *statements: str) -> None:
        with self.other.cursor() as cursor:
            for each in statements:
                cursor.execute(each)

    def rows(self, query: str = "SELECT * FROM t ORDER BY _id") -> list[tuple[Any, ...]]:
        with self.other.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())

    def numbers(self) -> list[int]:
        return [row[0] for row in self.rows("SELECT n FROM t ORDER BY place")]

    def close(self) -> None:
        for each in self._made:
            each.close(0)
            each.disconnect()
        self.other.close()


@pytest.fixture
def base(mariadb: Instance, mariadb_database: str) -> Iterator[Base]:
    made = Base(mariadb.port, mariadb_database.rpartition("/")[2])
    yield made
    made.close()


@pytest.fixture
def stream(base: Base) -> Callable[..., Story]:
    def make(port: int | None = None, **options: Any) -> Story:
        return Story(lambda **given: base.exporter(port=port, **given), base.numbers, **options)

    return make


class TestValues:
    def test_a_table_is_made_and_gives_back_what_was_sent(self, base: Base) -> None:
        zone = dt.timezone(dt.timedelta(hours=2))
        sent: dict[str, Any] = {
            "i": -(2**63), "f": 0.1 + 0.2, "s": "None 'x' %s \\ ß😀\0", "b": bytes(range(256)), "flag": True,
            "d": decimal.Decimal("1.10"), "when": dt.datetime(2024, 1, 2, 3, 4, 5, 678901),
            "zoned": dt.datetime(2024, 1, 2, 3, tzinfo=zone), "day": dt.date(2024, 2, 29), "at": dt.time(1, 2, 3, 4),
            "j": {"a": [1, None, "é"]}, "nothing": None, "nan": math.nan,
        }  # fmt: skip
        exporter = base.exporter(create_table_if_inexistent=True)
        assert reasons(exporter.export(batch(sent, {**sent, "nothing": 1}))) == {}
        names = [name for name in sent if name not in ("j", "nothing")]
        ((*found, j),) = base.rows(f"SELECT {', '.join(f'`{name}`' for name in names)}, j FROM t WHERE _id = '{RUN}-0'")
        expected = {
            **sent, "d": "1.10", "zoned": dt.datetime(2024, 1, 2, 1), "nan": None, "flag": 1,
            "at": dt.timedelta(hours=1, minutes=2, seconds=3, microseconds=4),
        }  # fmt: skip
        assert found == [expected[name] for name in names]
        assert json.loads(j) == sent["j"]

    def test_a_timestamp_is_in_utc_whatever_the_servers_zone(self, base: Base) -> None:
        base.run("CREATE TABLE t (_id varchar(64) PRIMARY KEY, at timestamp(6) NULL)")
        aware = dt.datetime(2024, 7, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
        assert reasons(base.exporter().export(batch({"at": aware}))) == {}
        base.run("SET time_zone = '+05:00'")
        assert base.rows("SELECT at FROM t") == [(dt.datetime(2024, 7, 1, 15),)]

    def test_nothing_is_cut_on_a_lenient_server(self, base: Base) -> None:
        # Given a server that would cut with a warning
        base.run("SET GLOBAL sql_mode = ''", "CREATE TABLE t (_id varchar(64) PRIMARY KEY, s varchar(3), n tinyint)")
        try:
            found = reasons(base.exporter().export(batch({"s": "abcd"}, {"n": 500}, {"s": "abc", "n": 5})))
        finally:
            base.run("SET GLOBAL sql_mode = DEFAULT")
        assert found.keys() == {0, 1}
        assert "Data too long" in found[0]
        assert base.rows("SELECT s, n FROM t") == [("abc", 5)]


class TestRefusals:
    def test_only_the_bad_rows_are_refused(self, base: Base) -> None:
        base.run("CREATE TABLE t (_id varchar(64) PRIMARY KEY, n int NOT NULL CHECK (n <> 13), u int UNIQUE)")
        datas: list[dict[str, Any]] = [{"n": n, "u": n} for n in range(100, 400)]
        bad: dict[int, tuple[dict[str, Any], str]] = {
            3: ({"n": None, "u": 1}, "null"),
            50: ({"n": 13, "u": 2}, "CONSTRAINT"),
            299: ({"n": 1, "u": 100}, "1062"),
        }
        for place, (data, _) in bad.items():
            datas[place] = data
        exporter = base.exporter()
        found = reasons(exporter.export(batch(*datas)))
        assert found.keys() == bad.keys()
        for place, (_, why) in bad.items():
            assert why in found[place]
        assert base.rows("SELECT count(*) FROM t") == [(297,)]
        assert reasons(exporter.export(batch({"n": 1, "u": 1}, start=1000))) == {}

    def test_upsert(self, base: Base) -> None:
        base.run("CREATE TABLE t (device varchar(9) PRIMARY KEY, n int, note varchar(9) DEFAULT 'kept')")
        exporter = base.exporter(upsert_on="device", id_column=None)
        assert reasons(exporter.export(batch(*[{"device": f"d{n % 3}", "n": n} for n in range(10)]))) == {}
        assert base.rows("SELECT * FROM t ORDER BY device") == [("d0", 9, "kept"), ("d1", 7, "kept"), ("d2", 8, "kept")]

    @pytest.mark.parametrize("key", ["PRIMARY KEY", ""])
    def test_a_batch_sent_again(self, base: Base, key: str) -> None:
        base.run(f"CREATE TABLE t (_id varchar(64) {key}, n int)")
        base.exporter().export(batch({"n": 1}, {"n": 2}))
        assert reasons(base.exporter().export(batch({"n": 1}, {"n": 2}, {"n": 3}, redelivered=True))) == {}
        assert [row[1] for row in base.rows()] == [1, 2, 3]


class TestPackets:
    """The server hangs up on a statement above max_allowed_packet, as if it were gone."""

    def test_a_row_that_no_packet_takes_is_a_dead_letter_and_the_others_arrive(self, own_server: OwnServer) -> None:
        server = own_server("mariadb", settings={"max_allowed_packet": "1M"})
        base = Base(server.port, "mysql")
        base.run("CREATE DATABASE d", "USE d", TABLE.replace("text text", "text longtext"))
        base.name = "d"
        rows = Story(base.exporter, base.numbers)
        for n in range(60):
            rows.exporter.send({"n": n, "text": "x" * 2_000_000 if n % 20 == 7 else "y" * 60_000})
        rows.watch.wait_for(60)
        letters = rows.letters()
        assert [letter.data["n"] for letter in letters] == [7, 27, 47]
        assert all("max_allowed_packet" in letter.reason for letter in letters)
        assert sorted(base.numbers()) == [n for n in range(60) if n % 20 != 7]  # full batches may overtake each other
        # And once the server takes more, they are replayed
        base.run("SET GLOBAL max_allowed_packet = 16777216")
        assert rows.exporter.replay() == 3
        rows.watch.wait_for(63)
        assert sorted(base.numbers()) == list(range(60))
        base.close()

    def test_rows_that_are_too_much_together_are_not_refused(self, own_server: OwnServer) -> None:
        server = own_server("mariadb", settings={"max_allowed_packet": "64K"})
        base = Base(server.port, "mysql")
        base.run("CREATE DATABASE d", "USE d", TABLE)
        base.name = "d"
        assert reasons(base.exporter().export(batch(*[{"n": n, "text": "'" * 10_000} for n in range(50)]))) == {}
        assert base.numbers() == list(range(50))
        base.close()


class TestAnswers:
    @pytest.mark.parametrize("number", [1205, 1213, 1021, 1040])
    def test_passing_troubles_are_tried_again(self, base: Base, stream: Any, number: int) -> None:
        # Given a trigger that fails the first insert; a MyISAM table is not rolled back
        base.run(
            TABLE, "CREATE TABLE tries (n int) ENGINE=MyISAM",
            "CREATE TRIGGER fail BEFORE INSERT ON t FOR EACH ROW BEGIN"
            " IF (SELECT count(*) FROM tries) = 0 THEN INSERT INTO tries VALUES (1);"
            f" SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'the first one fails'; END IF; END",
        )  # fmt: skip
        rows = stream()
        rows.send(150)
        rows.watch.wait_for_trouble()
        rows.all_arrive_once()

    def test_read_only_holds_until_it_is_not(self, own_server: OwnServer) -> None:
        server = own_server("mariadb", user="me", password="p@:/% ")
        base = Base(server.port, "mysql")
        base.run(
            "CREATE DATABASE d", "USE d", TABLE, "REVOKE ALL PRIVILEGES ON *.* FROM me@'%'", "SET GLOBAL read_only = 1"
        )
        base.run("GRANT ALL ON d.* TO me@'%'")
        exporter = MySQLExporter(HOST, "d", server.port, "me", "p@:/% ", "t")
        with pytest.raises(HoldError, match="read-only"):
            exporter.export(batch({"n": 1}))
        exporter.disconnect()
        base.run("SET GLOBAL read_only = 0")
        assert reasons(exporter.export(batch({"n": 1}, redelivered=True))) == {}
        exporter.disconnect()
        with pytest.raises(HoldError, match="check username and password") as caught:
            MySQLExporter(HOST, "d", server.port, "me", "wrong secret").connect()
        assert "secret" not in str(caught.value)
        with pytest.raises(HoldError, match="nonesuch"):
            MySQLExporter(HOST, "nonesuch", server.port, "root").connect()
        base.close()

    def test_a_killed_connection_is_replaced(self, base: Base, stream: Any) -> None:
        base.run(TABLE)
        rows = stream()
        rows.send(100)
        rows.watch.wait_for(100)
        for (number,) in base.rows(
            "SELECT id FROM information_schema.processlist WHERE id <> connection_id() AND db = database()"
        ):
            base.run(f"KILL {number}")
        rows.send(100)
        rows.all_arrive_once()

    def test_a_lock_that_is_held_too_long(self, base: Base) -> None:
        base.run("CREATE TABLE t (k int PRIMARY KEY, n int)", "INSERT INTO t VALUES (1, 0)")
        exporter = base.exporter(upsert_on="k", id_column=None, timeout=1)
        base.other.begin()
        base.run("UPDATE t SET n = 1")
        with pytest.raises(RetryableError):
            exporter.export(batch({"k": 1, "n": 2}))
        base.other.rollback()
        assert reasons(exporter.export(batch({"k": 1, "n": 2}, redelivered=True))) == {}
