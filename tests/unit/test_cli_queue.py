from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import click.testing
import pytest

from resilient_exporters import ExporterPool, Reject
from resilient_exporters.cli.root import rexport
from resilient_exporters.testing import FlakyTarget, RecordingExporter
from tests.unit.test_inspection import DOWN, closed, flip_first_block, forget_cursors, killed, waiting


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "q"


def run(*arguments: object, answer: str | None = None) -> click.testing.Result:
    result = click.testing.CliRunner().invoke(rexport, [str(one) for one in arguments], input=answer)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def answered(*arguments: object) -> Any:
    """The JSON that a command prints."""
    result = run(*arguments, "--json")
    return json.loads(result.stdout)


def refused(directory: Path) -> None:
    """A target that took eight of ten records."""

    def judge(batch: Any) -> list[Any]:
        return [Reject("no such column") if record.data["n"] in (3, 7) else None for record in batch]

    with FlakyTarget([judge], name="t", directory=directory) as target:
        target.send([{"n": n} for n in range(10)])
        target.flush(60)


def test_ls_lists_queues_under_the_state_root_with_who_holds_them(own_queues: Path) -> None:
    # Given a queue in use, its numbered twin with a backlog, and an empty root entry
    running = FlakyTarget([DOWN], name="t")
    running.send([{"n": n} for n in range(3)])
    twin = FlakyTarget([DOWN], name="t")
    twin.send({"n": 9})
    twin.close(0)
    (own_queues / "not-a-queue").mkdir()

    # When
    result = run("queue", "ls")
    views = answered("queue", "ls")
    running.close(0)

    # Then
    assert result.exit_code == 0
    assert f"(pid {os.getpid()})" in result.stdout
    assert [(Path(view["directory"]).name, view["waiting"]) for view in views] == [
        (running.directory.name if running.directory else "", 3),
        (twin.directory.name if twin.directory else "", 1),
    ]
    assert views[1]["directory"].endswith(".2")
    assert views[0]["holder"]
    assert views[1]["holder"] is None


def test_ls_of_nothing_says_where_it_looked(own_queues: Path) -> None:
    result = run("queue", "ls")

    assert result.exit_code == 0
    assert str(own_queues) in result.stderr
    assert answered("queue", "ls") == []


def test_ls_takes_a_root_and_refuses_what_is_none(directory: Path, tmp_path: Path) -> None:
    closed(directory, 2)

    assert "q" in run("queue", "ls", tmp_path).stdout
    assert run("queue", "ls", tmp_path / "nowhere").exit_code == 2


def test_show_gives_counters_that_add_up_and_places(directory: Path) -> None:
    refused(directory)

    result = run("queue", "show", directory)
    view = answered("queue", "show", directory)

    assert result.exit_code == 0
    assert "/dev/shm/" in result.stdout
    assert f"rexport queue dead {directory}" in result.stderr
    (target,) = view["targets"]
    assert (target["accepted"], target["delivered"], target["dead"], target["pending"]) == (10, 8, 2, 0)


def test_show_takes_a_name_under_the_state_root(own_queues: Path) -> None:
    closed(own_queues / "mine", 1)

    assert run("queue", "show", "mine").exit_code == 0


def test_a_queue_is_found_by_the_name_of_its_exporter() -> None:
    # Given: an exporter's default directory, whose name has a digest at its end
    with FlakyTarget([DOWN], name="dash board") as exporter:
        directory = exporter.directory
        exporter.send({"n": 1})
        assert exporter.save()
    assert directory is not None
    assert directory.name.startswith("dash-board-")
    # Then
    assert answered("queue", "show", "dash board")["directory"] == str(directory)


@pytest.mark.parametrize("command", ["show", "peek", "verify", "repair", "dead", "replay", "export"])
def test_a_directory_that_is_no_queue_is_refused(command: str, tmp_path: Path) -> None:
    result = run("queue", command, tmp_path)

    assert result.exit_code == 1
    assert "is no queue directory" in result.stderr
    assert run("queue", command, tmp_path / "nowhere").exit_code == 2


