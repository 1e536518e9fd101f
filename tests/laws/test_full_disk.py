"""A disk that is really full: a file system of 8 MB, filled by us and by others. And little memory."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilient_exporters.testing import eventually
from tests.programs import run
from tests.targets import PATIENCE, Target, balanced

SIZE = 8 << 20


def du(directory: Path) -> int:
    """Bytes as ``du`` shows them."""
    out = subprocess.run(["du", "-s", "-B1", directory], check=True, capture_output=True, text=True).stdout
    return int(out.split()[0])


@pytest.fixture(params=["ext4", "tmpfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small file system of our own."""
    place = tmp_path / "disk"
    place.mkdir()
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(SIZE)
    steps: dict[str, tuple[list[str], ...]] = {
        "ext4": (
            ["mkfs.ext4", "-q", "-m", "0", "-b", "1024", str(image)],
            ["mount", "-o", "loop", str(image), str(place)],
        ),
        "tmpfs": (["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)],),
    }
    try:
        for step in steps[request.param]:
            subprocess.run(step, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        pytest.skip(f"A FULL DISK IS NOT TESTED: {request.param} cannot be mounted here (needs root): {said.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def listing(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file()}


def fill(path: Path, leave: int = 0) -> None:
    """Let others fill the disk, but for some bytes."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 16, 4096, 512):
            while (figures := os.statvfs(path.parent)).f_bavail * figures.f_frsize > leave + size:
                try:
                    file.write(bytes(size))
                except OSError:
                    break


def send(target: Target, dice: random.Random, count: int, size: int = 400) -> list[bytes]:
    """Records that do not compress."""
    sent = [dice.randbytes(size) for _ in range(count)]
    for record in sent:
        target.send(record)
    return sent


@pytest.mark.parametrize("reserve", [0, 1 << 20])
def test_others_fill_the_disk_and_make_room_again(disk: Path, reserve: int) -> None:
    # Given a backlog on a disk that others fill to the last byte
    dice = random.Random(1)
    target = Target(
        ConnectionError("down"), retry=3600, directory=disk / "queue", min_free_disk=reserve, loss_window=0.2
    )
    sent = send(target, dice, 500)
    assert target.save(PATIENCE)
    fill(disk / "theirs")

    # When: readings go on, and the link comes and goes
    sent += send(target, dice, 500)
    assert not target.save(PATIENCE)
    assert target.stats().disk_trouble
    target.answer = None
    assert target.flush(PATIENCE).complete

    # Then: all were served, from disk and from memory
    assert target.taken == sent
    target.answer = ConnectionError("down")
    sent = send(target, dice, 500)
    target.flush(0.1)

    # and when there is room again, they are on disk, and it is said
    (disk / "theirs").unlink()
    assert target.save(PATIENCE)
    eventually(lambda: target.stats().disk_trouble is None, PATIENCE)
    figures = balanced(target).targets["target"]
    assert not figures.dropped
    target.answer = None
    assert target.flush(PATIENCE).complete
    assert target.taken[-500:] == sent
    target.close()


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_we_fill_the_disk_and_go_on(disk: Path, policy: str) -> None:
    # Given a bound that is larger than the disk
    dice = random.Random(2)
    target = Target(
        ConnectionError("down"), retry=3600, directory=disk / "queue", min_free_disk=0, max_disk="64 MB",
        max_memory="1 MB", on_full=policy,
    )  # fmt: skip

    # When: twice as much comes as it holds
    sent = send(target, dice, 16_000, 1000)
    target.save(1)

    # Then: what was dropped is counted, the rest is served in order, and the disk takes records again
    figures = balanced(target).targets["target"]
    assert figures.dropped["overflow"] > 1000
    assert set(figures.dropped) == {"overflow"}
    target.answer = None
    assert target.flush(PATIENCE).complete
    assert len(target.taken) == len(sent) - balanced(target).targets["target"].dropped["overflow"]
    order = {record: at for at, record in enumerate(sent)}
    places = [order[record] for record in target.taken]
    assert places == sorted(places)
    target.answer = ConnectionError("down")
    send(target, dice, 100)
    target.flush(0.1)
    assert target.save(PATIENCE)
    target.close()


def test_the_bound_holds_for_everything_in_the_directory(disk: Path) -> None:
    # Given a bound of 3 MB, a database that was set aside, dead letters, and rows that come and go
    dice = random.Random(3)
    most = 3_000_000
    place = disk / "queue"
    options = {"directory": place, "min_free_disk": 0, "max_disk": most, "max_memory": "256 kB", "name": "target"}
    target = Target(ConnectionError("down"), retry=3600, **options)
    send(target, dice, 2000)
    assert target.save(PATIENCE)
    target.close(0)
    with (place / "cache.db").open("r+b") as file:
        file.write(b"no database any more")
    from resilient_exporters import RejectedError

    target = Target(lambda batch: [RejectedError(target, "no")] * len(batch), **options)
    worst = 0

    # When
    for round_ in range(30):
        target.answer = (
            ConnectionError("down") if round_ % 3 else (lambda batch: [RejectedError(target, "no")] * len(batch))
        )
        send(target, dice, 400)
        if round_ % 3 == 0:
            target.flush(1)
        target.save(0.2)
        worst = max(worst, du(place))

    # Then
    assert list(place.glob("damaged-*")) or balanced(target).targets["target"].dropped["corrupt"]
    assert balanced(target).targets["target"].dead
    assert worst <= most, f"{worst} > {most}: {listing(place)}"
    assert worst > most // 2, "the bound was not reached"
    before = listing(place)
    target.close(0)
    assert du(place) <= most, f"{before} became {listing(place)}"


PROGRAM = """
    import resource, sys
    from pathlib import Path
    from resilient_exporters import ExporterPool
    from tests.laws.field import Field, Link, reading
    from tests.targets import Target

    limit = int(sys.argv[2])
    # What is mapped already (the interpreter, its libraries), and so much more.
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + limit, mapped + limit))
    machine = Field(Path(sys.argv[1]), days=1, bundle=60, loss_window=60)
    machine.weather.ends.clear()
    figures = machine.run()
    rss = [one.rss for one in figures.samples]
    third = len(rss) // 3
    print(figures.lost, figures.doubled, sum(rss[:third]) // third, sum(rss[-third:]) // third, figures.sent)
"""


def test_a_day_in_little_memory(tmp_path: Path) -> None:
    # Given 1 GB of addresses above what the interpreter takes: glibc reserves 128 MB of them for each thread
    # When
    lost, doubled, first, last, sent = map(int, run(PROGRAM, tmp_path, 1 << 30).split()[-5:])

    # Then
    assert (lost, doubled) == (0, 0)
    assert sent > 8000
    assert last < 1.25 * first + (4 << 20)
