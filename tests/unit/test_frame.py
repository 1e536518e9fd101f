from __future__ import annotations

import random
import struct
import time

import pytest

from resilient_exporters.delivery.frame import ELSEWHERE, HEAD_SIZE, OPTIONS, ROUTED, WRAP, Frame, frame, payloads, scan


def chain(parts: list[bytes], offset: int = 0) -> bytes:
    return b"".join(frame(payload, offset + at) for at, payload in enumerate(parts))


def read(data: bytes, offset: int = 0, **options: int) -> dict[int, bytes]:
    with memoryview(data) as view:
        frames = list(scan(view, 0, len(data), offset, **options))
    return {item.offset: data[item.start : item.stop] for item in frames}


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


PAYLOADS = [b"a", b"temperature 21.5", b"\x00" * 7, bytes(range(40)), b"zz"]


def test_what_is_written_is_read() -> None:
    # Given frames of several sizes and flags
    data = frame(b"one", 7, OPTIONS) + frame(b"two", 8, ROUTED) + frame(b"", 9, ELSEWHERE) + frame(b"four", 10)
    # When they are scanned
    with memoryview(data) as view:
        frames = list(scan(view, 0, len(data), 7))
    # Then each has its offset, its flags and its place
    assert frames[0] == Frame(7, OPTIONS, HEAD_SIZE, HEAD_SIZE + 3)
    assert [(item.offset, item.flags, data[item.start : item.stop]) for item in frames] == [
        (7, OPTIONS, b"one"), (8, ROUTED, b"two"), (9, ELSEWHERE, b""), (10, 0, b"four"),
    ]  # fmt: skip


@pytest.mark.parametrize("offset", [0, 1, 2**31, 2**32 - 2, 2**32 - 1, 2**41 + 5, 2**43 - 9])
def test_offsets_beyond_32_bits_are_told_apart(offset: int) -> None:
    data = chain(PAYLOADS, offset)
    assert read(data, offset) == {offset + at: payload for at, payload in enumerate(PAYLOADS)}
    # Given the wrong offset (an earlier lap), nothing fits
    assert read(data, offset + 100, known=0) == {}


def test_zeros_are_no_frames() -> None:
    assert read(bytes(4096)) == {}


def test_data_that_ends_in_the_middle_of_a_head_or_a_payload() -> None:
    # Given a chain cut at every byte
    data = chain(PAYLOADS)
    ends = [len(chain(PAYLOADS[:count])) for count in range(len(PAYLOADS) + 1)]
    for cut in range(len(data)):
        # Then the whole frames before the cut are read, and no more
        whole = sum(end <= cut for end in ends) - 1
        assert read(data[:cut]) == dict(enumerate(PAYLOADS[:whole]))


def test_a_wrap_mark_ends_the_walk() -> None:
    data = chain(PAYLOADS[:2]) + struct.pack("<II", WRAP, 0) + chain(PAYLOADS[2:], 2)
    assert read(data) == dict(enumerate(PAYLOADS[:2]))