def test_peek_shows_the_oldest_records_and_takes_nothing_out(directory: Path) -> None:
    closed(directory, 100)

    result = run("queue", "peek", directory, "--limit", 2)

    assert '{"n":0}' in result.stdout
    assert '{"n":2}' not in result.stdout
    assert "2 of 100" in result.stderr
    assert [record["data"] for record in answered("queue", "peek", directory)] == [{"n": n} for n in range(10)]
    assert len(waiting(directory)) == 100


def test_text_in_a_record_is_never_markup(directory: Path) -> None:
    with FlakyTarget([DOWN], name="t", directory=directory) as target:
        target.send("[red]not red[/red] [/]")

    assert "[red]not red[/red] [/]" in run("queue", "peek", directory).stdout


def test_an_unknown_target_is_refused_and_the_known_ones_named(directory: Path) -> None:
    closed(directory, 1)
    for command in ("peek", "dead", "export"):
        result = run("queue", command, directory, "--target", "other")
        assert result.exit_code == 2
        assert "it has: t" in result.stderr


def test_a_queue_in_use_is_read_and_never_changed(directory: Path) -> None:
    # Given
    target = FlakyTarget([DOWN], name="t", directory=directory)
    target.send([{"n": n} for n in range(5)])

    # Then what reads says so
    for command in ("show", "peek", "verify", "dead", "export"):
        result = run("queue", command, directory)
        assert result.exit_code == 0, command
        assert "read without locking" in result.stderr
        assert str(os.getpid()) in result.stderr
    # and what writes refuses
    for arguments in (["repair"], ["replay"], ["discard", "--pending", "--yes"]):
        result = run("queue", arguments[0], directory, *arguments[1:])
        assert result.exit_code == 1
        assert str(os.getpid()) in result.stderr
        assert "stop that program first" in result.stderr
    assert target.stats().pending == 5
    target.close(0)


def test_verify_and_repair_of_a_damaged_queue(directory: Path) -> None:
    # Given
    closed(directory)
    flip_first_block(directory)

    # When it is verified
    result = run("queue", "verify", directory)
    assert result.exit_code == 1
    assert "DAMAGE" in result.stdout
    assert "rexport queue repair" in result.stderr
    assert answered("queue", "verify", directory)["sound"] is False

    # and repaired
    report = run("queue", "repair", directory)
    assert report.exit_code == 0
    assert "could not be saved" in report.stdout

    # Then it is sound
    after = run("queue", "verify", directory)
    assert after.exit_code == 0
    assert ": sound;" in after.stdout


def test_repair_puts_on_disk_what_is_in_memory_only(directory: Path) -> None:
    killed(directory, total=20)

    result = run("queue", "repair", directory)

    assert "20 records that were in memory only are on disk now" in result.stdout
    assert "nothing was damaged" in result.stdout
    assert answered("queue", "show", directory)["in_memory"] == 0


def test_repair_says_so_if_it_is_not_known_whom_records_wait_for(directory: Path) -> None:
    closed(directory)
    forget_cursors(directory)

    result = run("queue", "repair", directory)

    assert result.exit_code == 1
    assert "cursors are gone" in result.stdout


def test_dead_letters_are_listed_replayed_and_discarded(directory: Path) -> None:
    # Given
    refused(directory)
    listed = run("queue", "dead", directory)
    letters = answered("queue", "dead", directory)
    assert "no such column" in listed.stdout
    assert [letter["data"]["n"] for letter in letters] == [3, 7]

    # When one is replayed and the other discarded
    assert "1 dead letters are queued again" in run("queue", "replay", directory, letters[0]["id"]).stdout
    assert run("queue", "discard", directory, letters[1]["id"], "--yes").exit_code == 0

    # Then
    assert answered("queue", "dead", directory) == []
    assert waiting(directory) == [3]
    (target,) = answered("queue", "show", directory)["targets"]
    assert target["dropped"] == {"discarded": 1}


