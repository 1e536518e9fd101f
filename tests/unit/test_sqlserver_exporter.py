"""SQLServerExporter without a server, since none can be had: construction, statements, types, errors."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mssql

from resilient_exporters.errors import HoldError, InvalidConfigError, MissingConfigError, RejectedError, RetryableError
from resilient_exporters.exporters.sql_columns import column_type
from resilient_exporters.exporters.sql_errors import judge, outcome_error
from resilient_exporters.exporters.sql_table import KnownTable, TableOptions
from resilient_exporters.urls import from_url
from tests.servers.provision.server import free_port
from tests.unit.sql_bench import batch

pytest.importorskip("pymssql", reason="no wheel for this machine")

from resilient_exporters.exporters.sqlserver import SQLServerExporter


class TestConstruction:
    def test_the_positions_of_the_documents(self) -> None:
        exporter = SQLServerExporter("h", "d", 1434, "u", "p@:/% ", "t", True)
        assert exporter.address() == "mssql://h:1434/d#t"
        assert exporter._database._url.password == "p@:/% "
        assert exporter._schema._options.create is True

    def test_without_a_host(self) -> None:
        with pytest.raises(MissingConfigError, match="target_host"):
            SQLServerExporter("")

    def test_an_unknown_driver(self) -> None:
        with pytest.raises(InvalidConfigError, match="pymssql"):
            SQLServerExporter("h", driver="adodbapi")  # type: ignore[arg-type] # that is the error

    def test_a_record_without_a_table_is_refused_in_send(self) -> None:
        exporter = SQLServerExporter("h")
        with pytest.raises(MissingConfigError, match="default_table"):
            exporter.send({"a": 1})
        exporter.close()

    @pytest.mark.parametrize("scheme", ["mssql", "sqlserver", "mssql+pymssql"])
    def test_from_url(self, scheme: str) -> None:
        made = from_url(f"{scheme}://u:p%40@h:1434/d?table=t&timeout=5")
        assert isinstance(made, SQLServerExporter)
        assert made.address() == "mssql://h:1434/d#t"
        assert made._database._url.password == "p@"

    def test_time_limits(self) -> None:
        assert SQLServerExporter("h", timeout=30)._session().arguments["timeout"] == 30
        assert SQLServerExporter("h", timeout=30)._session().arguments["login_timeout"] == 10
        assert "timeout" not in SQLServerExporter("h", timeout=0)._session().arguments

    def test_pyodbc(self) -> None:
        pytest.importorskip("pyodbc", exc_type=ImportError, reason="needs unixODBC")
        made = SQLServerExporter("h", "d", driver="pyodbc", driver_options={"Encrypt": "yes"})
        assert made._database._url.query == {"driver": "ODBC Driver 18 for SQL Server", "Encrypt": "yes"}
        assert made._session().engine == {"fast_executemany": True}

    def test_a_server_that_is_away_is_an_outage(self) -> None:
        exporter = SQLServerExporter("127.0.0.1", "d", free_port(), "u", "p", "t", timeout=2)
        with pytest.raises(RetryableError):
            exporter.connect()


def newest() -> Any:
    """The dialect as a connection to SQL Server 2022 leaves it: without one it knows neither DATE nor NVARCHAR(max)."""
    dialect: Any = mssql.dialect()
    dialect.server_version_info = (16, 0, 1000, 6)
    dialect._setup_version_attributes()
    return dialect


def known(*columns: sa.Column[Any], **options: Any) -> KnownTable:
    return KnownTable(sa.Table("readings", sa.MetaData(), *columns), newest(), TableOptions(**options))


class TestStatements:
    def test_insert_and_the_question_what_is_there(self) -> None:
        table = known(sa.Column("_id", sa.String(64), primary_key=True), sa.Column("a b", sa.Integer))
        form = table.form(("a b",), (), pack=False)
        assert form.insert.startswith("INSERT INTO readings (_id, [a b]) VALUES (")
        asked = str(form.known.compile(dialect=newest()))  # type: ignore[union-attr] # it is there
        assert asked.startswith("SELECT readings._id")
        assert "WHERE readings._id IN (" in asked

    def test_upsert_is_an_update_and_else_an_insert(self) -> None:
        table = known(sa.Column("device", sa.String(9), primary_key=True), sa.Column("n", sa.Integer))
        form = table.form(("device", "n"), ("device",), pack=False)
        update = str(form.update.compile(dialect=newest()))  # type: ignore[union-attr] # it is there
        assert "UPDATE readings SET n=" in update
        assert "WHERE readings.device = " in update
        assert form.insert.startswith("INSERT INTO readings (device, n) VALUES (")

    @pytest.mark.parametrize(
        ("kind", "text"),
        [
            ("int", "BIGINT"), ("bigint", "NVARCHAR(max)"), ("float", "DOUBLE PRECISION"), ("bool", "BIT"),
            ("decimal", "NVARCHAR(max)"), ("text", "NVARCHAR(max)"), ("datetime", "DATETIME2"), ("date", "DATE"),
            ("datetimetz", "DATETIMEOFFSET"), ("uuid", "UNIQUEIDENTIFIER"),
            ("binary", "VARBINARY(max)"), ("time", "TIME"), ("json", "NVARCHAR(max)"), ("interval", "DOUBLE PRECISION"),
        ],
    )  # fmt: skip
    def test_types(self, kind: str, text: str) -> None:
        assert column_type(kind, "mssql").compile(dialect=newest()) == text

    def test_an_aware_time_goes_into_datetime2_in_utc(self) -> None:
        table = known(sa.Column("at", mssql.DATETIME2()), id_column=None)
        zone = dt.timezone(dt.timedelta(hours=2))
        assert table.columns["at"].column([dt.datetime(2024, 1, 2, 3, tzinfo=zone)]) == [dt.datetime(2024, 1, 2, 1)]


class TestErrors:
    @pytest.mark.parametrize(
        ("number", "outcome"),
        [
            (1205, RetryableError), (1222, RetryableError), (40197, RetryableError), (40501, RetryableError),
            (40613, RetryableError), (9002, RetryableError), (20009, RetryableError), (1105, RetryableError),
            (18456, HoldError), (4060, HoldError), (229, HoldError), (3906, HoldError), (40615, HoldError),
            (208, HoldError), (207, HoldError),
            (2627, RejectedError), (2601, RejectedError), (515, RejectedError), (547, RejectedError),
            (8152, RejectedError), (2628, RejectedError), (8115, RejectedError), (245, RejectedError),
        ],
    )  # fmt: skip
    def test_what_a_number_means(self, number: int, outcome: type[Exception]) -> None:
        for error in (
            Exception(number, b"text"),  # pymssql
            Exception("42000", f"[42000] [Microsoft][ODBC Driver 18 for SQL Server] text ({number}) (SQLExecDirectW)"),
        ):
            assert type(outcome_error(error, judge(error, "mssql"), "there")) is outcome

    def test_a_batch_for_a_server_that_is_away_waits(self) -> None:
        exporter = SQLServerExporter("127.0.0.1", "d", free_port(), "u", "p", "t", timeout=2)
        with pytest.raises(RetryableError):
            exporter.export(batch({"a": 1}))