def test_every_flipped_bit_of_length_checksum_and_payload_costs_at_most_its_record() -> None:
    # Given five frames
    data = chain(PAYLOADS)
    starts = [len(chain(PAYLOADS[:count])) for count in range(len(PAYLOADS))]
    good = dict(enumerate(PAYLOADS))
    for bit in range(len(data) * 8):
        if bit // 8 in {start + 3 for start in starts} and bit % 8 >= 5:
            continue  # the flags: see below
        # When one bit is flipped
        hit = max(at for at, start in enumerate(starts) if start <= bit // 8)
        # Then the record that it is in is missing, all others are there, unaltered
        assert read(flipped(data, bit)) == {at: payload for at, payload in good.items() if at != hit}, bit


def test_a_flipped_flag_is_no_other_kind_of_record() -> None:
    data = chain(PAYLOADS)
    for bit in (29, 30, 31):
        assert 0 not in read(flipped(data, bit))


def test_damage_to_neighbours_leaves_the_rest() -> None:
    # Given forty records, of which three in a row are overwritten, heads and all
    payloads = [b"record %d" % number for number in range(40)]
    data = bytearray(chain(payloads))
    start, stop = len(chain(payloads[:10])), len(chain(payloads[:13]))
    data[start:stop] = b"\xa5" * (stop - start)
    # Then those three are missing
    assert set(range(40)) - set(read(bytes(data))) == {10, 11, 12}


def test_a_large_damaged_record_does_not_hide_what_is_behind_it() -> None:
    # Given a record larger than the search reaches, with a flipped bit in its middle
    payloads = [b"before", random.Random(1).randbytes(300_000), b"behind", b"last"]
    data = flipped(chain(payloads), 8 * 150_000)
    # Then its length, which the frame behind it proves, leads on
    assert read(data) == {0: b"before", 2: b"behind", 3: b"last"}
    # also at the fresh end of a ring, where nothing is searched for
    assert read(data, known=0) == {0: b"before", 2: b"behind", 3: b"last"}


def test_nothing_is_looked_for_behind_the_known_end() -> None:
    # Given a frame whose length is destroyed, and whole ones behind it
    data = bytearray(chain([b"one", b"two", b"three"]))
    data[0:4] = struct.pack("<I", 99_999)
    assert read(bytes(data)) == {1: b"two", 2: b"three"}
    # When it lies behind what is known to have been written, then it is the end
    assert read(bytes(data), known=0) == {}


def test_a_frame_that_fits_a_later_offset_by_chance_is_not_believed() -> None:
    # Given damage in which a whole frame of a much later offset stands: more records would be missing than fit
    lie = frame(b"never sent", 3000)
    data = chain([b"one", b"two"]) + b"\xa5" * 16 + lie + frame(b"four", 3)
    # Then it is passed over, and the next true one is found
    assert read(data) == {0: b"one", 1: b"two", 3: b"four"}


def test_a_caller_may_have_stepped_over_damage() -> None:
    # Given frames that begin two records later than expected, as at the beginning of a ring
    data = chain([b"three", b"four"], 2)
    # Then they are believed only where there was room for the missing ones
    assert read(data) == {}
    assert read(data, lost=40) == {2: b"three", 3: b"four"}


def test_a_search_through_megabytes_of_noise_ends_soon() -> None:
    # Given a damaged head before noise in which many lengths are plausible
    noise = random.Random(2).randbytes(16 << 20)
    began = time.process_time()
    # Then nothing is believed, and it takes no minutes (it was 40 s when every checksum was computed)
    assert read(noise) == {}
    assert time.process_time() - began < 10


# -- the usual case --------------------------------------------------------------------------------------------------


def test_payloads_are_those_that_a_scan_finds() -> None:
    parts = [b"a", b"bc" * 40, b"d" * 3000]
    data = b"".join(frame(part, 7 + at) for at, part in enumerate(parts))
    assert payloads(data) == payloads(data, 7) == parts
    assert payloads(b"") == payloads(b"", 7) == []


@pytest.mark.parametrize("flag", [OPTIONS, ROUTED, ELSEWHERE])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_payloads_with_something_special_are_left_to_others(flag: int, at: int) -> None:
    data = b"".join(frame(b"payload", number, flag if number == at else 0) for number in range(3))
    assert payloads(data) is None
    assert payloads(data, 0) is None


def test_payloads_of_altered_data_are_never_given() -> None:
    # Given every byte of some frames altered in each of its bits, and every length that the data may be cut to
    whole = b"".join(frame(b"record %d" % at, at) for at in range(4))
    for place in range(len(whole)):
        for bit in range(8):
            altered = bytearray(whole)
            altered[place] ^= 1 << bit
            assert payloads(bytes(altered), 0) is None, (place, bit)
    step = len(whole) // 4
    for size in range(len(whole)):
        assert payloads(whole[:size], 0) == (None if size % step else [b"record %d" % at for at in range(size // step)])
    # And of another place in the queue
    assert payloads(whole, 1) is None
