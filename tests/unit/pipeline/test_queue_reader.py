"""A queue directory as a source: what waits and what is dead, once each, and left where it is unless asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from resilient_exporters import ExporterPool, Reject
from resilient_exporters.delivery.inspection import Inspection
from resilient_exporters.pipeline import ConfigurationError, Pipeline, PipelineError
from resilient_exporters.pipeline.readers import QueueReader
from resilient_exporters.testing import FlakyTarget
from tests.readings import Keeping, run_with_stumbles

DOWN = ConnectionError("no link")


@pytest.fixture
def waiting(tmp_path: Path) -> Path:
    """A queue in which 250 records wait for two targets, on disk."""
    directory = tmp_path / "waiting"
    targets = [FlakyTarget([DOWN], cycle=True, name=name) for name in ("a", "b")]
    with ExporterPool(targets, name="pool", directory=directory) as pool:
        pool.send([{"n": number} for number in range(249)])
        pool.send("a text")
        pool.close(0)
    return directory


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    """A queue with 60 dead letters of each of two targets."""
    directory = tmp_path / "dead"
    targets = [FlakyTarget([Reject("not like that")], cycle=True, name=name) for name in ("a", "b")]
    with ExporterPool(targets, name="pool", directory=directory) as pool:
        pool.send([{"n": number} for number in range(60)])
        pool.flush(60)
    return directory


def letters(directory: Path) -> list[tuple[str, int]]:
    with Inspection(directory) as found:
        return [(one.target, one.data["n"]) for one in found.letters()]


@pytest.mark.parametrize("threaded", [False, True])
def test_what_waits_is_given_once_and_stays(waiting: Path, threaded: bool) -> None:
    # When it is read with interruptions
    kept, runs = run_with_stumbles(
        lambda: QueueReader(directory=waiting, batch_size=40, about_field="about"), [1, 41, 200], threaded=threaded
    )

    # Then every record came once, though two targets wait for it
    assert runs == 4
    assert [one.get("n", one.get("value")) for one in kept] == [*range(249), "a text"]
    assert kept[0]["about"]["targets"] == ["a", "b"]

    # And is still there
    with Inspection(waiting) as found:
        assert found.view().waiting == 250


def test_dead_letters_are_given_once_and_stay(dead: Path) -> None:
    kept, _ = run_with_stumbles(
        lambda: QueueReader(directory=str(dead), what="dead", target="a", about_field="about", batch_size=25), [30]
    )
    assert [one["n"] for one in kept] == list(range(60))
    assert (kept[0]["about"]["reason"], kept[0]["about"]["targets"]) == ("not like that", ["a"])
    assert len(letters(dead)) == 120


@pytest.mark.parametrize("threaded", [False, True])
def test_dead_letters_are_discarded_when_they_are_committed(dead: Path, threaded: bool) -> None:
    # Given a job that fails in its third batch
    seen: list[int] = []

    def reader() -> QueueReader:
        return QueueReader(directory=dead, what="dead", discard=True, batch_size=25)

    kept, _ = run_with_stumbles(reader, [60], after=lambda: seen.append(len(letters(dead))), threaded=threaded)

    # Then what was committed was gone, and nothing else; and in the end all is, each given once
    assert seen == [70]
    assert letters(dead) == []
    assert sorted(one["n"] for one in kept) == sorted([*range(60)] * 2)
    with Inspection(dead) as found:
        assert [(one.dead, one.dropped) for one in found.view().targets] == [(0, {"discarded": 60})] * 2


def test_what_was_committed_and_not_discarded_is_discarded_by_the_resume(dead: Path) -> None:
    # Given a reader that was killed between commit and discarding
    reader = QueueReader(directory=dead, what="dead", target="a", discard=True, batch_size=25)
    given = [one["n"] for one in reader.get_next_batch()]
    position = reader.get_last_position()

    # When another one goes on from there
    again = QueueReader(directory=dead, what="dead", target="a", discard=True, batch_size=25)
    again.set_last_position(position)
    more = [one["n"] for one in again.get_next_batch()]
    again.committed(again.get_last_position())

    # Then both batches are gone
    assert given + more == list(range(50))
    assert len(letters(dead)) == 70


def test_a_queue_in_use_is_read_but_nothing_is_discarded(tmp_path: Path) -> None:
    directory = tmp_path / "used"
    with FlakyTarget([DOWN], cycle=True, name="t", directory=directory) as exporter:
        exporter.send([{"n": number} for number in range(10)])
        kept: list[Any] = []
        Pipeline(QueueReader(directory=directory), writer=Keeping(kept)).run()
        assert [one["n"] for one in kept] == list(range(10))
        with pytest.raises(PipelineError, match="is in use by"):
            Pipeline(QueueReader(directory=directory, what="dead", discard=True), writer=Keeping([])).run()
        exporter.close(0)


def test_mistakes_are_told(tmp_path: Path, dead: Path) -> None:
    with pytest.raises(ConfigurationError, match="discard=True is for"):
        QueueReader(directory=tmp_path, discard=True)
    for options, text in (({"directory": tmp_path}, "is no queue directory"), ({"target": "c"}, "knows a, b")):
        given: dict[str, Any] = {"directory": dead, **options}
        with pytest.raises(PipelineError, match=text):
            Pipeline(QueueReader(**given), writer=Keeping([])).run()
