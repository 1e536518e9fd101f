from __future__ import annotations

from typing import Any

import pytest

from resilient_exporters import tasks
from resilient_exporters.tasks import REQUIRED_ATTRIBUTE, BaseTask, Placeholder, Task, TaskInterfaceError
from resilient_exporters.tasks.registry import Registry
from resilient_exporters.tasks.task import Register


class TestRegistry:
    def test_the_subclasses_of_public_bases_are_registered_in_the_order_of_their_definition(self, registry: Registry):
        class Base(BaseTask):
            pass

        class First(Base):
            pass

        class Second(Task):
            pass

        class Third(First):
            pass

        assert list(registry) == [First, Second, Third]

    def test_the_bases_of_the_library_are_not_registered(self, registry: Registry):
        assert len(registry) == 0
        assert {tasks.SQLQuery, tasks.ToS3, tasks.Export} & set(registry) == set()

    def test_an_abstract_class_of_the_user_is_not_registered_and_may_leave_something_open(self, registry: Registry):
        class Ours(tasks.ToS3, abstract=True):
            bucket = "ours"

        class Upload(Ours):
            input = key = "x"

        assert list(registry) == [Upload]

    def test_an_isolated_registry_is_empty_and_gives_back_what_there_was(self, registry: Registry):
        class First(Task):
            pass

        with registry.isolated():
            assert len(registry) == 0

            class Second(Task):
                pass

            assert list(registry) == [Second]
        assert list(registry) == [First]
        registry.clear()
        assert list(registry) == []

    def test_a_functional_call_adds_no_task_to_the_list(self, registry: Registry):
        class Mine(Task):
            pass

        class Add(Task, abstract=True):
            a = b = REQUIRED_ATTRIBUTE

            def run(self):
                return self.a + self.b

        add = tasks.wrap_task("add", Add)

        assert add(a=1, b=2) == 3
        assert add(a="x", b="y") == "xy"
        assert list(registry) == [Mine]
        with pytest.raises(ValueError, match=r"add\(\) lacks keyword arguments: add must define the attribute\(s\) b"):
            add(a=1)


class TestRequiredAttributes:
    def test_they_are_asked_for_at_the_definition(self):
        with pytest.raises(TaskInterfaceError, match=r"Upload must define the attribute\(s\) input, key"):

            class Upload(tasks.ToS3):
                bucket = "b"

    def test_through_any_depth_of_bases(self):
        class Base(BaseTask):
            deep = REQUIRED_ATTRIBUTE

        class Middle(Base, abstract=True):
            own = REQUIRED_ATTRIBUTE

        class Mixin(Middle, abstract=True):
            own = 1

        with pytest.raises(TaskInterfaceError, match=r"Low must define the attribute\(s\) deep$"):

            class Low(Mixin):
                pass

    def test_of_a_base_that_is_no_task(self):
        class Mixin:
            wanted = REQUIRED_ATTRIBUTE

        with pytest.raises(TaskInterfaceError, match="wanted"):

            class Bad(Mixin, Task):
                pass

    def test_none_is_a_value(self):
        class Good(tasks.ToCSV):
            filename = "x"
            input = None

        assert Register.missing_attributes(Good) == []

    def test_output_is_not_for_the_class_to_define(self):
        with pytest.raises(TaskInterfaceError, match="Bad defines output"):

            class Bad(Task):
                output = 1


class TestOutput:
    def test_it_is_a_placeholder_and_then_what_run_returned(self):
        class One(Task):
            def run(self):
                return [1]

        early = One.output
        assert isinstance(early, Placeholder)
        assert repr(early) == "<One.output>"
        assert One()() == [1]
        assert One.output == [1]
        assert One().output == [1]
        assert early.value == [1]

    @pytest.mark.parametrize(
        "use",
        [
            lambda early: early.value,
            lambda early: early.drop("x"),
            lambda early: early["x"],
            list,
            len,
            str,
            lambda early: f"{early}",
        ],
    )
    def test_reading_it_too_early_is_an_attribute_error_that_says_so(self, use):
        class One(Task):
            pass

        with pytest.raises(AttributeError, match=r"One\.output is there when One has run"):
            use(One.output)

    def test_as_an_attribute_it_reads_as_the_output(self):
        class One(Task):
            def run(self):
                return 1

        class Two(Task):
            input = One.output

            def run(self):
                return self.input + 1

        assert isinstance(Two.input, Placeholder)
        with pytest.raises(AttributeError, match="One"):
            Two().run()
        One()()
        assert Two().run() == 2
        now: Any = Two.input
        assert now == 1

    def test_none_is_an_output(self):
        class One(Task):
            def run(self):
                return None

        One()()
        assert One.output is None

    def test_a_subclass_has_an_output_of_its_own(self):
        class One(Task):
            def run(self):
                return 1

        class Two(One):
            pass

        One()()
        assert isinstance(Two.output, Placeholder)


class TestFormatKeywords:
    def test_they_are_shared_by_all_tasks_and_given_as_a_mapping_or_by_name(self):
        class One(Task):
            path = "{a}-{b}-{c}"

        class Two(Task):
            path = "{c}"

        tasks.update_format_kws({"a": 1, "b": 2})
        tasks.update_format_kws({"b": 3}, c="x")
        One.update_format_kws(a=0)

        assert One().formatted("path") == "0-3-x"
        assert Two().formatted("path") == "x"

    def test_one_of_its_own_comes_first(self):
        class One(Task):
            format_kws = {"a": "mine"}
            path = "{a} {b}"

        tasks.update_format_kws(a="all", b="b")
        assert One().formatted("path") == "mine b"

    def test_a_keyword_may_be_the_output_of_a_task(self):
        class One(Task):
            def run(self):
                return "2026"

        class Two(Task):
            path = "{year}/x"

        tasks.update_format_kws(year=One.output)
        with pytest.raises(AttributeError, match=r"One\.output"):
            Two().formatted("path")
        One()()
        assert Two().formatted("path") == "2026/x"

    def test_what_is_no_mapping_is_refused(self):
        with pytest.raises(TaskInterfaceError, match="give a mapping, or name=value"):
            tasks.update_format_kws("x")  # type: ignore[arg-type]  # that is the point

    def test_one_that_this_text_does_not_use_may_come_later(self, database):
        class Late(Task):
            def run(self):
                return 1

        class Early(tasks.SQLQuery):
            query = "select '{used}' as a"

        tasks.update_format_kws(late=Late.output, used="7")
        tasks.bigrays_run(Early, Late)
        assert Early.output == [{"a": "7"}]


def test_attributes_of_any_name_do_no_harm(tmp_path):
    """An old class may use names that the old system did not have."""

    class Base(Task):
        attributes = keywords = uses = interface_errors = missing_attributes = forget_output = keep_output = "mine"
        format = formatted = "mine"  # type: ignore[assignment]  # that is the point
        retry = resolve = abstract = register = name = key = "mine"

    class First(Base):
        def run(self):
            return [{"a": self.attributes}]

    class Write(tasks.ToCSV):
        input = First.output
        filename = f"{tmp_path}/{{name}}.csv"
        format = formatted = "mine"  # type: ignore[assignment]  # as above
        keywords = attributes = retry = "mine"

    tasks.update_format_kws(name="out")
    tasks.bigrays_run(First, Write)
    tasks.bigrays_run(First, Write, dry_run=True)
    assert (tmp_path / "out.csv").read_text() == "a\nmine\n"
