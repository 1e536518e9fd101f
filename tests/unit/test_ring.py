from __future__ import annotations

import errno
import os
import resource
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from resilient_exporters.delivery import ring as module
from resilient_exporters.delivery.frame import HEAD_SIZE, frame
from resilient_exporters.delivery.ring import SLOT_SIZE, SLOTS, Ring, ring_path

CAPACITY = 8192
BASE = module._BASE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "test.ring"


@pytest.fixture
def queue_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "queue"
    directory.mkdir()
    return directory


def ring(path: Path | None, capacity: int = CAPACITY, directory: Path = Path("/queue")) -> Ring:
    return Ring(path, capacity, directory)


def put(target: Ring, position: int, offset: int, payload: bytes) -> int:
    whole = frame(payload, offset)
    target.memory[position : position + len(whole)] = whole
    return position + len(whole)


def offsets(target: Ring, position: int, offset: int, known: tuple[int, int]) -> list[int]:
    return [item.offset for item in target.frames(position, offset, known)]


# -- the file ------------------------------------------------------------------------------------------------------


def test_the_path_depends_on_the_directory_and_the_user(queue_directory: Path) -> None:
    one = ring_path(queue_directory)
    assert one is not None
    assert one.parent == Path("/dev/shm")
    assert f".{os.getuid()}." in one.name
    assert one == ring_path(queue_directory.parent / "x" / ".." / "queue")
    assert one != ring_path(queue_directory / "other")


def test_without_tmpfs_there_is_no_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_SHM", tmp_path / "missing")
    assert ring_path(tmp_path) is None


def test_a_new_ring_is_private_and_its_room_is_taken_at_once(path: Path) -> None:
    made = ring(path)
    info = path.stat()
    assert (made.fresh, made.durable, stat.S_IMODE(info.st_mode)) == (True, True, 0o600)
    assert info.st_size == BASE + CAPACITY
    assert info.st_blocks * 512 >= CAPACITY
    assert (made.base, made.end, len(made.run)) == (BASE, BASE + CAPACITY, 8)


def test_what_a_killed_process_left_is_there_with_its_run(path: Path) -> None:
    # Given a ring whose process ended at once
    old = ring(path)
    put(old, old.base, 0, b"payload")
    old.write_slot(3, b"state")
    # When the next process opens it
    new = ring(path)
    # Then frames, states and the first half of the ids are there
    assert not new.fresh
    assert new.run == old.run
    assert new.read_slot(3) == b"state"
    assert offsets(new, new.base, 0, (new.base, 0)) == [0]


