"""rexport run, resume, jobs, modules and schema."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click.testing
import jsonschema
import pytest

from resilient_exporters.cli.root import rexport
from resilient_exporters.delivery.directory import DirectoryLock
from resilient_exporters.pipeline.schema import configuration_schema
from tests.pipelines import LinesWriter, written
from tests.programs import environment


class Failing(LinesWriter):
    """Fails at a number, unless a file says that it may go on."""

    supported_options = {"go": {"type": str}, "secret_word": {"type": str, "default": "", "secret": True}}

    def write_record(self, record: Any) -> None:
        if record["n"] == 55 and not Path(self.read_option("go")).exists():
            raise OSError("disk full")
        super().write_record(record)


def call(*arguments: object) -> click.testing.Result:
    return click.testing.CliRunner().invoke(rexport, [str(one) for one in arguments])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps(
            {
                "reader": {"name": "tests.pipelines.Numbers", "options": {}},
                "writer": {"name": "tests.pipelines.LinesWriter", "options": {"path": str(tmp_path / "o.jl")}},
            }
        )
    )
    return path


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    path = tmp_path / "failing.yaml"
    path.write_text(
        "reader: {name: tests.pipelines.Numbers, options: {batch_size: 20}}\n"
        f"writer:\n  name: {__name__}.Failing\n"
        f"  options: {{path: {tmp_path / 'o.jl'}, go: {tmp_path / 'go'}, secret_word: sesame}}\n"
        "exporter_options: {on_bad_record: dead}\n"
    )
    return path


@pytest.mark.parametrize("form", [[], ["--config"]])
def test_a_run_exits_with_0_when_all_is_written(form: list[str], config: Path, tmp_path: Path) -> None:
    result = call("run", *form, config, "--report", tmp_path / "report.json")

    assert (result.exit_code, result.stdout) == (0, ""), result.output
    assert "100 records read, 100 written" in result.stderr
    assert written(tmp_path / "o.jl") == list(range(100))
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["complete"], report["written"]) == (True, 100)


def test_quiet_prints_nothing(config: Path) -> None:
    assert call("run", "--quiet", config).output == ""


@pytest.mark.parametrize("form", [["resume"], ["run", "--resume"]])
def test_fault_7_a_failure_exits_with_1_and_says_how_to_go_on(form: list[str], failing: Path, tmp_path: Path) -> None:
    # Given a run that fails
    result = call("run", failing)
    assert result.exit_code == 1
    assert "Error: the run failed: disk full" in result.stderr
    assert "Traceback" not in result.output
    command = next(line for line in result.stderr.splitlines() if line.startswith("go on with: rexport resume "))
    uri = command.partition("'")[2].rstrip("'")

    # When it is resumed without its secret, then that is said
    assert (wrong := call(*form, uri)).exit_code == 2
    assert "Option secret_word is a secret, and not kept with the job: give the configuration again" in wrong.stderr

    # When it is resumed with its configuration and fails again, it is 1 again; and 0 once it does not
    assert call("resume", uri, "--config", failing).exit_code == 1
    (tmp_path / "go").touch()
    done = call("resume", uri, "--config", failing)
    assert done.exit_code == 0, done.output
    assert written(tmp_path / "o.jl") == list(range(100))

    # And there is nothing more to resume
    assert (again := call("resume", uri, "--config", failing)).exit_code == 1
    assert "has run to its end" in again.stderr


@pytest.mark.parametrize(
    "arguments",
    [["run"], ["run", "a", "--config", "b"], ["run", "--config", "a", "--resume", "b"], ["resume"], ["check"]],
)
def test_wrong_use_is_2(arguments: list[str]) -> None:
    assert call(*arguments).exit_code == 2


def test_a_job_that_is_not_there_is_no_success(tmp_path: Path) -> None:
    result = call("resume", f"sqlite://{tmp_path}/no.db:JOB")
    assert result.exit_code != 0
    assert "there is no job JOB" in result.stderr
    assert not (tmp_path / "no.db").exists()


def test_ctrl_c_stops_at_a_commit_and_exits_with_1(tmp_path: Path) -> None:
    # Given a run in a process of its own, that waits in its third batch
    path = tmp_path / "c.json"
    path.write_text(
        json.dumps(
            {
                "reader": {"name": "tests.pipelines.Numbers", "options": {"count": 10**9}},
                "writer": {"name": "tests.pipelines.LinesWriter", "options": {"path": str(tmp_path / "o.jl")}},
                "stats_manager": {"name": "LoggingStatsManager"},
            }
        )
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "resilient_exporters.cli", "run", str(path)],
        env=environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "persisted" in line:
            break

    # When somebody presses Ctrl-C
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    # Then it stops, and says how to go on
    assert process.returncode == 1, err
    assert "SIGINT: stopping at the next commit" in err
    assert "go on with: rexport resume 'sqlite://" in err


def test_jobs_are_listed_shown_and_forgotten(config: Path, failing: Path, own_queues: Path) -> None:
    # Given a job that is done, and one that is interrupted
    assert "no jobs yet" in call("jobs", "ls").stderr
    call("run", config)
    call("run", failing)

    # Then both are listed
    listed = json.loads(call("jobs", "ls", "--json").stdout)
    assert [job["state"] for job in listed] == ["done", "interrupted"]
    table = call("jobs", "ls").stdout
    assert "interrupted" in table
    assert "Numbers" in table
    assert [job["figures"]["writer"]["items_count"] for job in listed] == [100, 40]

    # And the second can be looked at, by the beginning of its id or by a URI, without its secret
    job = listed[1]["id"]
    work = own_queues / "pipelines" / "work" / job
    assert work.is_dir()
    for name in (job, job[:12], f"sqlite://{own_queues}/pipelines/jobs.db:{job}"):
        shown = call("jobs", "show", name)
        assert shown.exit_code == 0
        assert '{"last_read":40}' in shown.stdout
        assert "sesame" not in shown.stdout
    assert json.loads(call("jobs", "show", job, "--json").stdout)["position"] == {"last_read": 40}

    # While it runs it is not forgotten; else it is, with its buffers, once somebody said yes
    lock = DirectoryLock(work)
    assert (running := call("jobs", "rm", job, "--yes")).exit_code == 1
    assert "is running" in running.stderr
    lock.release()
    assert call("jobs", "rm", job).exit_code == 1
    assert "forgot the interrupted job" in call("jobs", "rm", job, "--yes").stdout
    assert not work.exists()
    assert "there is no job" in call("jobs", "show", job).stderr


def test_records_put_aside_are_shown(tmp_path: Path, own_queues: Path) -> None:
    from resilient_exporters.pipeline import Pipeline
    from resilient_exporters.testing import RecordingExporter

    records = [{"n": 1}, "no record", {"n": 2}]
    report = Pipeline(records, writer=RecordingExporter(), on_bad_record="dead").run()

    lines = [json.loads(line) for line in call("jobs", "show", report.job, "--dead").stdout.splitlines()]

    assert lines == [{"data": "no record", "reason": "no mapping", "where": "record 2", "part": "reader"}]
    assert "1 records: rexport jobs show --dead" in call("jobs", "show", report.job).stdout


def test_jobs_of_another_database(tmp_path: Path) -> None:
    from resilient_exporters.pipeline import Pipeline
    from resilient_exporters.pipeline.persistence import SqlitePersistence
    from resilient_exporters.testing import RecordingExporter

    path = tmp_path / "mine.db"
    report = Pipeline([], writer=RecordingExporter(), persistence=SqlitePersistence(database=str(path))).run()

    for place in (path, f"sqlite://{path}"):
        assert [job["id"] for job in json.loads(call("jobs", "ls", "--at", place, "--json").stdout)] == [report.job]
    assert call("jobs", "ls", "--at", tmp_path / "none.db").exit_code == 2
    assert not (tmp_path / "none.db").exists()


def test_modules_are_listed_and_explained() -> None:
    assert "JsonExportFormatter" in call("modules").stdout
    assert "JsonExportFormatter" not in call("modules", "writer").stdout
    shown = call("modules", "exporters.persistence.alchemy_persistence.PostgresqlPersistence").stdout
    assert "EXPORTERS_PERSISTENCE_PASSWORD" in shown
    assert "(required)" in shown
    assert "password" in json.loads(call("modules", "MysqlPersistence", "--json").stdout)["MysqlPersistence"]["options"]
    assert "did you mean MysqlPersistence?" in call("modules", "MysqlPersistance").stderr
    assert json.loads(call("modules", "--json").stdout)["stats_manager"]["LoggingStatsManager"]["options"] == {}


def test_every_option_of_every_module_is_explained() -> None:
    catalogue = json.loads(call("modules", "--json").stdout)
    for family, found in catalogue.items():
        for name, one in found.items():
            assert one["doc"], f"{family} {name}"
            for option, about in one["options"].items():
                assert about["help"], f"{family} {name}.{option}"


def test_the_schema_takes_what_the_check_takes() -> None:
    schema = configuration_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    reader = {"name": "my.own.Reader", "options": {"anything": 1}}

    def wrong(**sections: Any) -> list[str]:
        found = {"reader": reader, "writer": {"name": "FileExporter", "options": {"target_file": "x"}}, **sections}
        return [error.message for error in validator.iter_errors(found)]

    sqlite = {"name": "exporters.persistence.alchemy_persistence.SqlitePersistence", "options": {"database": "a"}}
    assert wrong(persistence=sqlite, exporter_options={"threaded": True, "log_level": {"env": "LEVEL"}}) == []
    assert "'databse' was unexpected" in str(wrong(persistence={**sqlite, "options": {"databse": "a"}}))
    assert wrong(persistence={"name": "PostgresqlPersistence", "options": {}})
    assert wrong(exporter_options={"formatter": {"name": "JsonExportFormatter", "options": {"jsonlines": 3}}})
    assert "'reeder' was unexpected" in str(wrong(reeder=reader))
    assert call("schema").stdout == json.dumps(schema, separators=(",", ":"), ensure_ascii=False) + "\n"


def configured(tmp_path: Path, **sections: Any) -> Path:
    path = tmp_path / "c.json"
    reader = {"name": "RandomReader", "options": {"number_of_items": 3}}
    path.write_text(json.dumps({"reader": reader, "writer": {"name": "ConsoleWriter"}, **sections}))
    return path


def test_log_level_debug_is_heard(tmp_path: Path) -> None:
    # BasicStatsManager says all figures at this level, and nobody could ever see them
    quiet = call("run", str(configured(tmp_path)))
    loud = call("run", str(configured(tmp_path, exporter_options={"log_level": "DEBUG"})))
    assert "elapsed_time" not in quiet.stderr
    assert "elapsed_time" in loud.stderr


def test_a_report_that_cannot_be_written_is_said_before_the_run(tmp_path: Path) -> None:
    done = call("run", str(configured(tmp_path)), "--report", str(tmp_path / "none" / "report.json"))
    assert done.exit_code == 2
    assert "there is no directory" in done.stderr
    assert done.stdout == ""


def test_an_exception_that_says_little_is_said_with_its_kind(tmp_path: Path) -> None:
    reader = {"name": "IterableReader", "options": {"function": f"{__name__}.booming"}}
    done = call("run", str(configured(tmp_path, reader=reader)))
    assert done.exit_code == 1
    assert "Error: the run failed: KeyError: 'boom'" in done.stderr


def booming() -> Any:
    yield {"n": 1}
    raise KeyError("boom")
