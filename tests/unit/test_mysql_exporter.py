"""MySQLExporter without a server: construction, statements, errors."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from resilient_exporters.errors import HoldError, InvalidConfigError, MissingConfigError, RejectedError, RetryableError
from resilient_exporters.exporters.mysql import MySQLExporter
from resilient_exporters.exporters.mysql_session import session
from resilient_exporters.exporters.sql_errors import judge, outcome_error
from resilient_exporters.exporters.sql_table import KnownTable, TableOptions
from resilient_exporters.urls import from_url
from tests.servers.provision.server import free_port


class TestConstruction:
    def test_the_positions(self) -> None:
        exporter = MySQLExporter("h", "d", 3307, "u", "p@:/% ", "t", True)
        assert exporter.address() == "mysql://h:3307/d#t"
        assert exporter._database._url.password == "p@:/% "
        assert "p@" not in exporter.name
        assert exporter._schema._options.create is True

    def test_without_a_host(self) -> None:
        with pytest.raises(MissingConfigError, match="target_host"):
            MySQLExporter("")

    def test_a_port_that_is_none(self) -> None:
        with pytest.raises(InvalidConfigError, match="target_port"):
            MySQLExporter("h", target_port=0)

    def test_a_record_without_a_table_is_refused_in_send(self) -> None:
        exporter = MySQLExporter("h")
        with pytest.raises(MissingConfigError, match="default_table"):
            exporter.send({"a": 1})
        exporter.close()

    @pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+pymysql"])
    def test_from_url(self, scheme: str) -> None:
        made = from_url(f"{scheme}://u:p%40@h:3307/d?table=t&ssl_ca=/etc/ca.pem&batch_records=50")
        assert isinstance(made, MySQLExporter)
        assert made.address() == "mysql://h:3307/d#t"
        assert made._session().arguments["ssl_ca"] == "/etc/ca.pem"
        assert made._database._url.password == "p@"

    def test_a_server_that_is_away_is_an_outage(self) -> None:
        with pytest.raises(RetryableError):
            MySQLExporter("127.0.0.1", "d", free_port(), "u", "p", "t").connect()

    def test_time_limits(self) -> None:
        found = session({"charset": "latin1"}, 30.0).arguments
        assert found == {"charset": "latin1", "connect_timeout": 10, "read_timeout": 30, "write_timeout": 30}
        assert session({}, 0.0).arguments == {"charset": "utf8mb4"}


class TestStatements:
    def test_names_are_quoted_and_upsert_is_on_duplicate_key(self) -> None:
        columns: list[sa.Column[Any]] = [sa.Column("k", sa.String(9), primary_key=True), sa.Column("a`b", sa.Integer)]
        table = KnownTable(sa.Table("t", sa.MetaData(), *columns), mysql.dialect(), TableOptions())
        form = table.form(("k", "a`b"), ("k",), pack=False)
        assert form.insert.startswith("INSERT INTO t (k, `a``b`) VALUES (")
        assert "ON DUPLICATE KEY UPDATE `a``b` = values(`a``b`)" in form.insert


class TestErrors:
    @pytest.mark.parametrize(
        ("number", "outcome"),
        [
            (1205, RetryableError), (1213, RetryableError), (2006, RetryableError), (2013, RetryableError),
            (1040, RetryableError), (1021, RetryableError), (1053, RetryableError),
            (1290, HoldError), (1836, HoldError), (1045, HoldError), (1049, HoldError), (1142, HoldError),
            (1062, RejectedError), (1048, RejectedError), (1406, RejectedError),
            (1452, RejectedError), (4025, RejectedError),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("dialect", ["mysql", "mariadb"])
    def test_what_a_number_means(self, number: int, outcome: type[Exception], dialect: str) -> None:
        error: Any = Exception(number, "…")
        assert type(outcome_error(error, judge(error, dialect), "there")) is outcome
