"""PostgreSQL and MariaDB."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psycopg
import pymysql

from tests.servers.destinations.destination import PASSWORD, Destination
from tests.servers.provision import HOST
from tests.servers.small_disk import SmallDisk


class PostgreSQL(Destination):
    """PostgreSQL, by an account that may insert."""

    name = "postgresql"
    cls = "PostgreSQLExporter"
    answer = 60  # a part of the answer to COMMIT

    def started(self) -> None:
        self.server = self._own_server("postgresql", user="admin", password=PASSWORD)
        self._run(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")

    def fresh(self, name: str) -> None:
        self._run(f"CREATE DATABASE {name}")
        self._run(
            "CREATE TABLE t (_id varchar(64) PRIMARY KEY, place serial, n bigint, text text)",
            "GRANT SELECT, INSERT ON t TO app",
            "GRANT USAGE ON SEQUENCE t_place_seq TO app",
            database=name,
        )

    def options(self) -> dict[str, Any]:
        return {
            "target_host": HOST, "target_port": self.link.port, "username": "app", "password": PASSWORD,
            "database": self.place, "default_table": "t",
        }  # fmt: skip

    def numbers(self) -> list[int]:
        with self._connected(self.place) as connection:
            return [row[0] for row in connection.execute("SELECT n FROM t ORDER BY place").fetchall()]

    def _connected(self, database: str) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(
            host=HOST, port=self.server.port, user="admin", password=PASSWORD, dbname=database, autocommit=True
        )

    def _run(self, *statements: str, database: str = "postgres") -> None:
        with self._connected(database) as connection:
            for each in statements:
                connection.execute(each.encode())

    def _again(self) -> None:
        self._run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.place}'")

    def wrong_password(self, wrong: bool) -> None:
        self._run(f"ALTER ROLE app PASSWORD '{'another' if wrong else PASSWORD}'")
        self._again()

    def missing_right(self, wrong: bool) -> None:
        change = "REVOKE INSERT ON t FROM" if wrong else "GRANT INSERT ON t TO"
        self._run(f"{change} app", database=self.place)

    def missing_place(self, wrong: bool) -> None:
        """A database that is not there."""
        names = (self.place, f"{self.place}_gone")
        if wrong:
            self.link.cut()
            self._again()
        self._run("ALTER DATABASE {} RENAME TO {}".format(*(names if wrong else reversed(names))))
        if wrong:
            self.link.mend()

    def read_only(self, wrong: bool) -> None:
        self._run(f"ALTER DATABASE {self.place} SET default_transaction_read_only = {'on' if wrong else 'off'}")
        self._again()

    def overload(self, wrong: bool) -> None:
        """Too many connections: it takes none of this account."""
        self._run(f"ALTER ROLE app CONNECTION LIMIT {0 if wrong else -1}")
        self._again()

    def full_disk(self, wrong: bool) -> None:
        """The disk with the table."""
        if self.disk is None:
            self.disk = SmallDisk(self.server.data / "small", 64, owner="postgres")
            self._run(f"CREATE TABLESPACE small LOCATION '{self.disk.folder}'")
        if wrong:
            self._run("ALTER TABLE t SET TABLESPACE small", database=self.place)
            self.disk.fill()
        else:
            self.disk.free()


class MariaDB(Destination):
    """MariaDB, by an account that may insert."""

    name = "mariadb"
    cls = "MySQLExporter"
    answer = 60  # a part of the answer to COMMIT

    def started(self) -> None:
        self.server = self._own_server("mariadb")
        self._run(f"CREATE USER app@'%' IDENTIFIED BY '{PASSWORD}'")

    def fresh(self, name: str) -> None:
        self._run(
            f"CREATE DATABASE {name}",
            f"CREATE TABLE {name}.t (_id varchar(64) PRIMARY KEY, place int NOT NULL AUTO_INCREMENT UNIQUE, n bigint,"
            " text text)",
            f"GRANT SELECT, INSERT ON {name}.* TO app@'%'",
        )

    def options(self) -> dict[str, Any]:
        return {
            "target_host": HOST, "target_port": self.link.port, "username": "app", "password": PASSWORD,
            "database": self.place, "default_table": "t",
        }  # fmt: skip

    def numbers(self) -> list[int]:
        return [row[0] for row in self._run(f"SELECT n FROM {self.place}.t ORDER BY place")]

    def _run(self, *statements: str) -> Sequence[tuple[Any, ...]]:
        with pymysql.connect(host=HOST, port=self.server.port, user="root", autocommit=True) as connection:
            cursor = connection.cursor()
            for each in statements:
                cursor.execute(each)
            return cursor.fetchall()

    def _again(self) -> None:
        for (number,) in self._run("SELECT id FROM information_schema.processlist WHERE user = 'app'"):
            with suppress(pymysql.err.OperationalError):  # it has just gone by itself
                self._run(f"KILL {number}")

    def wrong_password(self, wrong: bool) -> None:
        self._run(f"ALTER USER app@'%' IDENTIFIED BY '{'another' if wrong else PASSWORD}'")
        self._again()

    def missing_right(self, wrong: bool) -> None:
        change = "REVOKE INSERT ON {}.* FROM" if wrong else "GRANT INSERT ON {}.* TO"
        self._run(f"{change.format(self.place)} app@'%'")
        self._again()

    def missing_place(self, wrong: bool) -> None:
        """A table that is not there."""
        names = (f"{self.place}.t", f"{self.place}.gone")
        self._run("RENAME TABLE {} TO {}".format(*(names if wrong else reversed(names))))

    def read_only(self, wrong: bool) -> None:
        self._run(f"SET GLOBAL read_only = {int(wrong)}")
