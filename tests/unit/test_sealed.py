from __future__ import annotations

import pytest

from resilient_exporters.delivery.deadletters import Letter, _row_of, read_letters
from resilient_exporters.delivery.sealed import seal, unseal

PARTS = [b"one", b"x" * 300, b"three", b"4"]


@pytest.mark.parametrize("parts", [[], [b"one"], PARTS])
def test_what_was_sealed_comes_back(parts: list[bytes]) -> None:
    assert unseal(seal(parts)) == parts


def test_no_byte_can_change_without_being_noticed() -> None:
    row = seal(PARTS)
    for at in range(len(row)):
        found = unseal(row[:at] + bytes([row[at] ^ 0x55]) + row[at + 1 :])
        assert None in found, at
        assert [one for one, part in zip(found, PARTS, strict=False) if one not in (part, None)] == [], at
        assert sum(one is not None for one in found) >= len(PARTS) - 1, at


def test_a_row_that_was_cut() -> None:
    row = seal(PARTS)
    for end in range(len(row)):
        found = unseal(row[:end])
        assert None in found
        whole = [part for part in found if part is not None]
        assert whole == PARTS[: len(whole)]


def test_a_damaged_letter_is_not_read_and_the_others_are(caplog: pytest.LogCaptureFixture) -> None:
    letters = [Letter(b"run-8byt", at, "target", "no", 1, 2.0, 0, b"payload %d" % at) for at in range(4)]
    row = _row_of(letters)
    at = row.index(b"payload 2")
    damaged = row[:at] + b"P" + row[at + 1 :]
    assert read_letters(damaged) == [letters[0], letters[1], letters[3]]
    assert "1 dead letters cannot be read" in caplog.text