def test_replay_of_an_unknown_id_says_so(directory: Path) -> None:
    refused(directory)

    result = run("queue", "replay", directory, "0000000000000000-1")

    assert result.exit_code == 1
    assert "1 of the ids are no dead letters here" in result.stderr


def test_discard_asks_and_does_nothing_unless_it_is_told_to(directory: Path) -> None:
    # Given
    closed(directory, 5)

    # Then without saying what, or with a no, or with nobody there to say yes, nothing is thrown away
    assert run("queue", "discard", directory).exit_code == 2
    no = run("queue", "discard", directory, "--pending", answer="n\n")
    assert no.exit_code == 1
    assert "5 waiting records and 0 dead letters" in no.stdout
    assert run("queue", "discard", directory, "--pending", answer="").exit_code == 1
    assert len(waiting(directory)) == 5

    # When it is told to
    yes = run("queue", "discard", directory, "--pending", answer="y\n")
    assert yes.exit_code == 0
    assert waiting(directory) == []


def test_discard_of_a_target_takes_its_backlog_and_its_letters_and_no_one_elses(directory: Path) -> None:
    # Given
    members = [FlakyTarget([Reject("no"), DOWN], name="bad"), FlakyTarget([DOWN], name="good")]
    with ExporterPool(members, directory=directory) as pool:
        pool.send({"n": 0})
        pool.flush(60)
        pool.send({"n": 1})

    # When
    result = run("queue", "discard", directory, "--target", "bad", "--yes")

    # Then
    assert "threw away 1 waiting records and 1 dead letters" in result.stdout
    assert waiting(directory, "good") == [0, 1]
    assert waiting(directory, "bad") == []
    assert run("queue", "discard", directory, "--target", "bad", "--yes").stdout == "there is nothing of the kind\n"


def test_export_writes_json_lines_and_changes_nothing(directory: Path) -> None:
    closed(directory, 3)

    lines = run("queue", "export", directory).stdout.splitlines()
    with_ids = [json.loads(line) for line in run("queue", "export", directory, "--with-ids").stdout.splitlines()]

    assert [json.loads(line) for line in lines] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert [line["targets"] for line in with_ids] == [["t"]] * 3
    assert with_ids[1]["id"].endswith("-1")
    assert len(waiting(directory)) == 3


def test_export_to_a_database_keeps_ids_so_that_it_can_be_repeated(directory: Path, tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    closed(directory, 1200)
    url = f"sqlite:///{tmp_path / 'x.db'}?table=readings"

    for _ in range(2):
        result = run("queue", "export", directory, "--to", url)
        assert result.exit_code == 0, result.stderr

    connection = sqlite3.connect(tmp_path / "x.db")
    assert connection.execute("SELECT count(*), count(DISTINCT n) FROM readings").fetchone() == (1200, 1200)
    connection.close()
    assert len(waiting(directory)) == 1200


def test_export_to_a_target_that_is_down_says_so(directory: Path) -> None:
    closed(directory, 5)

    result = run("queue", "export", directory, "--to", "file:///proc/nowhere/x.jsonl", "--timeout", "1")

    assert result.exit_code == 1
    assert "0 of 5 records" in result.stderr
    assert "stopped: FileNotFoundError" in result.stderr


def test_export_reports_what_a_target_refuses(directory: Path, tmp_path: Path) -> None:
    closed(directory, 3)
    (tmp_path / "x.csv").write_text("other\n")

    result = run("queue", "export", directory, "--to", f"file://{tmp_path / 'x.csv'}?format=csv")

    assert result.exit_code == 1
    assert "refused: " in result.stderr
    assert "no column for n" in result.stderr


def test_what_was_delivered_is_not_shown_as_waiting(directory: Path) -> None:
    with RecordingExporter(name="t", directory=directory) as target:
        target.send([{"n": n} for n in range(4)])
        target.flush(60)

    assert answered("queue", "peek", directory) == []
    assert answered("queue", "show", directory)["targets"][0]["delivered"] == 4
