from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from resilient_exporters.delivery.guard import LinkWatch, ResourceGuard


class Memory(NamedTuple):
    total: int
    available: int


class Disk(NamedTuple):
    f_bavail: int
    f_frsize: int


class Link(NamedTuple):
    isup: bool


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    figures = {"share": 0.5}
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(1 << 30, int(figures["share"] * (1 << 30))))
    return figures


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    figures = {"free": 1 << 30}
    monkeypatch.setattr(os, "statvfs", lambda _: Disk(figures["free"] // 4096, 4096))
    return figures


def test_short_memory_is_said_once_each_way(memory: dict[str, float], caplog: pytest.LogCaptureFixture) -> None:
    guard = ResourceGuard(None, 0)
    seen = []
    for share in (0.5, 0.06, 0.049, 0.03, 0.07, 0.099, 0.11, 0.06):
        memory["share"] = share
        guard.look()
        seen.append(guard.memory_low)
    # It is short below 5 %, and back above 10 %
    assert seen == [False, False, True, True, True, True, False, False]
    assert [record.message.split(" (")[0] for record in caplog.records] == ["memory is short", "memory is back"]
    assert guard.rss > 1 << 20


@pytest.mark.parametrize("error", [OSError("no /proc"), psutil.AccessDenied(1), psutil.NoSuchProcess(1)])
def test_memory_that_cannot_be_read_is_not_short(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Any:
        raise error

    monkeypatch.setattr(psutil, "virtual_memory", fails)
    guard = ResourceGuard(None, 0)
    guard.look()
    assert not guard.memory_low


def test_growth_is_what_is_free_above_the_bound(disk: dict[str, int], tmp_path: Path, caplog: Any) -> None:
    guard = ResourceGuard(tmp_path, 100 << 20)
    assert guard.growth() == (1 << 30) - (100 << 20)
    for free in (100 << 20, 50 << 20):
        disk["free"] = free
        assert guard.growth() == 0
        assert guard.disk_low
    disk["free"] = 101 << 20
    assert guard.growth() == 1 << 20
    assert not guard.disk_low
    assert len(caplog.records) == 2


def test_without_a_disk_nothing_may_grow_and_without_figures_everything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert ResourceGuard(None, 0).growth() == 0
    assert ResourceGuard(tmp_path / "missing", 0).growth() >= 1 << 62
    assert ResourceGuard(tmp_path, 0).growth() > 0


def test_a_link_that_comes_up_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    links = {"lo": Link(True), "eth0": Link(False), "wwan0": Link(False)}
    monkeypatch.setattr(psutil, "net_if_stats", lambda: links)
    watch = LinkWatch()
    assert not watch.came_up()
    links["wwan0"] = Link(True)
    assert watch.came_up()
    assert not watch.came_up()
    links["wwan0"] = Link(False)
    assert not watch.came_up()
    links["wwan0"] = Link(True)
    assert watch.came_up()


def test_a_system_that_does_not_tell_its_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Any:
        raise OSError("not permitted")

    monkeypatch.setattr(psutil, "net_if_stats", fails)
    assert not LinkWatch().came_up()
