from __future__ import annotations

import logging
import sys
import threading
import traceback
import types
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from resilient_exporters.policy import RetryPolicy
from resilient_exporters.tasks import (
    BaseResource,
    BaseTask,
    BigraysConfig,
    ConfigurationError,
    Placeholder,
    ResourceError,
    ResourceManager,
    Task,
    TaskError,
    TaskInterfaceError,
    TasksFailed,
    Watcher,
    bigrays_run,
    run_tasks,
    update_format_kws,
)
from tests.targets import PATIENCE


@pytest.fixture
def done() -> list[str]:
    return []


@pytest.fixture
def make(done: list[str]):
    """A task that notes that it ran: ``make("A")``, ``make("B", error=ValueError("x"), run_with_exceptions=True)``."""

    def task(name: str, error: Exception | None = None, **attributes: object) -> type[BaseTask]:
        def run(self: BaseTask) -> str:
            done.append(name)
            if error is not None:
                raise error
            return name.lower()

        made: Any = types.new_class(name, (Task,), {}, lambda body: body.update({"run": run, **attributes}))
        return made

    return task


@pytest.fixture
def resource(done: list[str]):
    """A resource that notes what becomes of it."""

    def made(name: str, **attributes: object) -> type[BaseResource]:
        def opened(cls: type[BaseResource], config: object) -> str:
            done.append(f"open {name}")
            return name

        def closed(cls: type[BaseResource], *exc: object) -> None:
            done.append(f"close {name}")

        body = {"_open": classmethod(opened), "_close": classmethod(closed), **attributes}
        return type(name, (BaseResource,), body)

    return made


class TestOrder:
    def test_tasks_run_in_the_order_of_their_definition(self, make, done):
        make("B"), make("A"), make("C")
        assert bigrays_run() is None
        assert done == ["B", "A", "C"]

    def test_or_in_that_of_the_list(self, make, done):
        a, b, _ = make("A"), make("B"), make("C")
        run_tasks(b, a)
        assert done == ["B", "A"]
        assert (a.output, b.output) == ("a", "b")

    def test_a_run_forgets_what_its_tasks_gave_before(self, make):
        a = make("A")
        bigrays_run(a)
        b = make("B", error=ValueError())
        with pytest.raises(TasksFailed):
            bigrays_run(b, a)
        assert isinstance(a.output, Placeholder)

    def test_nothing_to_run_is_no_error_but_said(self, caplog):
        with caplog.at_level(logging.WARNING, "bigrays"):
            bigrays_run()
        assert "no task to run" in caplog.text


