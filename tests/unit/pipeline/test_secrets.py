"""Secrets are nowhere: not in the state, not in a log, not in an error, not in a notification."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import click.testing
import pytest

from resilient_exporters.cli.root import rexport
from resilient_exporters.pipeline import BasicExporter, ConfigCheckError, ConfigurationError, Pipeline, check_for_errors
from resilient_exporters.pipeline.notifications import BaseNotifier
from resilient_exporters.pipeline.option import ListOf, Option
from resilient_exporters.pipeline.readers import BaseReader
from resilient_exporters.pipeline.writers import BaseWriter
from resilient_exporters.testing import RecordingExporter
from tests.pipelines import Numbers

TEXTS = ["sesame-1", "sesame-2", "sesame-3", "sesame-4", "sesame-5", "sesame 6"]


class Writer(BaseWriter):
    supported_options = {
        "api_key": Option(type=str, secret=True, default=None, env_fallback="TEST_API_KEY"),
        "url": Option(type=str, default=""),
        "endpoints": Option(type=ListOf(str), default=[]),
        "connection": Option(type=dict, default={}),
        "token_of_mine": Option(type=dict, secret=True, default=None),
    }

    def write_record(self, record: Any) -> None:
        self.logger.info("connecting to %s with %s", self.read_option("url"), self.read_option("api_key"))
        raise OSError(f"{self.read_option('url')} does not take {self.read_option('api_key')}, sesame 6, {TEXTS[3]}")


class Telling(BaseNotifier):
    supported_options = {"told_to": Option(type=str)}

    def notify_failed_job(self, msg: str, stack_trace: str, receivers: Any = (), info: Any = None) -> None:
        with Path(self.read_option("told_to")).open("a") as file:
            file.write(f"{msg}\n{stack_trace}\n{json.dumps(info, default=str)}")


def configuration(tmp_path: Path) -> dict[str, Any]:
    return {
        "reader": {"name": "tests.pipelines.Numbers", "options": {"count": 3}},
        "writer": {
            "name": f"{__name__}.Writer",
            "options": {
                "api_key": TEXTS[0],
                "url": f"https://me:{TEXTS[1]}@host/",
                "endpoints": [f"amqp://me:{TEXTS[2]}@host/"],
                "connection": {"user": "me", "password": TEXTS[3], "inner": [{"token": TEXTS[4]}]},
                "token_of_mine": {"any": "sesame 6"},
            },
        },
        "persistence": {"name": "SqlitePersistence", "options": {"database": str(tmp_path / "jobs.db")}},
        "exporter_options": {
            "notifications": [{"name": f"{__name__}.Telling", "options": {"told_to": str(tmp_path / "told")}}]
        },
    }


def test_a_failing_run_shows_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Given a configuration full of secrets, and a writer that puts them into its log lines and its error
    one = BasicExporter(configuration(tmp_path))
    caplog.set_level(logging.DEBUG)
    with pytest.raises(OSError, match="does not take"):
        one.run()

    # Then none is in the log, the notification, the files of the state, the figures or the text of a module
    places = {
        "log": caplog.text.partition("Traceback")[0],
        "told": (tmp_path / "told").read_text(),
        "repr": repr(one.writer),
        "metadata": json.dumps(one.metadata.to_dict(), default=str),
        **{str(path): path.read_bytes().decode(errors="replace") for path in tmp_path.rglob("jobs.db*")},
    }
    assert len(places) > 4
    for place, text in places.items():
        for secret in TEXTS:
            assert secret not in text, f"{secret} in {place}"
    assert "does not take" in places["told"]


def test_the_command_shows_none(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(configuration(tmp_path)))

    result = click.testing.CliRunner().invoke(rexport, ["run", str(path)])

    assert result.exit_code == 1
    assert "the run failed" in result.output
    assert "go on with: rexport resume 'sqlite://" in result.output
    for secret in TEXTS:
        assert secret not in result.output


def test_a_resume_takes_them_from_the_environment_or_from_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = configuration(tmp_path)
    one = BasicExporter(given)
    with pytest.raises(OSError, match="does not take"):
        one.run()

    # When only the kept configuration is there, then what is missing is named
    with pytest.raises(ConfigCheckError) as caught:
        BasicExporter.from_persistence_configuration(one.uri)
    wrong = caught.value.errors["writer"]
    assert wrong["api_key"] == "Option api_key is missing: it is to be taken from TEST_API_KEY, set that"
    for name in ("url", "endpoints.0", "connection.password", "token_of_mine"):
        assert f"Option {name} is a secret, and not kept with the job" in str(wrong)

    # When it is given again, then the run goes on with it (and fails as before)
    monkeypatch.setenv("TEST_API_KEY", "another")
    again = BasicExporter.from_persistence_configuration(one.uri, given)
    with pytest.raises(OSError, match="does not take sesame-1"):
        again.run()
    assert again.resume == one.uri.rpartition(":")[2]


def test_an_error_of_the_check_shows_none() -> None:
    errors = check_for_errors(
        {
            "reader": {"name": "tests.pipelines.Numbers"},
            "writer": {
                "name": f"{__name__}.Writer",
                "options": {"api_key": 12345678, "endpoints": "amqp://me:sesame@host", "url": {"password": "sesame"}},
            },
        },
        raise_exception=False,
    )
    assert errors["writer"]["api_key"] == "Wrong type: found int, expected str"
    assert set(errors["writer"]) == {"api_key", "endpoints", "url"}
    assert "sesame" not in str(errors)


def test_members_of_a_pool_keep_theirs_to_themselves(own_queues: Path) -> None:
    made = {
        "name": "ExporterPool",
        "options": {"exporters": [{"name": "SQLExporter", "options": {"target": "sqlite://", "password": "sesame-9"}}]},
    }
    from resilient_exporters.pipeline.configuration import SECTIONS
    from resilient_exporters.pipeline.kept import stored

    kept = stored({"writer": made}, SECTIONS)
    assert "sesame" not in str(kept)
    assert kept["writer"]["options"]["exporters"][0]["options"]["target"] == "sqlite://"


def test_a_uri_that_is_refused_shows_no_password() -> None:
    with pytest.raises(ConfigurationError) as caught:
        BasicExporter.from_persistence_configuration("mongodb://me:sesame@host/db/JOB")
    assert "sesame" not in str(caught.value)


def test_a_pipeline_made_in_code_keeps_what_can_be_compared_and_no_secret() -> None:
    one = Pipeline(Numbers(), lambda record: True, writer=RecordingExporter(name="mine"))
    assert one.configuration["writer"]["options"] == {
        "exporter": {"name": "RecordingExporter", "options": {"name": "mine"}}
    }
    assert json.loads(json.dumps(one.configuration)) == one.configuration
    assert "0x" not in json.dumps(one.configuration)


class Chatty(BaseReader):
    supported_options = {"password": Option(type=str, secret=True)}

    def get_next_batch(self) -> list[dict[str, Any]]:
        try:
            raise ValueError(f"with {self.read_option('password')}")
        except ValueError:
            self.logger.exception("could not read")
        self.finished = True
        return []


def test_a_stack_in_the_log_shows_none(caplog: pytest.LogCaptureFixture) -> None:
    Pipeline(Chatty(password="sesame-7"), writer=RecordingExporter()).run()

    line = next(record for record in caplog.records if "could not read" in record.getMessage())
    assert line.exc_text is not None
    assert "ValueError" in line.exc_text
    assert "sesame-7" not in logging.Formatter().format(line)
