"""Random records: their shape, and that a resumed run goes on with those that it would have had."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient_exporters.pipeline.errors import ConfigCheckError
from resilient_exporters.pipeline.readers import RandomReader


def all_of(reader: RandomReader) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while not reader.is_finished():
        found += reader.get_next_batch()
    return found


def test_the_shape_of_a_record() -> None:
    records = all_of(RandomReader())
    assert [record["key"] for record in records] == list(range(1000))
    assert {tuple(record) for record in records} == {("key", "country_code", "state", "city", "value")}
    assert {record["country_code"] for record in records} == {"es", "uk", "us"}
    assert len({record["state"] for record in records}) == 3
    assert not all(record["state"].isascii() for record in records)
    assert {tuple(record["city"]) for record in records} == {("name", "district")}
    assert all(0 <= record["value"] <= 10_000 for record in records)


@settings(max_examples=30)
@given(seed=st.integers(), number=st.integers(0, 400), batch=st.integers(1, 300), cut=st.integers(0, 20))
def test_a_resume_goes_on_with_the_same_records(seed: int, number: int, batch: int, cut: int) -> None:
    expected = all_of(RandomReader(number_of_items=number, seed=seed, batch_size=37))
    assert len(expected) == number
    first = RandomReader(number_of_items=number, seed=seed, batch_size=batch)
    found: list[dict[str, Any]] = []
    while len(found) < cut and not first.is_finished():
        found += first.get_next_batch()
    second = RandomReader(number_of_items=number, batch_size=batch)  # its own seed is another one
    second.set_state(first.get_state())
    second.set_last_position(first.get_last_position())
    assert first.get_last_position() == {"last_read": len(found)}
    assert found + (all_of(second) if not first.is_finished() else []) == expected


def test_seeds_differ() -> None:
    assert all_of(RandomReader(seed=1)) == all_of(RandomReader(seed=1)) != all_of(RandomReader(seed=-1))
    assert all_of(RandomReader()) != all_of(RandomReader())


def test_options_that_cannot_be() -> None:
    with pytest.raises(ConfigCheckError, match="batch_size=0"):
        RandomReader(batch_size=0)
