"""Streams: whatever interrupts the reading, it goes on with exactly the records that were not given."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_exporters import RetryPolicy
from resilient_exporters.codec import decode, encode
from resilient_exporters.pipeline import Pipeline
from resilient_exporters.pipeline.decompressors import BZ2Decompressor
from resilient_exporters.pipeline.deserializers import CSVDeserializer
from resilient_exporters.pipeline.errors import BadRecordError, PipelineError, UnreadableStreamError
from resilient_exporters.pipeline.readers import BaseStreamReader
from resilient_exporters.pipeline.readers import stream as stream_module
from resilient_exporters.pipeline.readers.stream import StreamReadError
from resilient_exporters.testing import RecordingExporter


class Shelf(BaseStreamReader):
    """Reads streams from a dict; ``wires`` says after how many bytes each opening breaks."""

    retry_policy = RetryPolicy(0.0, stop=8)

    def __init__(self, streams: dict[str, bytes], wires: Iterable[int | Exception] = (), **options: Any) -> None:
        super().__init__(**options)
        self.streams = streams
        self.wires = iter(wires)
        self.opened: list[str] = []
        self.shut = 0

    def get_read_streams(self) -> Iterable[str]:
        return sorted(self.streams)

    def open_stream(self, stream: str) -> Any:
        self.opened.append(stream)
        return Wire(self, self.streams[stream], next(self.wires, None))


class Wire(io.BytesIO):
    def __init__(self, shelf: Shelf, data: bytes, breaks: int | Exception | None) -> None:
        super().__init__(data)
        self.shelf = shelf
        self.breaks = breaks

    def read(self, size: int | None = -1, /) -> bytes:
        if isinstance(self.breaks, Exception):
            raise self.breaks
        if self.breaks is not None and self.tell() >= self.breaks:
            raise ConnectionResetError("by peer")
        return super().read(size if self.breaks is None else min(size or 0, 40))

    def close(self) -> None:
        self.shelf.shut += not self.closed
        super().close()


def taken(reader: BaseStreamReader) -> Generator[dict[str, Any], None, None]:
    while not reader.is_finished():
        yield from reader.get_next_batch()


def lines(*numbers: int) -> bytes:
    return b"".join(json.dumps({"n": number}).encode() + b"\n" for number in numbers)


LINE = st.sampled_from([b'{"a": %d}', b"", b'{"half": ', b"[%d]", b'{"a": NaN, "n": %d}'])
STREAM = st.tuples(st.lists(LINE, max_size=12), st.booleans(), st.booleans())


def made(number: int, described: tuple[list[bytes], bool, bool]) -> bytes:
    shapes, ended, packed = described
    numbered = [one % (number * 100 + at) if b"%d" in one else one for at, one in enumerate(shapes)]
    data = b"\n".join(numbered) + (b"\n" if ended and numbered else b"")
    return gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :]) if packed else data


@settings(max_examples=150)
@given(
    described=st.lists(STREAM, min_size=1, max_size=4),
    batch=st.integers(1, 7),
    cuts=st.lists(st.integers(0, 12), max_size=5),
    wires=st.lists(st.integers(0, 120), max_size=6),
)
def test_any_interruption_resumes_to_exactly_the_same_records(
    described: list[tuple[list[bytes], bool, bool]], batch: int, cuts: list[int], wires: list[int]
) -> None:
    # Given streams with good, blank and bad lines, packed or not
    streams = {f"{number}.jl": made(number, one) for number, one in enumerate(described)}
    whole = Shelf(streams, batch_size=batch)
    whole.bad_records.choice = "dead"
    expected = [repr(record) for record in taken(whole)]
    bad = [(one.data, one.where) for one in whole.bad_records.drain()]

    # When reading ends after some records, within a batch too, over breaking wires, and another reader goes on
    found, dead, position = [], [], None
    for cut in [*cuts, None]:
        reader = Shelf(streams, wires, batch_size=batch)
        reader.bad_records.choice = "dead"
        reader.set_last_position(position)
        source = taken(reader)
        for number, record in enumerate(source):
            found.append(repr(record))
            if cut is not None and number + 1 >= cut:
                break
        position = decode(encode(reader.get_last_position()))
        source.close()
        reader.close()
        dead += [(one.data, one.where) for one in reader.bad_records.drain()]

    # Then every record came once, in its order, and every bad one was counted once
    assert found == expected
    assert dead == bad
    assert position == {"readed_streams": sorted(streams), "stream_offset": {}}


def test_a_batch_goes_over_streams_and_positions_stand_for_what_was_given() -> None:
    reader = Shelf({"a": lines(1, 2, 3), "b": lines(4, 5)}, batch_size=2)
    positions = []
    for _ in range(3):
        list(reader.get_next_batch())
        positions.append(reader.get_last_position())
    marks = [position.pop("stream_mark", None) for position in positions]
    assert [mark and list(mark) for mark in marks] == [["a"], ["b"], None]
    assert positions == [
        {"readed_streams": [], "stream_offset": {"a": 2}},
        {"readed_streams": ["a"], "stream_offset": {"b": 1}},
        {"readed_streams": ["a", "b"], "stream_offset": {}},
    ]
    assert reader.is_finished()
    assert reader.shut == len(reader.opened) == 2


def test_it_gives_up_after_all_attempts_and_says_what_failed() -> None:
    reader = Shelf({"a": lines(1)}, [ConnectionResetError("by peer")] * 8)
    with pytest.raises(StreamReadError, match=r"reading a failed: ConnectionResetError\('by peer'\)"):
        list(taken(reader))
    assert reader.opened == ["a"] * 8
    # Another call begins again where it stands
    assert list(taken(reader)) == [{"n": 1}]


def test_attempts_count_anew_once_something_came() -> None:
    data = lines(*range(2000))
    reader = Shelf({"a": data}, range(1000, len(data), 1000))
    assert [record["n"] for record in taken(reader)] == list(range(2000))
    assert len(reader.opened) > 8


def test_what_stays_is_not_tried_again() -> None:
    for error, kind, words in (
        (PermissionError("not yours"), PipelineError, "reading a is not allowed: not yours"),
        (ValueError("a bug"), ValueError, "a bug"),
        (FileNotFoundError("a"), BadRecordError, "there is no such file or object"),
    ):
        reader = Shelf({"a": lines(1)}, [error] * 8)
        with pytest.raises(kind, match=words):
            list(taken(reader))
        assert reader.opened == ["a"]


@pytest.mark.parametrize("cut", [5, 400])
def test_a_damaged_stream_is_one_bad_record_and_the_next_one_is_read(cut: int) -> None:
    # Given a gz file that was cut, between sound ones
    packed = gzip.compress(lines(*range(100, 1100)))
    streams = {"a": lines(1), "b.gz": packed[:-cut], "c": lines(2)}

    # Then it ends the run before any output
    target = RecordingExporter()
    with pytest.raises(BadRecordError, match=r"b\.gz.*the gzip or zlib data ends in the middle"):
        Pipeline(Shelf(streams), writer=target, on_bad_record="fail", forced_reads=True).run()
    assert target.records == []

    # Or it is counted, and what came before the damage is there
    target = RecordingExporter()
    report = Pipeline(Shelf(streams), writer=target, on_bad_record="skip").run()
    found = [record["n"] for record in target.wait_for(report.written)]
    assert found == [1, *range(100, 100 + len(found) - 2), 2]
    assert report.bad == {"reader": 1}


def test_a_stream_that_is_gone_at_a_resume_is_not_passed_over_in_silence() -> None:
    reader = Shelf({"b": lines(4)})
    reader.set_last_position({"readed_streams": ["0"], "stream_offset": {"a": 2}})
    with pytest.raises(BadRecordError, match="it is gone, and was not read to its end"):
        list(taken(reader))

    reader = Shelf({"b": lines(4)})
    reader.bad_records.choice = "skip"
    reader.set_last_position({"readed_streams": ["0"], "stream_offset": {"a": 2}})
    assert list(taken(reader)) == [{"n": 4}]
    assert reader.bad_records.count == {"reader": 1}
    assert reader.get_last_position() == {"readed_streams": ["0", "a", "b"], "stream_offset": {}}


def test_names_of_many_streams_are_written_down_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a reader of more streams than a position should name
    monkeypatch.setattr(stream_module, "_LISTED", 5)
    streams = {f"{number:03}": lines(number) for number in range(40)}
    reader, journal, sizes, position = Shelf(streams, batch_size=3), [], [], None
    for _ in range(10):
        list(reader.get_next_batch())
        position = reader.get_last_position()
        journal += reader.drain_journal()
        sizes.append(len(position["readed_streams"]))
    assert max(sizes) < 10

    # Then a resume knows all of them
    again = Shelf(streams, batch_size=3)
    again.replay_journal(journal)
    again.set_last_position(position)
    assert [record["n"] for record in taken(again)] == list(range(30, 40))


def test_a_job_goes_on_after_a_failure_with_every_record_once(tmp_path: Any) -> None:
    # Given a run that fails in the middle of a stream
    streams = {"a.gz": gzip.compress(lines(*range(50))), "b": lines(*range(50, 100))}

    def failing(record: Any) -> bool:
        if record["n"] == 73 and not mended:
            raise RuntimeError("not today")
        return True

    mended = False
    target = RecordingExporter(directory=tmp_path / "queue")
    first = Pipeline(Shelf(streams, batch_size=7), failing, writer=target)
    with pytest.raises(BadRecordError, match="not today"):
        first.run()

    # When it is resumed
    mended = True
    report = Pipeline(Shelf(streams, batch_size=7), failing, writer=target, resume=first.persistence.job).run()

    # Then every record is there once
    assert report.complete
    assert sorted(record["n"] for record in target.wait_for(100)) == list(range(100))


def test_decompressor_and_deserializer_may_be_given() -> None:
    reader = Shelf({"a.jl": b"a,b\n1,2\n"})
    reader.deserializer = CSVDeserializer()
    assert list(taken(reader)) == [{"a": "1", "b": "2"}]
    reader = Shelf({"a.jl": lines(1)})
    reader.decompressor = BZ2Decompressor()
    with pytest.raises(BadRecordError, match=r"this is no bzip2 data .*use NoDecompressor"):
        list(taken(reader))
    assert reader.shut == 1


def test_bad_lines_are_named_by_file_and_line() -> None:
    reader = Shelf({"x.jl": lines(1) + b"\n{]\n"})
    with pytest.raises(BadRecordError, match=r"a bad record at x\.jl, line 3: "):
        list(taken(reader))


def test_how_much_was_read() -> None:
    reader = Shelf({"a": lines(*range(100)), "b": lines(1)}, batch_size=50)
    reader.stream_size = lambda stream: len(reader.streams[stream])  # type: ignore[method-assign]  # a source that knows
    assert reader.share_done() is None
    list(reader.get_next_batch())
    assert 0.0 < (reader.share_done() or 0.0) <= 0.5
    list(taken(reader))
    assert reader.share_done() == 1.0


def test_listing_that_fails_is_tried_again_and_what_is_missing_is_not() -> None:
    reader = Shelf({"a": lines(1)})
    answers: Iterator[Any] = iter([ConnectionResetError("by peer"), ["a"]])

    def listed() -> Any:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    reader.get_read_streams = listed  # type: ignore[method-assign]  # a store with a bad day
    assert list(taken(reader)) == [{"n": 1}]

    reader = Shelf({})
    reader.bad_records.choice = "skip"
    answers = iter([FileNotFoundError("no bucket")])
    reader.get_read_streams = listed  # type: ignore[method-assign]  # as above
    with pytest.raises(UnreadableStreamError, match="no bucket"):
        list(taken(reader))


def test_a_subclass_must_say_what_it_reads() -> None:
    with pytest.raises(NotImplementedError, match="must define get_read_streams"):
        list(taken(BaseStreamReader()))
