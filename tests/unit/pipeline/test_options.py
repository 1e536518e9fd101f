"""Options: where their values come from, and what they can be."""

from __future__ import annotations

from typing import Any

import pytest

from resilient_exporters.pipeline import ConfigCheckError, ConfigurationError
from resilient_exporters.pipeline.module import Module
from resilient_exporters.pipeline.option import ListOf, Option


class Base(Module):
    supported_options = {
        "host": {"type": str, "default": "localhost", "env_fallback": "TEST_HOST"},
        "key": {"type": str, "env_fallback": "TEST_KEY", "help": "A key."},
        "size": {"type": (int, float), "default": 10},
    }


class Derived(Base):
    supported_options = {
        "size": Option(type=int, default=20, choices=(20, 300)),
        "names": Option(type=ListOf(str), default=[]),
        "flag": Option(type=bool, default=False, env_fallback="TEST_FLAG"),
        "number": Option(type=int, default=1, env_fallback="TEST_NUMBER"),
        "more": Option(type=dict, default=None, env_fallback="TEST_MORE"),
    }


def test_tables_are_merged_along_the_classes() -> None:
    assert list(Derived.supported_options) == ["host", "key", "size", "names", "flag", "number", "more"]
    assert Derived(key="k").read_option("size") == 20
    assert Base(key="k").read_option("size") == 10


def test_a_value_comes_from_the_section_then_the_environment_then_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Base(key="k").read_option("host") == "localhost"
    monkeypatch.setenv("TEST_HOST", "elsewhere")
    assert Base(key="k").read_option("host") == "elsewhere"
    assert Base({"options": {"key": "k", "host": "here"}}).read_option("host") == "here"


@pytest.mark.parametrize(
    ("variable", "text", "option", "value"),
    [
        ("TEST_FLAG", "true", "flag", True),
        ("TEST_FLAG", "1", "flag", True),
        ("TEST_FLAG", "No", "flag", False),
        ("TEST_NUMBER", "12", "number", 12),
        ("TEST_MORE", '{"a": [1]}', "more", {"a": [1]}),
    ],
)
def test_a_text_of_the_environment_becomes_the_type(
    variable: str, text: str, option: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    assert Derived(key="k").read_option(option) == value


def test_a_text_that_does_not_become_the_type_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_NUMBER", "twelve")
    with pytest.raises(ConfigCheckError, match=r"number: Wrong type: found str \('twelve'\), expected int"):
        Derived(key="k")


def test_a_value_can_name_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigCheckError, match="it is to be taken from MY_KEY, set that"):
        Base(key={"env": "MY_KEY"})
    monkeypatch.setenv("MY_KEY", "open sesame")
    assert Base(key={"env": "MY_KEY"}).read_option("key") == "open sesame"


def test_lists_are_coerced() -> None:
    assert Derived(key="k", names=("a", "b")).read_option("names") == ["a", "b"]
    with pytest.raises(ConfigCheckError, match="names: Wrong type: found list"):
        Derived(key="k", names=["a", 1])


def test_a_default_is_not_shared_between_modules() -> None:
    Derived(key="k").read_option("names").append("mine")
    assert Derived(key="k").read_option("names") == []


def test_choices_suggest_the_nearest() -> None:
    with pytest.raises(ConfigCheckError, match=r"size=301 is none of 20, 300; did you mean 300\?"):
        Derived(key="k", size=301)


def test_an_option_that_the_class_does_not_have() -> None:
    with pytest.raises(ConfigCheckError, match=r"unsupported_options: hots \(did you mean host\?\)"):
        Base(key="k", hots="x")
    with pytest.raises(ConfigurationError, match="Base has no option hots"):
        Base(key="k").read_option("hots")


@pytest.mark.parametrize("table", [{"a": 3}, {"a": {"typ": int}}, {"a": {"type": int, "defualt": 3}}])
def test_a_table_that_is_none_is_refused_with_its_class(table: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Wrong.supported_options\['a'\]"):
        type("Wrong", (Module,), {"supported_options": table})


@pytest.mark.parametrize("config", [3, {"option": {}}, {"options": [1]}, "name"])
def test_a_section_that_is_none_is_refused(config: Any) -> None:
    with pytest.raises(ConfigurationError, match="Base"):
        Base(config)
