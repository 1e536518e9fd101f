"""Lines that are piped in: to the end of the input, in batches that do not wait for ever, once over a resume."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from resilient_exporters.pipeline.deserializers import TextLinesDeserializer
from resilient_exporters.pipeline.errors import BadRecordError, ConfigurationError
from resilient_exporters.pipeline.readers import StdinReader

LINES = b'{"n": 1}\n{"n": 2}\n\n{"n": 3}\n{"n": 4}'


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    number, target = os.pipe()
    with open(number) as source, open(target, "wb", buffering=0) as sink:  # noqa: PTH123 - of a number
        monkeypatch.setattr(sys, "stdin", source)
        yield sink


def numbers(reader: StdinReader) -> list[int]:
    return [record["n"] for record in reader.get_next_batch()]


def test_lines_to_the_end_of_the_input(pipe: Any) -> None:
    pipe.write(LINES)
    pipe.close()
    reader = StdinReader(batch_size=2)
    assert numbers(reader) == [1, 2]
    assert reader.get_last_position() == {"lines": 2}
    assert not reader.is_finished()
    assert numbers(reader) == [3]  # and a blank line
    assert numbers(reader) == [4]
    assert numbers(reader) == []
    assert reader.is_finished()


def test_a_resume_leaves_out_as_many(pipe: Any) -> None:
    for skip, expected in ((2, [3, 4]), (4, [4]), (5, []), (9, [])):
        number, target = os.pipe()
        with open(number) as source, open(target, "wb", buffering=0) as sink:  # noqa: PTH123 - of a number
            sys.stdin = source  # the fixture puts it back
            sink.write(LINES)
            sink.close()
            reader = StdinReader()
            reader.set_last_position({"lines": skip})
            assert numbers(reader) == expected
            assert reader.is_finished()


def test_a_batch_that_has_something_waits_for_linger_only(pipe: Any) -> None:
    # Given an input that stays open
    pipe.write(b'{"n": 1}\n{"half": ')
    reader = StdinReader(linger=0.0)
    assert numbers(reader) == [1]
    pipe.write(b'2, "n": 2}\n')
    assert numbers(reader) == [2]
    reader.stopping = lambda: True
    assert numbers(reader) == []
    assert not reader.is_finished()


def test_bad_lines_are_named(pipe: Any) -> None:
    pipe.write(b'{"n": 1}\n{"n": \n')
    pipe.close()
    with pytest.raises(BadRecordError, match="line 2"):
        numbers(StdinReader())


def test_lines_of_text(pipe: Any) -> None:
    pipe.write(b"one\ntwo")
    pipe.close()
    reader = StdinReader()
    reader.deserializer = TextLinesDeserializer()
    assert list(reader.get_next_batch()) == [{"line": "one"}, {"line": "two"}]


def test_without_a_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for stdin in (None, io.StringIO("x")):
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(ConfigurationError, match="no standard input"):
            numbers(StdinReader())


def test_in_a_program() -> None:
    program = (
        "from resilient_exporters.pipeline.readers import StdinReader\n"
        "reader = StdinReader(batch_size=7)\n"
        "while not reader.is_finished():\n"
        "    for record in reader.get_next_batch():\n"
        "        print(record['n'])\n"
    )
    text = "".join(f'{{"n": {number}}}\n' for number in range(20_000))
    done = subprocess.run([sys.executable, "-c", program], input=text, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(number) for number in range(20_000)]