class TestCheckedBeforeAnythingRuns:
    def test_an_output_that_comes_later(self, make, done):
        first = make("First")
        late = make("Late")
        early = make("Early", input=late.output)
        with pytest.raises(TaskInterfaceError, match=r"Early\.input uses Late\.output, but Late runs later: put it"):
            bigrays_run(first, early, late)
        assert done == []
        bigrays_run(late, early)
        assert done == ["Late", "Early"]

    def test_an_output_in_a_mapping_or_a_format_keyword(self, make, done):
        late = make("Late")
        early = make("Early", params={"x": [late.output]}, path="{year}", formatted_attributes=("path",))
        update_format_kws(year=late.output)
        with pytest.raises(TaskInterfaceError) as caught:
            bigrays_run(early, late)
        assert "Early.params uses Late.output, but Late runs later" in str(caught.value)
        assert "Early.path ({year}) uses Late.output, but Late runs later" in str(caught.value)
        assert done == []

    def test_an_output_of_a_task_that_does_not_run(self, make, done):
        other = make("Other")
        user = make("User", input=other.output)
        with pytest.raises(
            TaskInterfaceError, match="Other is not among the tasks of this run, and has not run before"
        ):
            bigrays_run(user)
        bigrays_run(other)
        bigrays_run(user)
        assert done == ["Other", "User"]

    def test_its_own_output(self, make):
        mine = make("Mine")
        mine.input = mine.output
        with pytest.raises(TaskInterfaceError, match=r"Mine\.input uses Mine\.output: its own"):
            bigrays_run(mine)

    def test_a_task_without_run_and_what_is_no_task(self, done):
        class Empty(Task):
            pass

        with pytest.raises(TaskInterfaceError, match=r"Empty defines no run\(\)"):
            bigrays_run(Empty)
        with pytest.raises(TaskInterfaceError, match="is no task"):
            bigrays_run(Empty())  # type: ignore[arg-type]  # that is the point

    def test_settings_each_with_its_resource(self, make, resource, done):
        one = make("A", required_resource=resource("One", required_configs=("ONE_KEY", "BOTH")))
        two = make("B", required_resource=resource("Two", required_configs=("TWO_KEY",)))
        fine = make("C", required_resource=resource("Fine", required_configs=("BOTH",)))
        BigraysConfig.BOTH = "x"

        with pytest.raises(ConfigurationError) as caught:
            bigrays_run(one, two, fine)

        lines = str(caught.value).splitlines()
        assert lines[1].strip().startswith("One requires the setting(s) ONE_KEY:")
        assert "BIGRAYS_ONE_KEY" in lines[1]
        assert lines[2].strip().startswith("Two requires the setting(s) TWO_KEY:")
        assert len(lines) == 3
        assert done == []

    def test_the_settings_of_a_task_with_a_configuration_of_its_own(self, make, resource, done):
        class Mine(BigraysConfig):
            KEY = "mine"

        needy = resource("Needy", required_configs=("KEY",))
        with pytest.raises(ConfigurationError, match="Needy"):
            bigrays_run(make("A", required_resource=needy))
        with pytest.raises(ConfigurationError, match="Needy"):
            bigrays_run(make("M", required_resource=needy, resource_config=Mine), make("D", required_resource=needy))
        assert done == []
        bigrays_run(make("B", required_resource=needy, resource_config=Mine))
        assert done == ["open Needy", "B", "close Needy"]


class TestFailures:
    def test_what_comes_after_is_skipped_but_for_run_with_exceptions(self, make, done, caplog):
        make("A"), make("B", error=ValueError("b")), make("C")
        make("D", error=KeyError("d"), run_with_exceptions=True), make("E", run_with_exceptions=True), make("F")
        with caplog.at_level(logging.WARNING, "bigrays"), pytest.raises(TasksFailed) as caught:
            bigrays_run()

        assert done == ["A", "B", "D", "E"]
        failed = caught.value
        assert [(one.task, type(one.error)) for one in failed.failures] == [("B", ValueError), ("D", KeyError)]
        assert [type(one) for one in failed.exceptions] == [ValueError, KeyError]
        assert failed.skipped == ("C", "F")
        assert str(failed) == "2 tasks failed:\n  B: ValueError: b\n  D: KeyError: 'd'\nskipped: C, F"
        assert "skipping C" in caplog.text

    def test_it_is_chained_from_the_last_failure_and_the_earlier_ones_are_in_its_context(self, make):
        errors = [ValueError("one"), KeyError("two"), OSError("three")]
        tasks = [make(f"T{n}", error=error, run_with_exceptions=True) for n, error in enumerate(errors)]
        with pytest.raises(TasksFailed) as caught:
            bigrays_run(*tasks)

        assert caught.value.__cause__ is errors[2]
        assert errors[2].__context__ is errors[1]
        assert errors[1].__context__ is errors[0]
        text = "".join(traceback.format_exception(caught.value))
        assert all(word in text for word in ("ValueError: one", "KeyError: 'two'", "OSError: three"))

    def test_one_error_raised_by_two_tasks_makes_no_circle(self, make):
        error = ValueError("same")
        with pytest.raises(TasksFailed) as caught:
            bigrays_run(make("A", error=error), make("B", error=error, run_with_exceptions=True))
        assert error.__context__ is None
        assert caught.value.exceptions == (error, error)

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="ExceptionGroup is of Python 3.11")
    def test_it_is_an_exception_group(self, make):
        with pytest.raises(ExceptionGroup) as caught:  # noqa: F821 - Python 3.11's
            bigrays_run(make("A", error=ValueError("a")), make("B", error=OSError("b"), run_with_exceptions=True))
        matched, rest = caught.value.split(OSError)
        assert matched is not None
        assert rest is not None
        assert [str(one) for one in matched.exceptions] == ["b"]
        assert [str(one) for one in rest.exceptions] == ["a"]

    def test_an_output_of_a_task_that_failed_is_an_error_that_says_so(self, make):
        bad = make("Bad", error=ValueError())

        class User(Task):
            input = bad.output
            run_with_exceptions = True

            def run(self):
                return self.input

        with pytest.raises(TasksFailed, match=r"User: OutputNotReady: Bad\.output is there when Bad has run"):
            bigrays_run(bad, User)

    def test_an_interrupt_ends_the_run_at_once_and_closes_what_is_open(self, make, resource, done):
        class Interrupted(Task):
            required_resource = resource("R")

            def run(self):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            bigrays_run(Interrupted, make("B", run_with_exceptions=True))
        assert done == ["open R", "close R"]


