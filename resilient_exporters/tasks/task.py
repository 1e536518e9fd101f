"""Task: one step of a job, a class whose ``run`` is called once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from resilient_exporters.tasks.errors import TaskInterfaceError
from resilient_exporters.tasks.formatting import fields, format_text
from resilient_exporters.tasks.placeholder import REQUIRED_ATTRIBUTE, Placeholder, placeholders, resolve
from resilient_exporters.tasks.registry import TASK_REGISTER

if TYPE_CHECKING:
    from resilient_exporters.policy import RetryPolicy
    from resilient_exporters.tasks.resources import BaseResource

__all__ = [
    "BaseTask",
    "Register",
    "Task",
    "formatted",
    "interface_errors",
    "keywords_of",
    "known_keywords",
    "update_format_kws",
    "uses_of",
]


class Register(type):
    """Registers tasks in the order of their definition, checks what they define, and holds their outputs."""

    def __new__(
        mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], *,
        abstract: bool = False, register: bool = True, **options: Any,
    ) -> Register:  # fmt: skip
        """Make a class of tasks.

        Args:
            name, bases, namespace: as always.
            abstract: it is a base for others: not registered, and may leave required attributes open.
            register: False: it is run by name only.
            options: for ``__init_subclass__``.

        Raises:
            TaskInterfaceError: a required attribute is missing, or ``output`` is defined.
        """
        made = super().__new__(mcs, name, bases, namespace, **options)
        family = [base for base in bases if isinstance(base, Register)]
        if not family:
            return made
        if "output" in namespace:
            raise TaskInterfaceError(f"{name} defines output, which is what its run() returns; take another name")
        right_below = not any(isinstance(up, Register) for base in family for up in base.__bases__)
        if abstract or right_below:
            return made
        if missing := mcs.missing_attributes(made):
            raise TaskInterfaceError(f"{name} must define the attribute(s) {', '.join(missing)}")
        if register:
            TASK_REGISTER.add(made)  # type: ignore[arg-type]  # every Register but BaseTask is a BaseTask
        return made

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **_: Any) -> None:
        super().__init__(name, bases, namespace)

    @property
    def output(cls) -> Any:
        """What ``run`` returned; before that a placeholder, which can be used as an attribute of another task."""
        own = vars(cls)
        if "_output" in own:
            return own["_output"]
        if "_placeholder" not in own:
            cls._placeholder = Placeholder(cls)  # type: ignore[arg-type]  # as above
        return vars(cls)["_placeholder"]

    @output.setter
    def output(cls, value: Any) -> None:
        Register.keep_output(cls, value)

    def keep_output(cls, value: Any) -> None:
        """It has run, and this is what it gave."""
        type.__setattr__(cls, "_output", value)

    def forget_output(cls) -> None:
        """As if it had not run."""
        if "_output" in vars(cls):
            type.__delattr__(cls, "_output")

    def missing_attributes(cls) -> list[str]:
        """The required attributes that nobody defined, through all bases."""
        return [name for name, value in Register.attributes(cls) if value is REQUIRED_ATTRIBUTE]

    def attributes(cls) -> Iterator[tuple[str, Any]]:
        """Name and value of each, as defined: placeholders are not replaced."""
        seen: set[str] = set()
        for each in cls.__mro__:
            for name, value in vars(each).items():
                if name not in seen and not name.startswith("_"):
                    seen.add(name)
                    yield name, value


class BaseTask(metaclass=Register):
    """What every task is made of. A class right below this one is a base for others, such as `Task`: not registered.

    Attributes:
        required_resource: the class of a resource that is open while ``run`` runs, or None.
        resource_config: the configuration of that resource, if not that of the run.
        run_with_exceptions: run it even if a task before it failed.
        retry_policy: a RetryPolicy (or what makes one: seconds between attempts, a tenacity wait): tried again if it
            fails, the opening of its resource included. None: once only. A policy without ``stop`` never gives up.
        input: what it works on; often the output of another task.
        formatted_attributes: names of the attributes in which ``{name}`` is replaced by a format keyword.
        format_kws: the format keywords of all tasks.
        logger: of all tasks.
    """

    required_resource: ClassVar[type[BaseResource] | None] = None
    resource_config: ClassVar[Any] = None
    run_with_exceptions: ClassVar[bool] = False
    retry_policy: ClassVar[RetryPolicy | Any] = None
    input: Any = None
    formatted_attributes: ClassVar[tuple[str, ...]] = ()
    format_kws: ClassVar[dict[str, Any]] = {}
    logger: ClassVar[logging.Logger] = logging.getLogger("bigrays")

    def __call__(self) -> Any:
        """Run it and keep what it returns as the output of the class."""
        self.logger.info("running task: %s", type(self).__name__)
        output = self.run()
        Register.keep_output(type(self), output)
        return output

    def run(self) -> Any:
        """What the task does.

        Returns:
            The output, for tasks that come later.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no run()")

    if TYPE_CHECKING:
        output: ClassVar[Any]
    else:

        @property
        def output(self) -> Any:
            """That of the class."""
            return type(self).output

    @classmethod
    def update_format_kws(cls, kws: Mapping[str, Any] | None = None, /, **kwargs: Any) -> None:
        """Set format keywords for all tasks: a mapping, or by name. A value may be the output of a task."""
        if kws is not None and not isinstance(kws, Mapping):
            raise TaskInterfaceError(f"update_format_kws({kws!r:.60}) is not possible; give a mapping, or name=value")
        BaseTask.format_kws.update({**(kws or {}), **kwargs})

    def format(self, text: Any, what: str = "text") -> Any:
        """A text with the format keywords in it; anything else comes back as it is.

        Raises:
            TaskError: a name in braces is no keyword.
            OutputNotReady: the keyword is the output of a task that has not run.
        """
        return formatted(self, text, what)

    def formatted(self, name: str) -> Any:
        """An attribute with the format keywords in it."""
        return formatted(self, getattr(self, name), name)


