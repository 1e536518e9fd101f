from __future__ import annotations

import pytest

from resilient_exporters import codec
from resilient_exporters.delivery.attempt import Decoded, decode
from resilient_exporters.delivery.frame import OPTIONS, frame, walk
from resilient_exporters.delivery.queue import Piece, Taken

RUN = b"run-8byt"


def piece_of(first: int, count: int, how: str, shift: int = 0, **special: bytes) -> Piece:
    """A piece with the records ``first`` on, as it comes from the ring or from disk."""
    parts = [special.get(f"at{number}", codec.encode({"n": number})) for number in range(first, first + count)]
    data = b"".join(frame(part, first + at) for at, part in enumerate(parts))
    if how == "plain":
        return Piece(data, None, RUN, first, shift, parts)
    return Piece(data, walk(data, first) if how == "frames" else None, RUN, first, shift)


def numbers(decoded: Decoded) -> list[int]:
    return [record.data["n"] for record in decoded.records]


@pytest.mark.parametrize("how", ["ring", "plain", "frames"])
@pytest.mark.parametrize(("start", "stop"), [(0, 10), (3, 10), (0, 7), (4, 5), (9, 10)])
def test_any_part_of_a_piece(how: str, start: int, stop: int) -> None:
    decoded = decode(Taken(start + 100, stop + 100, [piece_of(0, 10, how, 100)]), "t")
    assert numbers(decoded) == list(range(start, stop))
    assert list(decoded.offsets) == list(range(start + 100, stop + 100))
    assert [record.id for record in decoded.records] == [f"{RUN.hex()}-{at}" for at in range(start, stop)]
    assert (decoded.strange, decoded.broken, decoded.refused, decoded.again) == ([], [], [], False)
    assert all(record.options == {} for record in decoded.records)


@pytest.mark.parametrize("first", ["ring", "plain", "frames"])
@pytest.mark.parametrize("second", ["ring", "plain", "frames"])
def test_pieces_that_overlap_or_leave_a_gap(first: str, second: str) -> None:
    overlapping = decode(Taken(2, 12, [piece_of(0, 8, first), piece_of(5, 8, second)]), "t")
    assert numbers(overlapping) == list(overlapping.offsets) == list(range(2, 12))
    assert overlapping.broken == []
    apart = decode(Taken(2, 12, [piece_of(0, 4, first), piece_of(6, 4, second)]), "t")
    assert numbers(apart) == list(apart.offsets) == [2, 3, 6, 7, 8, 9]
    assert apart.broken == [4, 5, 10, 11]


@pytest.mark.parametrize("how", ["ring", "plain", "frames"])
def test_one_that_cannot_be_decoded_stops_no_other(how: str) -> None:
    decoded = decode(Taken(0, 5, [piece_of(0, 5, how, at3=b"\xc1")]), "t")
    assert numbers(decoded) == [0, 1, 2, 4]
    assert decoded.broken == [3]


def test_what_was_altered_in_memory_is_broken() -> None:
    # Given a byte of the ring that something else wrote over
    whole = piece_of(0, 5, "ring")
    data = bytearray(whole.data)
    data[data.index(b"\x03")] ^= 1
    decoded = decode(Taken(0, 5, [whole._replace(data=bytes(data))]), "t")
    assert numbers(decoded) == [0, 1, 2, 4]
    assert decoded.broken == [3]


def test_options_are_kept_beside_records_without() -> None:
    data = frame(codec.encode({"n": 0}), 0)
    data += frame(codec.encode_with_options({"n": 1}, {"table": "x"}), 1, OPTIONS)
    decoded = decode(Taken(0, 2, [Piece(data, None, RUN, 0, 0)]), "t")
    assert [(record.data, record.options) for record in decoded.records] == [({"n": 0}, {}), ({"n": 1}, {"table": "x"})]