class TestRetries:
    def test_a_task_is_tried_again_as_its_policy_says(self, make, resource, done):
        class Unsteady(Task):
            required_resource = resource("R")
            retry_policy = RetryPolicy(wait=0, stop=3)
            left: ClassVar[int] = 2

            def run(self):
                done.append("try")
                if Unsteady.left:
                    Unsteady.left -= 1
                    raise OSError("not yet")
                return "at last"

        bigrays_run(Unsteady)
        assert Unsteady.output == "at last"
        assert done == ["open R", "try", "try", "try", "close R"]

    def test_the_opening_of_its_resource_too(self, done):
        class Unsteady(BaseResource):
            @classmethod
            def _open(cls, config):
                done.append("open")
                if len(done) < 3:
                    raise OSError("no link")
                return "open"

        class Patient(Task):
            required_resource = Unsteady
            retry_policy = RetryPolicy(wait=0, stop=5)

            def run(self):
                return Unsteady.resource()

        bigrays_run(Patient)
        assert done == ["open"] * 3
        assert Patient.output == "open"

    def test_it_gives_up_when_the_policy_does(self, make, done):
        with pytest.raises(TasksFailed, match="OSError: x"):
            bigrays_run(make("A", error=OSError("x"), retry_policy=RetryPolicy(wait=0, stop=4)))
        assert done == ["A"] * 4

    def test_an_error_of_the_tasks_own_making_is_not_tried_again(self, make, done):
        with pytest.raises(TasksFailed, match="TaskError: wrong"):
            bigrays_run(make("A", error=TaskError("wrong"), retry_policy=RetryPolicy(wait=0, stop=4)))
        assert done == ["A"]


