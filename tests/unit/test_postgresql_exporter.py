"""PostgreSQLExporter without a server: construction, what fits a column, texts, statements, errors."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import psycopg

from resilient_exporters.errors import DataTypeError, InvalidConfigError, MissingConfigError
from resilient_exporters.exporters.postgresql import PostgreSQLExporter
from resilient_exporters.exporters.postgresql_columns import PostgreSQLCodec
from resilient_exporters.exporters.postgresql_copy import _make
from resilient_exporters.exporters.postgresql_session import session
from resilient_exporters.exporters.postgresql_text import copy_text
from resilient_exporters.exporters.sql_errors import judge, outcome_error, reason
from resilient_exporters.urls import from_url

UTC = dt.timezone.utc


class TestConstruction:
    def test_the_keywords_of_the_documents(self) -> None:
        exporter = PostgreSQLExporter(
            target_host="db.example",
            database="plant",
            target_port=5433,
            username="u",
            password="p@:/%",
            default_table="t",
        )
        assert exporter.address() == "postgresql://db.example:5433/plant#t"
        assert exporter._parameters == {
            "host": "db.example", "dbname": "plant", "port": 5433, "user": "u", "password": "p@:/%",
        }  # fmt: skip
        assert "p@" not in exporter.name

    def test_the_positions_of_the_documents(self) -> None:
        exporter = PostgreSQLExporter(None, "h", "d", 5433, "u", "p", "t", True)
        assert exporter.address() == "postgresql://h:5433/d#t"
        assert exporter._schema._options.create is True

    @pytest.mark.parametrize(
        "text",
        [
            "host=h port=6000 dbname=d user=u password='p q' sslmode=require",
            "postgresql://u:p%20q@h:6000/d?sslmode=require",
            "postgres://u:p%20q@h:6000/d?sslmode=require",
            "postgresql+psycopg://u:p%20q@h:6000/d?sslmode=require",
        ],
    )
    def test_connection_strings(self, text: str) -> None:
        exporter = PostgreSQLExporter(text, default_table="t")
        assert exporter.address() == "postgresql://h:6000/d#t"
        assert exporter._parameters["password"] == "p q"
        assert exporter._parameters["sslmode"] == "require"

    def test_a_name_wins_over_the_connection_string(self) -> None:
        exporter = PostgreSQLExporter("host=a dbname=d port=6000 user=u", "b", target_port=7000)
        assert exporter.address() == "postgresql://b:7000/d"

    def test_several_hosts(self) -> None:
        exporter = PostgreSQLExporter("host=a,b port=1,2 dbname=d target_session_attrs=read-write")
        assert "a,b" in exporter.address()

    def test_without_a_place(self) -> None:
        with pytest.raises(MissingConfigError, match="target_host"):
            PostgreSQLExporter()

    def test_a_connection_string_that_is_none_is_not_shown(self) -> None:
        with pytest.raises(InvalidConfigError, match="host=… dbname=…") as caught:
            PostgreSQLExporter("secret words")
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("port", [0, 70000, "x"])
    def test_a_port_that_is_none(self, port: Any) -> None:
        with pytest.raises(InvalidConfigError, match="target_port"):
            PostgreSQLExporter(target_host="h", target_port=port)

    def test_a_record_without_a_table_is_refused_in_send(self) -> None:
        exporter = PostgreSQLExporter(target_host="h", database="d")
        with pytest.raises(MissingConfigError, match="default_table"):
            exporter.send({"a": 1})
        exporter.close()

    def test_with_a_table_send_does_not_look(self) -> None:
        assert PostgreSQLExporter(target_host="h", default_table="t").checks is False

    def test_from_url(self) -> None:
        made = from_url("postgresql://u:p%40@h:6000/d?table=t&sslmode=disable&new_columns=ignore&timeout=5")
        assert isinstance(made, PostgreSQLExporter)
        assert made.address() == "postgresql://h:6000/d#t"
        assert made._parameters["password"] == "p@"
        assert made._parameters["sslmode"] == "disable"
        assert made.timeout == 5.0
        assert isinstance(from_url("postgres://h/d"), PostgreSQLExporter)

    def test_from_url_with_an_unknown_option(self) -> None:
        with pytest.raises(InvalidConfigError, match="sslmode"):
            from_url("postgresql://h/d?sslmod=disable")


class TestSession:
    def test_the_time_limits_follow_from_timeout(self) -> None:
        found = session({"host": "h"}, 30.0)
        assert found.arguments["connect_timeout"] == 10
        assert found.arguments["keepalives_idle"] == 30
        assert found.arguments["tcp_user_timeout"] == 30_000
        assert found.arguments["host"] == "h"
        assert found.prepare.args[0]["statement_timeout"] == "30000"  # type: ignore[union-attr] # it is there

    def test_what_the_user_says_wins(self) -> None:
        found = session({"connect_timeout": "3", "options": "-c statement_timeout=7"}, 30.0)
        assert found.arguments["connect_timeout"] == "3"
        assert "statement_timeout" not in found.prepare.args[0]  # type: ignore[union-attr] # it is there

    def test_no_limit(self) -> None:
        assert "connect_timeout" not in session({}, 0.0).arguments


def codec(kind: Any, *, nullable: bool = True, strict: bool = True) -> PostgreSQLCodec:
    return PostgreSQLCodec(sa.Column("c", kind, nullable=nullable), psycopg.dialect(), "null", strict)


class TestWhatFits:
    @pytest.mark.parametrize(
        ("kind", "value", "why"),
        [
            (sa.SmallInteger(), 2**15, "bytes"),
            (sa.Integer(), -(2**31) - 1, "bytes"),
            (sa.BigInteger(), 2**63, "64 bits"),
            (sa.Integer(), 1.5, "fraction"),
            (sa.Integer(), "x", "number"),
            (sa.Integer(), {"a": 1}, "number"),
            (sa.String(3), "abcd", "4 characters"),
            (sa.Text(), "a\0b", "NUL"),
            (sa.Text(), b"abc", "bytes"),
            (sa.Boolean(), 2, "true"),
            (sa.Boolean(), "yes", "true"),
            (sa.Double(), "1.x", "number"),
            (sa.DateTime(), 5, "datetime"),
            (sa.Date(), dt.datetime(2024, 1, 2, 3), "part"),
            (sa.Time(), dt.datetime(2024, 1, 2, 3), "part"),
            (sa.Time(), dt.time(1, tzinfo=UTC), "offset"),
            (sa.Interval(), True, "span"),
            (sa.Uuid(), "no", "UUID"),
            (sa.LargeBinary(), "text", "bytes"),
            (sa.ARRAY(sa.Integer()), 5, "list"),
            (sa.ARRAY(sa.Integer()), [1, 2**40], "bytes"),
            (postgresql.ENUM("sad", "ok", name="mood"), "glad", "ok, sad"),
        ],
    )
    def test_refused_with_column_and_reason(self, kind: Any, value: Any, why: str) -> None:
        with pytest.raises(DataTypeError, match=why) as caught:
            codec(kind).column([value])
        assert "'c'" in str(caught.value)

    @pytest.mark.parametrize(
        ("kind", "value", "found"),
        [
            (sa.Integer(), True, 1),
            (sa.Integer(), "7", 7),
            (sa.Integer(), decimal.Decimal(7), 7),
            (sa.Numeric(), 0.1, decimal.Decimal("0.1")),
            (sa.Numeric(), 10**30, decimal.Decimal(10**30)),
            (sa.Numeric(), math.inf, decimal.Decimal("Infinity")),
            (sa.Double(), 7, 7.0),
            (sa.Double(), "2.5", 2.5),
            (sa.Text(), 7, "7"),
            (sa.Text(), True, "true"),
            (sa.Boolean(), 1, True),
            (sa.Date(), dt.datetime(2024, 1, 2), dt.date(2024, 1, 2)),
            (
                sa.DateTime(),
                dt.datetime(2024, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))),
                dt.datetime(2024, 1, 1, 22),
            ),
            (sa.DateTime(timezone=True), dt.datetime(2024, 1, 2, tzinfo=UTC), dt.datetime(2024, 1, 2, tzinfo=UTC)),
            (sa.Interval(), 1.5, dt.timedelta(seconds=1.5)),
            (sa.JSON(), {"a": [1, math.nan]}, '{"a":[1,null]}'),
            (postgresql.JSONB(), "x", '"x"'),
            (sa.ARRAY(sa.Double()), (1, 2.5), [1.0, 2.5]),
            (sa.ARRAY(sa.Integer()), [[1, None], [2, 3]], [[1, None], [2, 3]]),
            (sa.ARRAY(postgresql.JSONB()), [{"a": 1}, [2]], ['{"a":1}', "[2]"]),
            (postgresql.INET(), "10.0.0.1", "10.0.0.1"),
            (postgresql.INT4RANGE(), "[1,5)", "[1,5)"),
            (postgresql.ENUM("sad", "ok", name="mood"), "ok", "ok"),
        ],
    )
    def test_adapted(self, kind: Any, value: Any, found: Any) -> None:
        (made,) = codec(kind).column([value])
        assert made == found
        assert type(made) is type(found)

    def test_none_where_there_must_be_a_value(self) -> None:
        with pytest.raises(DataTypeError, match="must have a value"):
            codec(sa.Text(), nullable=False).column(["x", None])
        # And where a trigger may fill it in, the server is asked
        assert codec(sa.Text(), nullable=False, strict=False).column(["x", None]) == ["x", None]

    def test_a_column_that_fits_is_left_as_it_is(self) -> None:
        values = ["a", None, "b"]
        assert codec(sa.String(1)).column(values) is values


class TestCopyText:
    def test_every_kind_of_value(self) -> None:
        text = copy_text([
            ["a\tb\\c\nd\r", None, "NULL", "\\N"],
            [1, None, -5, 2**70],
            [0.1, None, math.inf, math.nan],
            [True, None, False, True],
            [b"\x00\xff", None, b"", b"a"],
            [dt.datetime(987, 1, 2, 3, 4, 5, 6, tzinfo=UTC), None, dt.datetime.max.replace(tzinfo=UTC), None],
            [dt.timedelta(days=-1, microseconds=5), None, dt.timedelta(0), None],
            [None] * 4,
        ])  # fmt: skip
        assert text is not None
        assert text.decode().split("\n") == [
            "a\\tb\\\\c\\nd\\r\t1\t0.1\tt\t\\\\x00ff\t0987-1-2 3:4:5.000006+00\t-1d 0s 5us\t\\N",
            "\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N",
            "NULL\t-5\tinf\tf\t\\\\x\t9999-12-31 23:59:59.999999+00\t0d 0s 0us\t\\N",
            "\\\\N\t" + str(2**70) + "\tnan\tt\t\\\\x61\t\\N\t\\N\t\\N",
            "",
        ]

    def test_what_only_psycopg_knows(self) -> None:
        assert copy_text([[1], [[1, 2]]]) is None
        assert copy_text([[1, 2.5]]) is None

    def test_others(self) -> None:
        assert copy_text([[decimal.Decimal("1E+3")], [uuid.UUID(int=1)], [dt.date(2024, 1, 2)], [dt.time(1)]]) == (
            b"1E+3\t00000000-0000-0000-0000-000000000001\t2024-01-02\t01:00:00\n"
        )


class TestStatements:
    def test_names_are_names_only(self) -> None:
        made = _make(None, 'x"; drop table v;--', ("_id", "50%", "a b"), (), "_id", "_id", ("TEXT", "TEXT"))
        assert made.copy == 'COPY "x""; drop table v;--" (_id, "50%", "a b") FROM STDIN'
        assert made.known == 'SELECT _id FROM "x""; drop table v;--" WHERE _id = ANY (%s)'
        assert "ON CONFLICT (_id) DO NOTHING" in made.move

    def test_upsert(self) -> None:
        made = _make("s", "t", ("_id", "k", "v"), ("k",), None, "_id", ("TEXT", "TEXT"))
        assert made.copy == "COPY s.t (_id, k, v) FROM STDIN"
        assert "ON CONFLICT (k) DO UPDATE SET _id = excluded._id, v = excluded.v" in made.move
        # And a table that was changed is staged in another one
        assert _make("s", "t", ("_id", "k", "v"), ("k",), None, "_id", ("TEXT", "INTEGER")).stage != made.stage

    def test_upsert_on_all_columns(self) -> None:
        assert "ON CONFLICT (k) DO NOTHING" in _make(None, "t", ("k",), ("k",), None, None, ("TEXT",)).move


class TestErrors:
    def test_a_reason_has_no_context(self) -> None:
        class Diag:
            sqlstate = "22P02"
            message_primary = "invalid input syntax"
            message_detail = "secret row"

        error = Exception("invalid input syntax\nCONTEXT: COPY t, line 1: secret row")
        error.diag = Diag()  # type: ignore[attr-defined] # as psycopg sets it
        assert reason(error) == "Exception: invalid input syntax"
        Diag.sqlstate = "23505"
        Diag.message_detail = "Key (a)=(1) already exists."
        assert reason(error) == "Exception: invalid input syntax: Key (a)=(1) already exists."

    @pytest.mark.parametrize(
        ("sqlstate", "outcome"),
        [
            ("40P01", "RetryableError"),
            ("40001", "RetryableError"),
            ("53100", "RetryableError"),
            ("53300", "RetryableError"),
            ("57P01", "RetryableError"),
            ("25P03", "RetryableError"),
            ("25006", "HoldError"),
            ("28P01", "HoldError"),
            ("3D000", "HoldError"),
            ("42501", "HoldError"),
            ("428C9", "RejectedError"),
            ("22P05", "RejectedError"),
        ],
    )
    def test_what_a_code_means(self, sqlstate: str, outcome: str) -> None:
        error = Exception("…")
        error.sqlstate = sqlstate  # type: ignore[attr-defined] # as psycopg sets it
        assert type(outcome_error(error, judge(error, "postgresql"), "there")).__name__ == outcome
