"""Plan: what a run would do, and what is wrong with it before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from resilient_exporters.errors import MissingModuleError, ResilientExporterException
from resilient_exporters.tasks.config import BigraysConfig
from resilient_exporters.tasks.errors import ConfigurationError, TaskError, TaskInterfaceError
from resilient_exporters.tasks.formatting import fields, format_text
from resilient_exporters.tasks.placeholder import Placeholder, placeholders
from resilient_exporters.tasks.sql import SQLTask
from resilient_exporters.tasks.sql_text import statement
from resilient_exporters.tasks.task import BaseTask, Register, interface_errors, keywords_of, uses_of

if TYPE_CHECKING:
    from resilient_exporters.tasks.resources import BaseResource

__all__ = ["Plan", "Step"]


class Step(NamedTuple):
    """One task in a plan.

    Attributes:
        task: its class.
        actions: what is done to resources before it: "close …", "open …", "keep …".
        texts: attribute to formatted text.
        values: attribute to bound values.
        remarks: what a reader should know: when it runs, what is tried again, what is not known yet.
    """

    task: type[BaseTask]
    actions: tuple[str, ...]
    texts: dict[str, str]
    values: dict[str, Any]
    remarks: tuple[str, ...]


class Plan:
    """The tasks of a run in their order, checked.

    Args:
        tasks: in their order.
        config: of the resources.

    Attributes:
        tasks: as given.
        order_errors: outputs that are used before they are there, and classes that cannot run.
        config_errors: settings and modules that are missing; errors, by resource.
        gaps: format keywords that are not there (yet: a task may set them).
    """

    def __init__(self, tasks: Sequence[type[BaseTask]], config: Any = BigraysConfig) -> None:
        for task in tasks:
            if not isinstance(task, Register):
                raise TaskInterfaceError(f"{task!r:.80} is no task; give subclasses of Task")
        self.tasks = tuple(tasks)
        self.config = config
        self.order_errors = list(self._order_errors())
        self.config_errors = self._config_errors()
        self.gaps = [
            f"{task.__name__}.{name}: no format keyword {field!r}"
            for task in self.tasks
            for name, field in _unknown(task)
        ]

    @property
    def problems(self) -> list[str]:
        """All that would keep the run from its end."""
        return [*self.order_errors, *map(str, self.config_errors), *self.gaps]

    def check(self) -> None:
        """Raise what is wrong, before anything runs.

        Raises:
            TaskInterfaceError: the order is not possible, or a class cannot run.
            MissingModuleError: an extra is not installed.
            ConfigurationError: settings are missing; each resource is named with its own.
        """
        if self.order_errors:
            raise TaskInterfaceError("nothing was run:\n  " + "\n  ".join(self.order_errors))
        if len(self.config_errors) == 1:
            raise self.config_errors[0]
        if self.config_errors:
            raise ConfigurationError("nothing was run:\n  " + "\n  ".join(map(str, self.config_errors)))

    def _order_errors(self) -> Iterator[str]:
        for number, task in enumerate(self.tasks):
            for error in interface_errors(task):
                yield f"{task.__name__} {error}"
            for where, used in uses_of(task):
                name = f"{task.__name__}.{where} uses {used.task.__name__}.output"
                if used.task in self.tasks[:number]:
                    continue
                if used.task is task:
                    yield f"{name}: its own"
                elif used.task in self.tasks:
                    yield f"{name}, but {used.task.__name__} runs later: put it in front"
                elif not used.ready:
                    yield f"{name}, but {used.task.__name__} is not among the tasks of this run, and has not run before"

    def _config_errors(self) -> list[ResilientExporterException]:
        found: list[ResilientExporterException] = []
        seen: list[tuple[type[BaseResource], Any]] = []
        for task in self.tasks:
            resource, config = task.required_resource, self._config_of(task)
            if resource is None or any(resource is known and config is other for known, other in seen):
                continue
            seen.append((resource, config))
            try:
                resource.check(config)
            except (ConfigurationError, MissingModuleError) as error:
                found.append(error)
        return found

    def _config_of(self, task: type[BaseTask]) -> Any:
        return self.config if task.resource_config is None else task.resource_config

    # -- what a dry run prints -----------------------------------------------------------------------------------

    def steps(self) -> Iterator[Step]:
        """Each task with what happens around it."""
        current: tuple[type[BaseResource], Any] | None = None
        for task in self.tasks:
            actions: list[str] = []
            if task.required_resource is not None:
                wanted = (task.required_resource, self._config_of(task))
                if current is not None and current[0] is wanted[0] and current[1] is wanted[1]:
                    actions.append(f"keep {current[0].__name__}")
                else:
                    if current is not None:
                        actions.append(f"close {current[0].__name__}")
                    actions.append(f"open {_described(*wanted)}")
                    current = wanted
            texts, values = _texts(task)
            yield Step(task, tuple(actions), texts, values, tuple(_remarks(task)))
        self._last = None if current is None else current[0].__name__

    def render(self) -> str:
        """As text for people."""
        lines = [f"Plan: {len(self.tasks)} task{'s' * (len(self.tasks) != 1)}, nothing is executed", ""]
        for number, step in enumerate(self.steps(), 1):
            lines += [f"   {action}" for action in step.actions]
            kind = next((base.__name__ for base in step.task.__mro__[1:] if isinstance(base, Register)), "")
            lines.append(f"{number}. {step.task.__name__} ({kind})")
            for name, text in step.texts.items():
                first, *rest = text.strip().splitlines() or [""]
                lines.append(f"     {name}: {first.strip()}")
                lines += [f"     {' ' * len(name)}  {line.strip()}" for line in rest]
            lines += [f"     :{name} = {value!r:.60}" for name, value in step.values.items()]
            lines += [f"     {remark}" for remark in step.remarks]
        if self._last:
            lines.append(f"   close {self._last}")
        if self.problems:
            lines += ["", "What is missing or wrong:"]
            lines += [f"  {line}" for each in self.problems for line in each.split("\n")]
        return "\n".join(lines)


def _described(resource: type[BaseResource], config: Any) -> str:
    try:
        return resource.describe(config)
    except ResilientExporterException:
        return f"{resource.__name__} (cannot be opened, see below)"


def _shown_keywords(task: type[BaseTask]) -> dict[str, Any]:
    return {
        name: _Shown(value) if isinstance(value, Placeholder) else value for name, value in keywords_of(task).items()
    }


def _texts(task: type[BaseTask]) -> tuple[dict[str, str], dict[str, Any]]:
    """Formatted texts and bound values of a task, as far as they are known."""
    attributes, known = dict(Register.attributes(task)), _shown_keywords(task)
    texts: dict[str, str] = {}
    values: dict[str, Any] = {}
    for name in task.formatted_attributes:
        text = attributes.get(name)
        if not isinstance(text, str):
            if text is not None:
                texts[name] = repr(text)
            continue
        filled = {**known, **{field: _Shown(f"{{{field}}}") for _, field in _unknown(task)}}
        try:
            if issubclass(task, SQLTask):
                ready = statement(text, filled, attributes.get("params") or {}, name)
                texts[name], values = ready.text, ready.values
            else:
                texts[name] = format_text(text, filled, name)
        except TaskError as error:
            texts[name] = f"{text} ({error})"
    return texts, values


def _remarks(task: type[BaseTask]) -> Iterator[str]:
    for name, value in Register.attributes(task):
        for each in placeholders(value) if name != "format_kws" else ():
            yield f"{name} <- {each.task.__name__}.output"
    if task.run_with_exceptions:
        yield "runs even if a task before it fails"
    if task.retry_policy is not None:
        yield f"is tried again: {task.retry_policy!r:.60}"


def _unknown(task: type[BaseTask]) -> Iterator[tuple[str, str]]:
    """Attribute and name of each field without a keyword."""
    attributes, known = dict(Register.attributes(task)), keywords_of(task)
    for name in task.formatted_attributes:
        text = attributes.get(name)
        if not isinstance(text, str):
            continue
        try:
            format_text(text, dict.fromkeys(known, ""), name)
        except TaskError:
            for field in fields(text):
                if field not in known:
                    yield name, field


class _Shown:
    """Stands for a value that is not known yet: shown as it is written."""

    def __init__(self, value: Any) -> None:
        self._text = str(value) if isinstance(value, str) else repr(value)

    def __getattr__(self, name: str) -> _Shown:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Shown(f"{self._text}.{name}")

    def __getitem__(self, key: object) -> _Shown:
        return _Shown(f"{self._text}[{key}]")

    def __format__(self, spec: str) -> str:
        return self._text

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._text
