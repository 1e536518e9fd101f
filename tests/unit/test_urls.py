"""from_url: schemes, places, options."""

from __future__ import annotations

import importlib.metadata
import inspect
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters import urls
from resilient_exporters.delivery.outcome import Batch, Record
from resilient_exporters.errors import InvalidConfigError, MissingModuleError
from resilient_exporters.exporter import Exporter
from resilient_exporters.exporters.parsed_url import ParsedURL
from resilient_exporters.exporters.sql import SQLExporter
from resilient_exporters.urls import build, from_url, schemes


class Sample(Exporter):
    """Keeps what it was made with."""

    kind = "sample"

    def __init__(
        self,
        target_file: str | Path,
        max_lines: int | None = None,
        append: bool = True,
        *,
        rate: float | None = None,
        size: int | str = "1 MB",
        label: str | None = None,
        columns: Sequence[str] = (),
        upsert_on: str | Sequence[str] | None = None,
        hook: Callable[[], None] | None = None,
        table: Mapping[str, int] | None = None,
        untyped=3,
        **options: Any,
    ) -> None:
        self.given = {name: value for name, value in locals().items() if name not in ("self", "__class__", "options")}
        self.options = options
        super().__init__(**options)


class Server(Exporter):
    kind = "server"

    def __init__(
        self, target_host: str, target_port: int = 99, username: str | None = None, password: str | None = None,
        database: str | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self.given = (target_host, target_port, username, password, database)
        super().__init__(**options)


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schemes of this module, as another package would register them."""
    module = types.ModuleType("sample_plugin")
    module.Sample = Sample  # type: ignore[attr-defined]  # made here
    module.Server = Server  # type: ignore[attr-defined]  # made here
    module.factory = lambda parsed, options: Sample(f"made of {parsed.path}", **options)  # type: ignore[attr-defined]
    module.wrong = lambda parsed, options: 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sample_plugin", module)
    points = [
        importlib.metadata.EntryPoint(name, f"sample_plugin:{what}", urls.GROUP)
        for name, what in [("sample", "Sample"), ("server", "Server"), ("made", "factory"), ("wrong", "wrong")]
    ]
    points.append(importlib.metadata.EntryPoint("gone", "a_module_that_is_not_there:X", urls.GROUP))
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points if group == urls.GROUP else [])


def sample(url: str, **options: Any) -> Sample:
    made = from_url(url, **options)
    assert isinstance(made, Sample)
    return made


class TestOptions:
    @pytest.mark.parametrize(
        ("query", "name", "value"),
        [
            ("max_lines=1000", "max_lines", 1000),
            ("max_lines=", "max_lines", None),
            ("max_lines=none", "max_lines", None),
            ("append=false", "append", False),
            ("append=1", "append", True),
            ("append=Off", "append", False),
            ("rate=0.5", "rate", 0.5),
            ("rate=2", "rate", 2.0),
            ("size=16 MB", "size", "16 MB"),
            ("size=16+MB", "size", "16 MB"),
            ("size=1024", "size", 1024),
            ("label=12", "label", "12"),
            ("label=none", "label", "none"),
            ("label=", "label", None),
            ("label=a%26b%3D%C3%A9", "label", "a&b=é"),
            ("columns=a,b", "columns", ["a", "b"]),
            ("upsert_on=a", "upsert_on", "a"),
            ("untyped=5", "untyped", 5),
        ],
    )
    def test_values_follow_the_annotations(self, query: str, name: str, value: Any) -> None:
        made = sample(f"sample:///x.jsonl?{query}")
        assert made.given[name] == value
        assert type(made.given[name]) is type(value)

    def test_the_path_is_the_place(self) -> None:
        assert sample("sample:///var/log/x%20y.jsonl").given["target_file"] == "/var/log/x y.jsonl"
        assert sample("sample:rel/x.jsonl").given["target_file"] == "rel/x.jsonl"
        assert sample("sample://localhost/x").given["target_file"] == "/x"
        assert sample("sample:///C:/x.jsonl").given["target_file"] == "C:/x.jsonl"
        assert sample("SAMPLE:///x#1").given["target_file"] == "/x#1"

    def test_options_of_the_base_class(self) -> None:
        assert sample("sample:///x?timeout=5").options == {"timeout": 5.0}

    def test_keywords_win_and_may_be_anything(self) -> None:
        def hook() -> None: ...

        made = sample("sample:///x?max_lines=5", max_lines=7, hook=hook)
        assert made.given["max_lines"] == 7
        assert made.given["hook"] is hook

    def test_a_wrong_name_gets_a_hint(self) -> None:
        with pytest.raises(InvalidConfigError, match=r"no option 'max_line'; did you mean 'max_lines'\?"):
            from_url("sample:///x?max_line=5")

    def test_a_name_like_nothing_gets_the_list(self) -> None:
        with pytest.raises(InvalidConfigError, match="there are: append"):
            from_url("sample:///x?zzzzqq=5")

    def test_the_place_is_not_an_option(self) -> None:
        with pytest.raises(InvalidConfigError, match="no option 'target_file'"):
            from_url("sample:///x?target_file=y")

    @pytest.mark.parametrize("query", ["max_lines=many", "append=perhaps", "rate=fast", "max_lines=1.5"])
    def test_a_wrong_value_is_named(self, query: str) -> None:
        name, _, text = query.partition("=")
        with pytest.raises(InvalidConfigError, match=f"{name}='{text}': must be"):
            from_url(f"sample:///x?{query}")

    def test_what_a_url_cannot_say(self) -> None:
        with pytest.raises(InvalidConfigError, match="pass it as a keyword"):
            from_url("sample:///x?hook=print")

    def test_twice_is_once_too_many(self) -> None:
        with pytest.raises(InvalidConfigError, match="'max_lines' is given twice"):
            from_url("sample:///x?max_lines=1&max_lines=2")


class TestPlaces:
    def test_host_port_account_and_database(self) -> None:
        made = from_url("server://me:p%40ss@db.local:1234/main/sub")
        assert isinstance(made, Server)
        assert made.given == ("db.local", 1234, "me", "p@ss", "main")

    def test_what_is_not_there_is_left_to_the_defaults(self) -> None:
        made = from_url("server://db")
        assert isinstance(made, Server)
        assert made.given == ("db", 99, None, None, None)

    def test_no_message_holds_the_password(self) -> None:
        with pytest.raises(InvalidConfigError) as caught:
            from_url("server://me:secret@db/main?nonsense=secret")
        assert "secret" not in str(caught.value)
        assert "secret" not in repr(ParsedURL.parse("server://me:secret@db/?token=secret"))

    @pytest.mark.parametrize("url", ["", "no-scheme", "/var/log/x", "://x", "server://db:port/"])
    def test_what_is_no_url(self, url: str) -> None:
        with pytest.raises(InvalidConfigError, match="url"):
            from_url(url)

    @pytest.mark.parametrize("url", ["sample://x.jsonl", "sample://dir/x.jsonl"])
    def test_two_slashes_make_a_host(self, url: str) -> None:
        with pytest.raises(InvalidConfigError, match="sample:///"):
            from_url(url)

    def test_no_path(self) -> None:
        with pytest.raises(InvalidConfigError, match="has no path"):
            from_url("sample://")


class TestSchemes:
    def test_an_unknown_one_lists_what_there_is(self) -> None:
        with pytest.raises(
            InvalidConfigError, match=r"no exporter for 'sqlit'; did you mean 'sqlite'\? There are: .*file, "
        ):
            from_url("sqlit:///x.db")

    def test_a_missing_module_names_it(self) -> None:
        with pytest.raises(MissingModuleError, match="a_module_that_is_not_there"):
            from_url("gone://x")

    def test_a_factory(self) -> None:
        assert sample("made:///x", max_lines=3).given["target_file"] == "made of /x"

    def test_a_factory_of_something_else(self) -> None:
        with pytest.raises(InvalidConfigError, match="no Exporter"):
            from_url("wrong:///x")

    def test_the_built_in_ones_need_no_metadata(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [])
        assert {"file", "sqlite"} <= set(schemes())
        assert isinstance(from_url("sqlite:///x.db?table=t"), SQLExporter)

    def test_every_scheme_of_the_project_file_is_built_in_too(self) -> None:
        text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
        section = text.partition('[project.entry-points."resilient_exporters.exporters"]')[2].partition("\n[")[0]
        registered = dict(line.replace('"', "").split(" = ") for line in section.strip().splitlines() if " = " in line)
        assert registered == urls._BUILT_IN


class TestFile:
    def test_a_file_needs_no_code_of_its_own(self, tmp_path: Path) -> None:
        from resilient_exporters.exporters.file import FileExporter

        made = from_url(f"file://{tmp_path}/x.jsonl?max_lines=1000")
        assert isinstance(made, FileExporter)
        assert str(tmp_path / "x.jsonl") in made.address()
        assert not (tmp_path / "x.jsonl").exists()
        first = next(iter(list(inspect.signature(FileExporter.__init__).parameters)[1:]))
        assert first == "target_file"


class TestSQLite:
    def test_relative_and_absolute(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert from_url("sqlite:///x.db?table=readings").address() == f"sqlite:///{tmp_path}/x.db#readings"
        assert from_url("sqlite:////abs/x.db").address() == "sqlite:////abs/x.db"

    def test_options(self, tmp_path: Path) -> None:
        made = from_url(
            f"sqlite:///{tmp_path}/x.db?table=t&id_column=none&new_columns=json&sqlite_busy_timeout=0.5&ledger=yes"
        )
        assert isinstance(made, SQLExporter)
        made.connect()
        assert made.export(Batch([Record(run="0" * 16, offset=0, data={"a": 1}, options={})])) is None
        made.disconnect()

    def test_an_unknown_option(self) -> None:
        with pytest.raises(InvalidConfigError, match="did you mean 'table'"):
            from_url("sqlite:///x.db?tabel=t")

    def test_a_wrong_choice(self) -> None:
        with pytest.raises(InvalidConfigError, match="new_columns='nonsense'"):
            from_url("sqlite:///x.db?table=t&new_columns=nonsense")

    def test_parameters_of_the_driver_are_passed_on(self) -> None:
        # Given a subclass that keeps what it was made with
        class Kept(SQLExporter):
            def __init__(self, url: str, table: str | None = None, **options: Any) -> None:
                self.kept = (url, table, options)

        parsed = ParsedURL.parse("postgresql://me:p%40@h:5/d?sslmode=require&table=t&application_name=a%20b&ledger=1")
        made = Kept.from_url(parsed, {})
        # Then ours are options, and theirs stay in the URL, with the password as it was written
        assert isinstance(made, Kept)
        url = "postgresql://me:p%40@h:5/d?sslmode=require&application_name=a%20b"
        assert made.kept == (url, "t", {"ledger": True})


def test_build_reads_base_classes_only_where_they_are_reached() -> None:
    class Closed(Sample):
        def __init__(self, target_file: str) -> None:
            super().__init__(target_file)

    assert isinstance(build(Closed, ParsedURL.parse("x:///a"), {}), Closed)
    with pytest.raises(InvalidConfigError, match="no option 'max_lines'"):
        build(Closed, ParsedURL.parse("x:///a?max_lines=1"), {})


def test_several_hosts_are_for_those_who_ask_for_them() -> None:
    parsed = ParsedURL.parse("mongodb://me:p%40@a:1,B,[fe80::1]:3/d")
    assert parsed.hosts == (("a", 1), ("b", None), ("fe80::1", 3))
    assert str(parsed) == "mongodb://a:1,b,[fe80::1]:3/d"
    with pytest.raises(InvalidConfigError, match="3 hosts; right would be one"):
        _ = parsed.host
    with pytest.raises(InvalidConfigError, match="mysql://a,b/d: 2 hosts"):
        from_url("mysql://a,b/d?table=t")
    assert ParsedURL.parse("file:x").host is None
