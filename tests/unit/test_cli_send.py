from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import click.testing
import pytest

from resilient_exporters.cli.root import rexport
from resilient_exporters.testing import eventually
from tests.programs import PATIENCE
from tests.unit.test_inspection import waiting

REXPORT = [sys.executable, "-m", "resilient_exporters.cli"]


def run(*arguments: object, given: bytes | str = b"") -> click.testing.Result:
    result = click.testing.CliRunner().invoke(rexport, ["send", *map(str, arguments)], input=given)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "out.txt"


def test_lines_become_records(file: Path) -> None:
    result = run("--to", f"file://{file}", given="one\ntwo\r\nlast without newline")

    assert result.exit_code == 0, result.output
    assert file.read_text() == "one\ntwo\nlast without newline\n"
    assert "3 delivered" in result.stderr


def test_json_lines_are_recognised_and_reach_every_target(tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    lines = "".join(json.dumps({"n": n, "text": "é"}, ensure_ascii=False) + "\n" for n in range(1000))

    file, database = f"file://{tmp_path / 'x.jsonl'}", f"sqlite:///{tmp_path / 'x.db'}?table=r"
    result = run("--to", file, "--to", database, given=lines)

    assert result.exit_code == 0, result.output
    assert [json.loads(line)["n"] for line in (tmp_path / "x.jsonl").read_text().splitlines()] == list(range(1000))
    connection = sqlite3.connect(tmp_path / "x.db")
    assert connection.execute("SELECT count(*), max(text) FROM r").fetchone() == (1000, "é")
    connection.close()


def test_a_line_that_is_no_json_is_reported_by_number_and_the_others_go_on(file: Path) -> None:
    result = run("--to", f"file://{file}", given='{"n":1}\n{broken\n\nnull\n{"n":2}\n')

    assert result.exit_code == 1
    assert "line 2 refused: no JSON: Expecting property name" in result.stderr
    assert "line 4 refused: null is no record" in result.stderr
    assert "2 lines refused" in result.stderr
    assert file.read_text() == '{"n":1}\n{"n":2}\n'


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"n":1', b'{"n":' + b"1" * 5000 + b"}", b"\xff\xfe"])
def test_whatever_a_line_holds_it_is_reported(file: Path, line: bytes) -> None:
    result = run("--to", f"file://{file}", "--format", "json", given=b'{"n":1}\n' + line + b"\n")

    assert result.exit_code == 1
    assert "line 2 refused" in result.stderr
    assert file.read_text() == '{"n":1}\n'


def test_text_stays_text_if_asked_for(file: Path) -> None:
    assert run("--to", f"file://{file}", "--format", "lines", given='{"n": 1}\n\n').exit_code == 0
    assert file.read_text() == '{"n": 1}\n\n'


def test_other_encodings(file: Path) -> None:
    refused = run("--to", f"file://{file}", given="é\n".encode("latin-1"))
    taken = run("--to", f"file://{file}", "--encoding", "latin-1", given="é\n".encode("latin-1"))

    assert refused.exit_code == 1
    assert "give --encoding" in refused.stderr
    assert taken.exit_code == 0
    assert file.read_text("utf-8") == "é\n"
    assert run("--to", f"file://{file}", "--encoding", "klingon").exit_code == 2


def test_what_cannot_be_delivered_waits_and_the_next_run_delivers_it(tmp_path: Path) -> None:
    # Given a target that is down: a file where its directory should be
    (tmp_path / "mnt").write_text("")
    target = f"file://{tmp_path / 'mnt' / 'x.txt'}"
    result = run("--to", target, "--directory", tmp_path / "q", "--timeout", "0.2", given="a\nb\n")
    assert result.exit_code == 1
    assert "2 records wait for file:" in result.stderr
    assert f"rexport queue show {tmp_path / 'q'}" in result.stderr
    assert f"rexport send --to {target} </dev/null" in result.stderr

    # When it is there again
    (tmp_path / "mnt").unlink()
    again = run("--to", target, "--directory", tmp_path / "q")

    # Then
    assert again.exit_code == 0, again.output
    assert (tmp_path / "mnt" / "x.txt").read_text() == "a\nb\n"


def test_what_a_target_refuses_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n")

    result = run("--to", f"file://{tmp_path / 'x.csv'}?format=csv", given='{"c":1}\n')

    assert result.exit_code == 1
    assert "no column for c" in result.stderr
    assert "rexport queue dead" in result.stderr


def test_wrong_use_is_said_before_anything_is_read(file: Path) -> None:
    for arguments, text in [
        ([], "Missing option '--to'"),
        (["--to", "nonsense"], "has no scheme"),
        (["--to", "gopher://x"], "no exporter for 'gopher'"),
        (["--to", f"file://{file}", "--option", "max_mem=3"], "max_mem"),
        (["--to", f"file://{file}", "--option", "loss_window=never"], "loss_window"),
        (["--to", f"file://{file}", "--option", "x"], "give key=value"),
    ]:
        result = run(*arguments, given="x\n")
        assert result.exit_code == 2, result.output
        assert text in result.stderr
    assert not file.exists()


def test_options_reach_the_queue(file: Path, tmp_path: Path) -> None:
    (tmp_path / "mnt").write_text("")
    result = run(
        "--to", f"file://{tmp_path / 'mnt' / 'x'}", "--directory", tmp_path / "q", "--timeout", "0.1",
        "--option", "max_records=3", "--option", "on_full=drop_oldest", given="1\n2\n3\n4\n5\n",
    )  # fmt: skip

    assert result.exit_code == 1
    assert "2 records dropped" in result.stderr


def test_quiet_says_nothing_if_all_is_well(file: Path) -> None:
    result = run("--to", f"file://{file}", "--quiet", given="x\n")

    assert (result.exit_code, result.output) == (0, "")


def test_no_secret_is_printed(tmp_path: Path) -> None:
    from resilient_exporters.cli.send import _without_secret

    assert "hunter2" not in _without_secret("postgresql://me:hunter2@db/x")
    assert "hunter2" not in _without_secret("file:///x?api_token=hunter2")
    assert _without_secret("sqlite:///x.db?table=t") == "sqlite:///x.db?table=t"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_what_waits_and_where(tmp_path: Path, number: signal.Signals) -> None:
    # Given a run in the middle of its input, and a target that is down
    (tmp_path / "mnt").write_text("")
    command = [*REXPORT, "send", "--to", f"file://{tmp_path / 'mnt' / 'x'}", "--directory", str(tmp_path / "q")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdin is not None
        program.stdin.write(b"".join(b'{"n":%d}\n' % n for n in range(1000)) + b'{"n":')
        program.stdin.flush()
        eventually(lambda: (tmp_path / "q" / "cache.db").exists() and len(waiting(tmp_path / "q")) == 1000, PATIENCE)

        # When
        program.send_signal(number)
        _, said = program.communicate(timeout=PATIENCE)

    # Then
    text = said.decode()
    assert program.returncode == 1, text
    assert f"ended by {number.name}; an unfinished last line of 5 bytes was not sent" in text
    assert "1,000 records wait for file:" in text
    assert str(tmp_path / "q") in text
    assert waiting(tmp_path / "q") == list(range(1000))


def test_a_full_queue_makes_the_input_wait_and_a_signal_still_ends_it(tmp_path: Path) -> None:
    # Given
    (tmp_path / "mnt").write_text("")
    command = [
        *REXPORT, "send", "--to", f"file://{tmp_path / 'mnt' / 'x'}", "--directory", str(tmp_path / "q"),
        "--option", "max_records=100",
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdin is not None
        program.stdin.write(b"".join(b'{"n":%d}\n' % n for n in range(200)))
        program.stdin.flush()
        eventually(lambda: (tmp_path / "q" / "lock").exists() and len(waiting(tmp_path / "q")) == 100, PATIENCE)

        # When
        program.terminate()
        _, said = program.communicate(timeout=PATIENCE)

    # Then what was not accepted is said by its lines
    assert program.returncode == 1
    assert waiting(tmp_path / "q") == list(range(100))
    assert "line 101 refused: the queue is full" in said.decode()
    assert "100 lines refused" in said.decode()


def test_a_directory_in_use_is_refused(tmp_path: Path, file: Path) -> None:
    from resilient_exporters.testing import RecordingExporter

    with RecordingExporter(directory=tmp_path / "q") as target:
        target.send("x")
        result = run("--to", f"file://{file}", "--directory", tmp_path / "q", given="y\n")

    assert result.exit_code == 2
    assert str(os.getpid()) in result.stderr
