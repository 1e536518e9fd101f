"""The dotted names of the old pipeline, in configurations and in code."""

from __future__ import annotations

import gzip
import importlib
import sys
from collections.abc import Iterator

import pytest
import tenacity

from resilient_exporters import compat, pipeline
from resilient_exporters.pipeline.catalogue import FAMILIES, classes, find
from resilient_exporters.pipeline.readers import BaseReader as Current
from resilient_exporters.pipeline.retries import disabled
from resilient_exporters.policy import RetryPolicy
from tests.programs import run

HOME = "resilient_exporters.compat.exporters"
# As the old documents and code have them.
OLD = [
    ("persistence.pickle_persistence", "PicklePersistence"),
    ("persistence.alchemy_persistence", "MysqlPersistence"),
    ("persistence.base_persistence", "BasePersistence"),
    ("readers.base_reader", "BaseReader"),
    ("writers.base_writer", "BaseWriter"),
    ("writers.filebase_base_writer", "FilebaseBaseWriter"),
    ("write_buffers.base", "WriteBuffer"),
    ("write_buffers.reservoir_sampling_buffer", "ReservoirSamplingWriteBuffer"),
    ("filters.base_filter", "BaseFilter"),
    ("transform.base_transform", "BaseTransform"),
    ("groupers.base_grouper", "BaseGrouper"),
    ("notifications.base_notifier", "BaseNotifier"),
    ("stats_managers.base_stats_managers", "BaseStatsManager"),
    ("stats_managers.basic_stats_manager", "BasicStatsManager"),
    ("stats_managers.logging_stats_manager", "LoggingStatsManager"),
    ("export_formatter.json_export_formatter", "JsonExportFormatter"),
    ("export_formatter.base_export_formatter", "BaseExportFormatter"),
    ("export_managers.basic_exporter", "BasicExporter"),
    ("export_managers.base_exporter", "BaseExporter"),
    ("exceptions", "ConfigurationError"),
    ("exceptions", "ItemsLimitReached"),
    ("exporter_config", "check_for_errors"),
    ("records.base_record", "BaseRecord"),
    ("meta", "ExportMeta"),
    ("default_retries", "retry_long"),
    ("utils", "str_list"),
    ("pipeline.base_pipeline_item", "BasePipelineItem"),
    ("contrib.writers.odo_writer", "ODOWriter"),
]


@pytest.fixture
def installed() -> Iterator[None]:
    compat.install("exporters")
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "exporters"]:
        del sys.modules[name]


@pytest.mark.parametrize(("module", "name"), OLD)
def test_code_finds_the_old_modules(module: str, name: str) -> None:
    found = getattr(importlib.import_module(f"{HOME}.{module}"), name)

    ours = {
        "BaseExporter": "BasicExporter", "BaseExportFormatter": "BaseFormatter", "ExportMeta": "ExportMetadata",
        "BaseWriter": "BaseBufferedWriter", "FilebaseBaseWriter": "BaseFilebaseWriter", "BasePipelineItem": "Module",
            "ODOWriter": "OdoWriter",
    }  # fmt: skip
    if isinstance(found, type):
        assert found.__name__ == ours.get(name, name)


def test_old_code_runs_as_it_is_once_the_name_is_installed(installed: None) -> None:
    from exporters import BasicExporter  # type: ignore[import-not-found] # it is there once installed
    from exporters.readers import BaseReader  # type: ignore[import-not-found] # as above
    from exporters.readers.base_reader import BaseReader as Same  # type: ignore[import-not-found] # as above

    assert BasicExporter is pipeline.BasicExporter
    assert BaseReader is Same is Current


def test_a_writer_of_an_old_user_gets_finished_files(installed: None) -> None:
    from exporters.writers.base_writer import BaseWriter  # type: ignore[import-not-found] # it is there once installed

    got: list[tuple[int, tuple[str, ...]]] = []

    class MyWriter(BaseWriter):  # type: ignore[misc] # as above
        supported_options = {"place": {"type": str, "default": "somewhere"}}

        def write(self, dump_path: str, group_key: tuple[str, ...] | None = None) -> None:
            with gzip.open(dump_path) as file:
                got.append((len(file.readlines()), group_key or ()))

    pipeline.Pipeline([{"n": n} for n in range(5)], writer=MyWriter({"options": {"items_per_buffer_write": 3}})).run()
    assert got == [(3, ()), (2, ())]


def test_nothing_takes_the_name_unasked() -> None:
    code = f"import {HOME}.readers, importlib.util; print(importlib.util.find_spec('exporters'))"
    assert run(code) == "None\n"


@pytest.mark.parametrize("module", ["nothing", "readers.fs.deeper", "reader"])
def test_what_never_was_is_not_there(module: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"{HOME}.{module}")


def test_a_class_that_never_was_says_where_the_others_are() -> None:
    with pytest.raises(ImportError, match="NoReader"):
        exec(f"from {HOME}.readers.no_reader import NoReader")
    with pytest.raises(AttributeError, match=r"what there is, is in resilient_exporters\.pipeline\.readers"):
        _ = importlib.import_module(f"{HOME}.readers").NoReader


@pytest.mark.parametrize("family", FAMILIES)
def test_every_class_is_found_by_an_old_dotted_name(family: str) -> None:
    for name, cls in classes(family).items():
        assert find(family, f"exporters.{family}s.some_module.{name}") is cls
        assert find(family, f"{cls.__module__}.{cls.__qualname__}") is cls


def test_retries_by_the_old_decorators() -> None:
    from resilient_exporters.compat.exporters.retries import retry_generator, retry_short

    attempts: list[int] = []

    @retry_short
    def once(value: int) -> int:
        """Doc."""
        attempts.append(value)
        if len(attempts) == 1:
            raise OSError("try again")
        return value * 2

    with disabled(), pytest.raises(OSError, match="try again"):
        once(1)
    assert once(4) == 8
    assert once.__doc__ == "Doc."

    @retry_generator
    def three() -> Iterator[int]:
        yield from (1, 2, 3)

    assert list(three()) == [1, 2, 3]


def test_a_generator_that_fails_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    from resilient_exporters.compat.exporters import retries

    runs: list[int] = []

    @retries.retry_generator
    def flaky() -> Iterator[int]:
        runs.append(1)
        for number in range(5):
            if number == 3 and len(runs) == 1:
                raise OSError("away")
            yield number

    monkeypatch.setattr(retries, "_GENERATOR", RetryPolicy(tenacity.wait_none(), stop=8))
    assert list(flaky()) == [0, 1, 2, 3, 4]
    assert len(runs) == 2