# What follows asks a task by functions, and its class by `Register`: an old class may have attributes of any name.


def keywords_of(task: type[BaseTask]) -> dict[str, Any]:
    """The format keywords that a task sees: those of all tasks, and over them its own ``format_kws``."""
    return {**BaseTask.format_kws, **(task.format_kws or {})}


def known_keywords(task: type[BaseTask], text: str) -> dict[str, Any]:
    """The same, with the outputs that this text uses in the place of placeholders.

    Raises:
        OutputNotReady: a task has not run.
    """
    known = keywords_of(task)
    return {**known, **{name: resolve(known[name]) for name in fields(text) if name in known}}


def formatted(task: BaseTask, text: Any, what: str) -> Any:
    """See `BaseTask.format`."""
    if not isinstance(text, str):
        return text
    return format_text(text, known_keywords(type(task), text), f"{type(task).__name__}.{what}")


def uses_of(task: type[BaseTask]) -> Iterator[tuple[str, Placeholder]]:
    """Where a task uses outputs of others: in which attribute or format keyword, and which."""
    values = dict(Register.attributes(task))
    values.pop("format_kws", None)
    for name, value in values.items():
        for each in placeholders(value):
            yield name, each
    known = keywords_of(task)
    for attribute in task.formatted_attributes:
        text = values.get(attribute)
        for name in fields(text) if isinstance(text, str) else ():
            for each in placeholders(known.get(name)):
                yield f"{attribute} ({{{name}}})", each


def interface_errors(task: type[BaseTask]) -> list[str]:
    """Why it cannot be run, or nothing."""
    found = [f"must define the attribute {name}" for name in Register.missing_attributes(task)]
    if task.run is BaseTask.run:
        found.append("defines no run()")
    return found


update_format_kws = BaseTask.update_format_kws


class Task(BaseTask):
    """A step of your own: define ``run``.

    Example:
        >>> from resilient_exporters.tasks import Task, bigrays_run
        >>> class Numbers(Task):
        ...     def run(self):
        ...         return [1, 2, 3]
        >>> class Total(Task):
        ...     input = Numbers.output
        ...
        ...     def run(self):
        ...         return sum(self.input)
        >>> bigrays_run(Numbers, Total)
        >>> Total.output
        6
    """
