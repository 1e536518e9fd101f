"""RunPipeline: the bridge to a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resilient_exporters.tasks.errors import TaskError
from resilient_exporters.tasks.frames import records
from resilient_exporters.tasks.placeholder import REQUIRED_ATTRIBUTE, resolve
from resilient_exporters.tasks.task import BaseTask, formatted

__all__ = ["RunPipeline"]


class RunPipeline(BaseTask, abstract=True):
    """Run a pipeline. The output is its `PipelineReport`.

    Attributes:
        pipeline: a configuration (a mapping), the path of one (``{name}`` is a format keyword), a pipeline, which runs
            once, or a callable that makes one: with an ``input``, it is called with the input's records; without one,
            with nothing.
        input: what a callable is to work on; often the output of another task.

    Example:
        >>> from resilient_exporters.pipeline import Pipeline
        >>> from resilient_exporters.tasks import RunPipeline, bigrays_run
        >>> from resilient_exporters.testing import RecordingExporter
        >>> class Warm(RunPipeline):
        ...     input = [{"t": 19.0}, {"t": 31.5}]
        ...
        ...     @staticmethod
        ...     def pipeline(records):
        ...         return Pipeline(records, lambda record: record["t"] > 30, writer=RecordingExporter())
        >>> bigrays_run(Warm)
        >>> Warm.output.written
        1
    """

    formatted_attributes = ("pipeline",)
    pipeline: Any = REQUIRED_ATTRIBUTE

    def run(self) -> Any:
        """Run it to its end.

        Raises:
            TaskError: it was stopped before its end; it can be resumed.
        """
        report = self._made().run()
        if not report.complete:
            raise TaskError(f"the pipeline was stopped before its end; go on with: rexport resume {report.uri}")
        return report

    def _made(self) -> Any:
        from resilient_exporters.pipeline import Pipeline

        given = resolve(type(self).pipeline)  # of the class: a plain function would turn into a method of the instance
        if isinstance(given, Mapping):
            return Pipeline.from_configuration(given)
        if isinstance(given, (str, Path)):
            return Pipeline.from_file_configuration(formatted(self, str(given), "pipeline"))
        if callable(given):
            given = given() if self.input is None else given(records(self.input))
        if not isinstance(given, Pipeline):
            raise TaskError(
                f"pipeline={given!r:.60} is not possible; give a configuration, its path, a Pipeline, or a callable "
                "that makes one"
            )
        return given
