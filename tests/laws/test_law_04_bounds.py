"""Law 4, bounds: memory, disk and free disk keep theirs, and on full it goes by the policy."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from resilient_exporters import ExporterPool, QueueFullError
from tests.targets import PATIENCE, Target, balanced


def du(directory: Path) -> int:
    return sum(entry.stat().st_blocks * 512 for entry in directory.rglob("*") if entry.is_file())


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "raise"])
@pytest.mark.parametrize("seed", range(2))
def test_bounds_hold_while_records_of_all_sizes_come(policy: str, seed: int) -> None:
    # Given
    dice = random.Random(seed)
    memory, disk = 200_000, 1_000_000
    exporter = Target(
        ConnectionError("down"), retry=3600, max_memory=memory, max_disk=disk, on_full=policy, max_dead=10
    )
    tuple(exporter.send("first"))
    assert exporter.directory is not None
    sent = 1
    most = 0

    # When
    for _ in range(1200):
        data = dice.randbytes(int(10 ** dice.uniform(0, 4.5)))
        try:
            exporter.send(data)
            sent += 1
        except QueueFullError:
            assert policy == "raise" or len(data) > memory // 4

        # Then
        assert exporter.stats().memory_bytes <= memory
        if dice.random() < 0.01:
            exporter.save(0.05)  # a full disk is asked again only once in a while
            most = max(most, du(exporter.directory))
    assert most <= disk
    assert most > disk // 4, "the disk was hardly used"
    target = balanced(exporter).targets["target"]
    assert target.accepted == sent
    exporter.answer = None
    assert exporter.flush(60).complete
    target = balanced(exporter).targets["target"]
    assert target.delivered == len(exporter.taken)
    assert target.delivered > 100
    assert target.accepted == target.delivered + target.dropped.get("overflow", 0)
    exporter.close()
    assert du(exporter.directory) <= disk


def test_never_below_min_free_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given: a file system with 300 kB above its reserve, which we fill
    exporter = Target(
        ConnectionError("down"),
        retry=3600,
        max_memory="200 kB",
        max_disk="64 MB",
        min_free_disk=10_000_000,
        name="free",
    )
    real = os.statvfs

    def shrinking(path: Any) -> os.statvfs_result:
        figures = list(real(path))
        used = du(Path(path))
        figures[0] = figures[1] = 1
        figures[4] = max(0, 10_300_000 - used)
        return os.statvfs_result(figures)

    monkeypatch.setattr(os, "statvfs", shrinking)
    dice = random.Random(2)
    tuple(exporter.send("first"))

    # When
    for _ in range(2000):
        exporter.send(dice.randbytes(1000))
    exporter.save(PATIENCE)

    # Then
    assert exporter.directory is not None
    assert du(exporter.directory) <= 300_000 + 64_000
    target = balanced(exporter).targets["free"]
    assert target.accepted == 2001
    assert target.dropped["overflow"] > 1000


def test_a_dead_member_does_not_take_the_disk_of_all(tmp_path: Path) -> None:
    # Given
    dice = random.Random(3)
    a, b = Target(name="a"), Target(ConnectionError("down"), name="b", retry=3600)
    pool = ExporterPool([a, b], max_memory="200 kB", max_disk="600 kB", directory=tmp_path / "queue")

    # When
    for n in range(3000):
        pool.send(dice.randbytes(500))
        if n % 100 == 0:
            pool.flush(PATIENCE)
    pool.flush(PATIENCE)

    # Then
    assert len(a.taken) == 3000
    assert du(tmp_path / "queue") <= 600_000
    balanced(pool)