class TestResources:
    def test_one_is_open_at_a_time_and_stays_open_as_long_as_possible(self, make, resource, done):
        one, two = resource("R1"), resource("R2")
        make("A", required_resource=one)
        make("B", required_resource=one)
        make("C", required_resource=two)
        make("D", required_resource=one)
        bigrays_run()
        assert done == [
            *("open R1", "A", "B", "close R1"),
            *("open R2", "C", "close R2"),
            *("open R1", "D", "close R1"),
        ]

    def test_a_task_without_a_resource_leaves_the_open_one_open(self, make, resource, done):
        one = resource("R1")
        make("A", required_resource=one), make("N"), make("B", required_resource=one)
        bigrays_run()
        assert done == ["open R1", "A", "N", "B", "close R1"]

    def test_another_configuration_is_another_resource(self, make, resource, done):
        class Other(BigraysConfig):
            pass

        one = resource("R1")
        make("A", required_resource=one), make("B", required_resource=one, resource_config=Other)
        make("C", required_resource=one, resource_config=Other)
        bigrays_run()
        assert done == ["open R1", "A", "close R1", "open R1", "B", "C", "close R1"]

    def test_it_is_closed_when_a_task_fails(self, make, resource, done):
        make("A", error=ValueError(), required_resource=resource("R1"))
        with pytest.raises(TasksFailed):
            bigrays_run()
        assert done == ["open R1", "A", "close R1"]

    def test_one_that_could_not_be_opened_is_not_closed(self, make, resource, done):
        def opened(cls, config):
            raise OSError("no link")

        bad = resource("Bad", _open=classmethod(opened))
        make("A", required_resource=bad), make("B", required_resource=resource("Good"), run_with_exceptions=True)
        with pytest.raises(TasksFailed, match="A: ResourceError: Bad could not be opened: OSError: no link") as caught:
            bigrays_run()
        assert done == ["open Good", "B", "close Good"]
        assert isinstance(caught.value.exceptions[0].__cause__, OSError)

    def test_one_that_cannot_be_closed_is_a_failure_of_the_run(self, make, resource, done):
        def closed(cls, *exc):
            raise OSError("stuck")

        make("A", required_resource=resource("Bad", _close=classmethod(closed)))
        with pytest.raises(TasksFailed, match="closing Bad: ResourceError: Bad could not be closed: OSError: stuck"):
            bigrays_run()

    def test_closing_may_swallow_what_ended_the_run(self, make, resource, done):
        told: list[object] = []

        def closed(cls, *exc):
            told.extend(exc[:2])
            return True

        error = ValueError("x")
        make("A", error=error, required_resource=resource("R", _close=classmethod(closed)))
        bigrays_run()
        assert told == [ValueError, error]

    def test_a_run_within_a_task_has_resources_of_its_own(self, make, done):
        count = iter(range(10))

        class Numbered(BaseResource):
            @classmethod
            def _open(cls, config):
                return next(count)

        class Inner(Task, register=False):
            required_resource = Numbered

            def run(self):
                return Numbered.resource()

        class Outer(Inner, register=False):
            def run(self):
                before = Numbered.resource()
                bigrays_run(Inner)
                return before, Inner.output, Numbered.resource()

        bigrays_run(Outer)
        assert Outer.output == (0, 1, 0)
        with pytest.raises(RuntimeError, match="not open"):
            Numbered.resource()

    def test_runs_in_two_threads_do_not_see_each_others_resources(self):
        both = threading.Barrier(2)

        class Mine(BaseResource):
            @classmethod
            def _open(cls, config):
                return threading.get_ident()

            @classmethod
            def _close(cls, *exc):
                seen.append(cls.resource() == threading.get_ident())

        class Look(Task, register=False):
            required_resource = Mine

            def run(self):
                both.wait(PATIENCE)
                seen.append(Mine.resource() == threading.get_ident())
                both.wait(PATIENCE)

        seen: list[bool] = []
        threads = [threading.Thread(target=bigrays_run, args=(Look,)) for _ in range(2)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(PATIENCE)
        assert seen == [True] * 4

    def test_a_thread_that_a_task_starts_sees_the_resource_of_the_task(self, resource):
        one = resource("R1")

        class Parallel(Task):
            required_resource = one

            def run(self):
                with ThreadPoolExecutor(1) as pool:
                    return pool.submit(one.resource).result(PATIENCE)

        bigrays_run(Parallel)
        assert Parallel.output == "R1"

    def test_the_manager_can_be_used_by_hand(self, resource, done):
        one, two = resource("R1"), resource("R2")
        with ResourceManager(BigraysConfig) as manager:
            manager.open_resource(one)
            manager.open_resource(None)
            assert one.resource() == "R1"
            manager.open_resource(one)
            manager.open_resource(two)
        assert done == ["open R1", "close R1", "open R2", "close R2"]
        with pytest.raises(RuntimeError, match="R1 is not open"):
            one.resource()
        with pytest.raises(ResourceError, match="not open"):
            one.close()
        with pytest.raises(TypeError, match="cannot be instantiated"):
            one()


def test_a_watcher_is_told_how_it_goes(make):
    told: list[object] = []

    class Told(Watcher):
        def begin(self, plan):
            told.append([task.__name__ for task in plan.tasks])

        def started(self, task, number):
            told.append((number, task.__name__))

        def ended(self, task, seconds, error):
            told.append((task.__name__, type(error).__name__))

        def skipped(self, task):
            told.append(f"skipped {task.__name__}")

        def finish(self):
            told.append("finished")

    with pytest.raises(TasksFailed):
        bigrays_run(make("A"), make("B", error=ValueError()), make("C"), watcher=Told())
    assert told == [
        ["A", "B", "C"], (1, "A"), ("A", "NoneType"), (2, "B"), ("B", "ValueError"), "skipped C", "finished",
    ]  # fmt: skip
