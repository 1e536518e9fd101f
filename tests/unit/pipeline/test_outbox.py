"""Parcels: nothing goes out before it is on record, and nothing goes out twice."""

from __future__ import annotations

from typing import Any

import pytest

from resilient_exporters.pipeline import BaseRecord, Pipeline, StateError
from resilient_exporters.pipeline.checkpoint import Store
from resilient_exporters.pipeline.readers import IterableReader
from resilient_exporters.pipeline.workplace import Workplace
from resilient_exporters.pipeline.writers.outbox import OutboxWriter, Parcel


class Broken(Exception):
    """The program is killed here."""


class Delivered(OutboxWriter):
    """Keeps what goes out, by the identity of the parcel."""

    def __init__(self, out: list[tuple[str, list[bytes]]], **options: Any) -> None:
        super().__init__(**options)
        self.out = out
        self.kill: str | None = None

    def pack(self, record: BaseRecord) -> bytes:
        return str(record["n"]).encode()

    def deliver(self, parcel: Parcel, entries: list[bytes]) -> None:
        if self.kill == "before":
            raise Broken
        self.out.append((self.id_of(parcel), entries))
        if self.kill == "after":
            raise Broken


class Grouped(Delivered):
    groups = True


def numbers(out: list[tuple[str, list[bytes]]]) -> list[int]:
    """What a service has that knows parcels by their identity."""
    return [int(entry) for entries in dict(out).values() for entry in entries]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("parcel", [1, 3, 7, 100])
def test_a_kill_around_a_delivery(when: str, parcel: int) -> None:
    # Given a run that is killed when it hands over its second parcel
    out: list[tuple[str, list[bytes]]] = []

    def pipeline(resume: str | None) -> tuple[Pipeline, Delivered]:
        writer = Delivered(out, items_per_buffer_write=parcel)
        reader = IterableReader(({"n": n} for n in range(20)), batch_size=4)
        return Pipeline(reader, writer=writer, resume=resume), writer

    first, writer = pipeline(None)
    done = writer.deliver

    def second(one: Parcel, entries: list[bytes]) -> None:
        writer.kill = when if one.number == (1 if parcel < 20 else 0) else None
        done(one, entries)

    writer.deliver = second  # type: ignore[method-assign,assignment]  # the moment of the kill
    with pytest.raises(Broken):
        first.run()

    # When it is resumed
    again, _ = pipeline(first.persistence.job)
    report = again.run()

    # Then each record went out; twice only in a parcel of the same identity
    assert numbers(out) == list(range(20))
    assert len(out) - len(dict(out)) == (when == "after")
    assert report.written == 20


def test_each_group_has_parcels_of_its_own() -> None:
    out: list[tuple[str, list[bytes]]] = []
    writer = Grouped(out, items_per_buffer_write=2)
    records = []
    for n in range(10):
        record = BaseRecord(n=n)
        record.group_membership = (n % 3,)
        records.append(record)
    Pipeline(records, writer=writer).run()
    assert all(len({int(entry) % 3 for entry in entries}) == 1 for _, entries in out)
    assert sorted(numbers(out)) == list(range(10))


def test_what_was_written_after_the_commit_is_thrown_away() -> None:
    # Given a writer that was killed between two commits, with a batch written to its files
    place = Workplace()
    first = Delivered([], items_per_buffer_write=100)
    first.workplace = place
    first.write_batch([BaseRecord(n=n) for n in range(3)])
    first.prepare()
    state = first.get_state()
    first.write_batch([BaseRecord(n=n) for n in range(3, 200)])
    first.prepare()

    # When it is resumed, and the source gives other records this time
    out: list[tuple[str, list[bytes]]] = []
    second = Delivered(out, items_per_buffer_write=100)
    second.workplace = place
    second.set_state(state)
    second.write_batch([BaseRecord(n=n) for n in range(50, 60)])
    second.flush()
    second.prepare()
    second.committed()

    # Then what was committed and what came since is there, and no file is left
    assert numbers(out) == [0, 1, 2, *range(50, 60)]
    assert list(place.path.glob("parcel-*")) == []
    place.remove()


def test_files_that_are_gone_are_an_error() -> None:
    place = Workplace()
    writer = Delivered([])
    writer.workplace = place
    writer.write_batch([BaseRecord(n=1)])
    writer.prepare()
    for path in place.path.iterdir():
        path.unlink()
    again = Delivered([])
    again.workplace = place
    with pytest.raises(StateError, match="1 records were here, and are gone"):
        again.set_state(writer.get_state())
    place.remove()


def test_a_large_batch_is_not_held_in_memory() -> None:
    place = Workplace()
    writer = Delivered([], items_per_buffer_write=100_000, size_per_buffer_write=1 << 30)
    writer.workplace = place
    writer.pack = lambda record: b"x" * 100_000  # type: ignore[method-assign]  # large ones
    writer.write_batch(BaseRecord(n=n) for n in range(100))
    assert sum(path.stat().st_size for path in place.path.iterdir()) > 8_000_000
    place.remove()


class Refusing(Delivered):
    """Takes no odd number."""

    def deliver(self, parcel: Parcel, entries: list[bytes]) -> None:
        super().deliver(parcel, [entry for entry in entries if int(entry) % 2 == 0])
        for entry in entries:
            if int(entry) % 2:
                self.bad_records.add(int(entry), "odd", part=self.part)
                self.items_count -= 1


def test_what_is_refused_is_put_aside_even_if_the_program_is_killed_at_once() -> None:
    # Given a run that is killed when the second parcel is handed over, before the next commit
    def pipeline(resume: str | None, kill: bool) -> Pipeline:
        writer = Refusing([], items_per_buffer_write=4)
        if kill:
            done = writer.committed

            def then_die() -> None:
                done()
                if writer._next > 1:
                    raise Broken

            writer.committed = then_die  # type: ignore[method-assign] # the moment of the kill
        reader = IterableReader(({"n": n} for n in range(12)), batch_size=4)
        return Pipeline(reader, writer=writer, resume=resume, on_bad_record="dead")

    first = pipeline(None, kill=True)
    with pytest.raises(Broken):
        first.run()

    # When it is resumed, then what was refused is there, once, and is not counted as written
    again = pipeline(first.persistence.job, kill=False)
    report = again.run()
    store = Store(again.persistence.url())
    assert [bad.data for bad in store.dead(report.job)] == [1, 3, 5, 7, 9, 11]
    store.close()
    assert report.written == 6


def test_a_directory_that_is_gone_is_no_delivery() -> None:
    place = Workplace()
    writer = Delivered([], items_per_buffer_write=2)
    writer.workplace = place
    writer.write_batch([BaseRecord(n=n) for n in range(4)])
    writer.prepare()
    state = writer.get_state()
    place.remove()
    again = Delivered([])
    again.workplace = Workplace()
    with pytest.raises(StateError, match="4 records were here, and are gone: begin a new job"):
        again.set_state(state)
    again.workplace.remove()


def test_used_alone_it_hands_over_all_and_leaves_no_directory() -> None:
    out: list[tuple[str, list[bytes]]] = []
    writer = Delivered(out, items_per_buffer_write=4)
    writer.write_batch([BaseRecord(n=n) for n in range(10)])
    place = writer.workplace.path
    writer.flush()
    writer.finish_writing()
    writer.close()
    assert numbers(out) == list(range(10))
    assert not place.exists()