def test_another_size_waits_for_an_orderly_end(path: Path) -> None:
    # Given a ring that was not closed
    run = ring(path).run
    # When another size is wanted, then the old one stays as long as something may be in it
    assert ring(path, 2 * CAPACITY).capacity == CAPACITY
    larger = ring(path, 4 * CAPACITY)
    larger.write_slot(0, b"kept")
    # When it is closed with nothing in it, then the file holds no memory, and the next size counts
    larger.close(keep=False)
    assert path.stat().st_size == BASE
    again = ring(path, 2 * CAPACITY)
    assert (again.capacity, again.run, again.fresh, again.read_slot(0)) == (2 * CAPACITY, run, False, b"kept")
    assert path.stat().st_size == BASE + 2 * CAPACITY
    again.close(keep=False)
    assert ring(path, CAPACITY // 2).capacity == CAPACITY // 2


def test_closing_keeps_what_waits(path: Path) -> None:
    made = ring(path)
    made.close(keep=True)
    assert path.stat().st_size == BASE + CAPACITY


def test_a_cut_that_fails_is_no_reason_to_stop(path: Path) -> None:
    made = ring(path)
    path.unlink()
    made.close(keep=False)
    assert not path.exists()


def test_killed_between_growing_and_naming_the_new_size(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a ring cut at an orderly close, with its states
    first = ring(path)
    first.write_slot(0, b"kept")
    first.close(keep=False)

    # When the process that makes it smaller is killed once the file has grown
    def killed(handle: int, start: int, length: int) -> None:
        os.ftruncate(handle, length)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "posix_fallocate", killed)
    with pytest.raises(KeyboardInterrupt):
        ring(path, CAPACITY // 2)
    monkeypatch.undo()
    # Then the next one still knows it
    again = ring(path, CAPACITY // 2)
    assert (again.run, again.read_slot(0)) == (first.run, b"kept")


@pytest.mark.parametrize("what", ["directory", "symlink", "hardlink", "readable by others", "fifo", "another user's"])
def test_what_others_could_have_planted_is_not_used(
    what: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given something else in the ring's place
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    victim.chmod(0o600)
    if what == "directory":
        path.mkdir()
    elif what == "symlink":
        path.symlink_to(victim)
    elif what == "hardlink":
        path.hardlink_to(victim)
    elif what == "fifo":
        os.mkfifo(path, 0o600)
    else:
        ring(path)
        if what == "another user's":
            monkeypatch.setattr(os, "getuid", lambda: 12345)
        else:
            path.chmod(0o640)
    # When the ring is opened
    made = ring(path)
    # Then memory of this process takes its place, which is said once, and nothing was touched
    assert (made.durable, made.path, made.fresh) == (False, None, True)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "ends with this process" in caplog.text
    assert victim.read_bytes() == b"precious"
    made.write_slot(0, b"works")
    assert made.read_slot(0) == b"works"
    made.close(keep=False)


def test_a_full_tmpfs_is_noticed_at_once_and_said_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(handle: int, start: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    made = ring(path)
    assert not made.durable
    assert len(made.memory) == BASE + CAPACITY
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text
    # Given room again, the next start has a ring
    monkeypatch.undo()
    assert ring(path).durable


def test_a_full_tmpfs_leaves_the_states_of_a_closed_ring(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ring(path)
    first.write_slot(0, b"kept")
    first.close(keep=False)

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert not ring(path, 4 * CAPACITY).durable
    monkeypatch.undo()
    assert ring(path).read_slot(0) == b"kept"


SMALL = 400 << 20  # addresses; Python has room in it, a ring of LARGE has not
LARGE = 512 << 20


def in_little_memory(code: str, path: Path) -> str:
    """What a program says that has few addresses, as one of 32 bits or under ``ulimit -v``."""
    program = (
        f"from pathlib import Path; from resilient_exporters.delivery.ring import Ring; path = Path({str(path)!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\n{code}"], capture_output=True, text=True, check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (SMALL, SMALL)),
    )  # fmt: skip
    return done.stdout


def test_memory_that_cannot_be_had_is_said_and_none_is_kept(path: Path) -> None:
    said = in_little_memory(
        f"try: Ring(path, {LARGE}, Path('/queue'))\nexcept ValueError as error: print(type(error).__name__, error)",
        path,
    )
    assert said.startswith(f"InvalidConfigError max_memory={LARGE}: ")
    assert "ulimit" in said
    assert path.stat().st_size == 0


def test_a_ring_that_cannot_be_mapped_is_left_as_it_is_and_none_of_its_ids_are_given_again(path: Path) -> None:
    # Given a large ring with a record that waits
    first = ring(path, LARGE)
    put(first, first.base, 0, b"precious")
    first.write_slot(0, b"kept")
    # When the program is started with too little memory for it
    said = in_little_memory(
        f"ring = Ring(path, {CAPACITY}, Path('/queue'))\nprint(ring.durable, ring.end - ring.base, ring.run.hex())",
        path,
    )
    # Then it serves from other memory
    assert said.split()[:2] == ["False", str(CAPACITY)]
    assert said.split()[2] != first.run.hex()
    # And the next one finds what waits
    again = ring(path, LARGE)
    assert (again.fresh, again.run, again.read_slot(0)) == (False, first.run, b"kept")
    assert offsets(again, again.base, 0, (again.base, 0)) == [0]


def rewritten(path: Path, at: int, value: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(value)


@pytest.mark.parametrize("damage", ["magic", "version", "directory", "short", "text"])
def test_a_ring_of_another_kind_is_set_aside(damage: str, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Given a file of ours that is not this queue's ring
    directory = Path("/queue")
    old = ring(path)
    put(old, old.base, 0, b"theirs")
    if damage == "magic":
        rewritten(path, 0, b"X")
    elif damage == "version":
        rewritten(path, 8, struct.pack("<I", 99))
    elif damage == "directory":
        directory = Path("/another/queue")
    elif damage == "short":
        os.truncate(path, BASE + 100)
    else:
        path.write_bytes(b"not a ring" * 10_000)
    before = path.read_bytes()
    # When it is opened
    new = ring(path, directory=directory)
    # Then it is kept under another name, said so, and a fresh one begins
    assert (new.fresh, new.durable) == (True, True)
    assert new.run != old.run
    (aside,) = path.parent.glob("*.damaged")
    assert aside.read_bytes() == before
    assert "set aside" in caplog.text
    assert offsets(new, new.base, 0, (new.base, 0)) == []


def test_every_flipped_bit_of_the_identity_is_noticed(path: Path) -> None:
    old = ring(path)
    good = path.read_bytes()[: module._IDENTITY.size]
    for bit in range(len(good) * 8):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        assert not old._identify(bytes(changed), BASE + CAPACITY)
    assert old._identify(good, BASE + CAPACITY)
    assert not old._identify(good, BASE + CAPACITY - 1)
    assert not old._identify(good[:10], BASE + CAPACITY)


def test_a_file_that_was_never_written_is_taken(path: Path) -> None:
    # Given what a kill in the middle of making the file leaves
    for size in (0, 10, BASE, BASE + CAPACITY):
        path.write_bytes(bytes(size))
        path.chmod(0o600)
        made = ring(path)
        assert (made.durable, made.fresh) == (True, True)
        path.unlink()
    assert list(path.parent.glob("*.damaged")) == []


# -- states --------------------------------------------------------------------------------------------------------


def test_the_newest_state_counts(path: Path) -> None:
    made = ring(path)
    assert made.read_slot(5) is None
    for number in range(7):
        assert made.write_slot(5, b"state %d" % number)
        assert made.read_slot(5) == b"state %d" % number
        assert ring(path).read_slot(5) == b"state %d" % number
    made.clear_slot(5)
    assert made.read_slot(5) is None


def test_all_slots_hold_their_largest_state(path: Path) -> None:
    made = ring(path)
    most = SLOT_SIZE - module._SLOT_HEAD.size
    for _ in range(2):
        for index in range(SLOTS):
            assert made.write_slot(index, bytes([index]) * most)
    # Then none has overwritten another, or the frames
    assert [made.read_slot(index) for index in range(SLOTS)] == [bytes([index]) * most for index in range(SLOTS)]
    assert made.memory[made.base : made.end] == bytes(CAPACITY)
    assert not made.write_slot(0, bytes(most + 1))
    assert made.read_slot(0) == bytes(most)


def test_a_torn_or_flipped_state_gives_the_one_before(path: Path) -> None:
    made = ring(path)
    made.write_slot(2, b"older")
    before = made.memory[:]
    made.write_slot(2, b"newer")
    after = made.memory[:]
    changed = [at for at in range(BASE) if before[at] != after[at]]
    # Given a kill in the middle: any part of the new bytes is there
    for cut in range(len(changed)):
        for at in changed[cut:]:
            made.memory[at : at + 1] = before[at : at + 1]
        assert made.read_slot(2) == b"older"
        made.memory[:] = after
    # Given a flip of any bit of it
    half = 4096 + 2 * 2 * SLOT_SIZE
    for at in range(half, half + module._SLOT_HEAD.size + 5):
        for bit in range(8):
            made.memory[at : at + 1] = bytes([after[at] ^ 1 << bit])
            assert made.read_slot(2) == b"older", (at, bit)
            made.memory[at : at + 1] = after[at : at + 1]
    # and what is written next is newer than both
    assert made.write_slot(2, b"newest")
    assert ring(path).read_slot(2) == b"newest"


def test_starting_over_leaves_nothing_that_could_be_taken_for_new(path: Path) -> None:
    # Given a ring with a frame and states
    made = ring(path, 3 << 20)
    put(made, made.base, 0, b"old")
    put(made, made.end - 11, 0, b"old")
    for _ in range(5):
        made.write_slot(1, b"old")
    run = made.run
    # When it starts over
    made.start_over()
    # Then another run begins, on clean memory, and the next process knows it
    assert made.run != run
    assert made.read_slot(1) is None
    assert not made.memory[4096:].strip(b"\0")
    made.write_slot(1, b"new")
    again = ring(path)
    assert (again.fresh, again.run, again.read_slot(1)) == (False, made.run, b"new")


# -- frames --------------------------------------------------------------------------------------------------------


def filled(made: Ring, count: int, size: int, position: int | None = None, offset: int = 0) -> list[int]:
    """Write frames round the ring as the queue does; returns where each begins, and where the next one would."""
    at = made.base if position is None else position
    places = []
    for number in range(offset, offset + count):
        if at + HEAD_SIZE + size > made.end:
            made.wrap(at)
            at = made.base
        places.append(at)
        at = put(made, at, number, b"%06d" % number + bytes(size - 6))
    return [*places, at]


@pytest.mark.parametrize("size", range(6, 40))
def test_frames_are_found_round_the_end_at_every_alignment(size: int, path: Path) -> None:
    # Given a ring that was written three times round, of which the last half lap counts
    made = ring(path)
    per_lap = CAPACITY // (HEAD_SIZE + size)
    total = per_lap * 3 + size % 7
    places = filled(made, total, size)
    count = per_lap // 2
    oldest = total - count
    # When everything was known, or only the head, or something between, then the same frames are found
    for sealed in (total, oldest, oldest + 1, total - 3, total - count // 2):
        found = made.frames(places[oldest], oldest, (places[sealed], sealed))
        assert [item.offset for item in found] == list(range(oldest, total)), (size, sealed)
        assert [item.start - HEAD_SIZE for item in found] == places[oldest:total]


def test_a_frame_that_exactly_fills_the_ring(path: Path) -> None:
    made = ring(path)
    end = put(made, made.base, 0, bytes(CAPACITY - HEAD_SIZE))
    assert end == made.end
    assert offsets(made, made.base, 0, (made.end, 1)) == [0]
    assert offsets(made, made.base, 0, (made.base, 0)) == [0]


@pytest.mark.parametrize("spare", range(12))
def test_too_little_room_for_a_wrap_mark_at_the_end(spare: int, path: Path) -> None:
    # Given a last frame that leaves so many bytes
    made = ring(path)
    last = put(made, made.base, 0, bytes(CAPACITY - HEAD_SIZE - spare))
    made.wrap(last)
    put(made, made.base, 1, b"x")  # overwrites the first, which was settled
    put(made, made.base + 9, 2, b"y")
    # Then the walk begins anew from its end
    assert offsets(made, last, 1, (last, 1)) == [1, 2]


def test_stale_frames_of_earlier_laps_are_the_end(path: Path) -> None:
    # Given three laps of frames of one size, then five of the fourth
    made = ring(path)
    per_lap = CAPACITY // 32
    places = filled(made, per_lap * 3 + 5, 24)
    # Then what lies behind the fifth is not taken for new, though it is whole
    start = per_lap * 3
    assert offsets(made, places[start], start, (places[start], start)) == list(range(start, start + 5))


def test_a_torn_append_is_the_end_at_every_byte(path: Path) -> None:
    # Given a ring on its second lap: whole frames lie where the next goes
    made = ring(path)
    per_lap = CAPACITY // 32
    places = filled(made, per_lap + 3, 24)
    number, at = per_lap + 3, places[-1]
    stale = made.memory[at : at + 64]
    new = frame(b"torn record.", number)
    for cut in range(len(new)):
        made.memory[at : at + 64] = stale
        made.memory[at : at + cut] = new[:cut]
        # Then the frames before it are found, and it is not
        found = offsets(made, places[per_lap], per_lap, (places[per_lap], per_lap))
        assert found == list(range(per_lap, number)), cut
    made.memory[at : at + len(new)] = new
    assert offsets(made, places[per_lap], per_lap, (places[per_lap], per_lap))[-1] == number


@pytest.mark.parametrize("sealed", ["all", "some", "none"])
def test_a_flip_anywhere_costs_at_most_its_record(sealed: str, path: Path) -> None:
    # Given frames that lie round the end of the ring
    made = ring(path, 4096)
    per_lap = 4096 // 40
    total = per_lap + 20
    places = filled(made, total, 32)
    oldest = total - 40
    known = {"all": total, "some": total - 10, "none": oldest}[sealed]
    good = made.memory[:]
    heads = set(places[oldest:total])
    for place in heads:
        for at in range(place, place + 40):
            for bit in (0, 3, 7):
                if at == place + 3 and bit >= 5:
                    continue  # the flags: see test_frame
                if sealed != "all" and at < place + 4 and places.index(place, oldest) >= known:
                    continue  # a length behind what is known: nothing says that there was more
                made.memory[at : at + 1] = bytes([good[at] ^ 1 << bit])
                found = made.frames(places[oldest], oldest, (places[known], known))
                made.memory[at : at + 1] = good[at : at + 1]
                missing = set(range(oldest, total)) - {item.offset for item in found}
                lost = places.index(place, oldest)
                # Of what nobody noted, the first record that does not fit is the end, if the lap ends with it.
                unknown_end = sealed == "none" and lost == per_lap - 1
                assert missing == {lost} or (unknown_end and lost == min(missing)), (sealed, lost, at - place, bit)
                for item in found:
                    assert made.memory[item.start : item.start + 6] == b"%06d" % item.offset


def test_a_destroyed_wrap_mark_and_a_destroyed_end_of_the_lap(path: Path) -> None:
    made = ring(path)
    per_lap = CAPACITY // 50
    places = filled(made, per_lap + 10, 42)
    oldest, total = per_lap - 10, per_lap + 10
    good = made.memory[:]
    # Given noise from the wrap mark on
    mark = places[per_lap - 1] + 50
    made.memory[mark : made.end] = b"\xa5" * (made.end - mark)
    assert offsets(made, places[oldest], oldest, (places[total], total)) == list(range(oldest, total))
    # Given noise over the last three records of the lap as well
    made.memory[:] = good
    begin = places[per_lap - 3]
    made.memory[begin : made.end] = b"\xa5" * (made.end - begin)
    assert offsets(made, places[oldest], oldest, (places[total], total)) == [
        *range(oldest, per_lap - 3), *range(per_lap, total),
    ]  # fmt: skip
    # Given nothing but noise in the lap
    made.memory[:] = good
    begin = places[oldest]
    made.memory[begin : made.end] = b"\xa5" * (made.end - begin)
    assert offsets(made, places[oldest], oldest, (places[total], total)) == list(range(per_lap, total))


@pytest.mark.parametrize("what", ["fifo", "symlink", "directory", "garbage"])
def test_a_sweep_waits_for_nothing_and_follows_nothing(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an empty ring of a directory that is gone, and something planted beside it
    monkeypatch.setattr(module, "_SHM", tmp_path)
    gone = tmp_path / f"resilient-exporters.{os.getuid()}.gone.ring"
    ring(gone, directory=tmp_path / "gone").close(keep=False)
    planted = tmp_path / f"resilient-exporters.{os.getuid()}.planted.ring"
    victim = tmp_path / "victim"
    victim.write_bytes(gone.read_bytes())
    if what == "fifo":
        os.mkfifo(planted, 0o600)
    elif what == "symlink":
        planted.symlink_to(victim)
    elif what == "directory":
        planted.mkdir()
    else:
        planted.write_bytes(b"\xff" * 100)

    # When
    module.sweep()

    # Then
    assert not gone.exists()
    assert os.path.lexists(planted)
    assert victim.exists()
