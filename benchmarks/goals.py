"""The goals that were set before anything was measured, and where their figures stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["GOALS", "Found", "Goal"]


@dataclass(frozen=True)
class Goal:
    """One of them.

    Args:
        text: what is to be reached, without the bar.
        benchmark: that measures it.
        figure: name of its row there.
        most, least: the bar.
        beside: the peer of the row, where several rows have the same name.
        of: what is compared with the bar: "ours", "ratio", or "times", how many times less than the peer's ours is.
        unit: of the bar, where the row has none.
    """

    text: str
    benchmark: str
    figure: str
    most: float | None = None
    least: float | None = None
    beside: str | None = None
    of: str = "ours"
    unit: str = ""

    @property
    def bar(self) -> float:
        """The number to reach."""
        found = self.most if self.most is not None else self.least
        assert found is not None
        return found

    def find(self, results: Mapping[str, Mapping[str, Any]]) -> Found | None:
        """What was measured, if it was."""
        for row in results.get(self.benchmark, {}).get("rows", ()):
            if row.get("figure") == self.figure and self.beside in {None, row["beside"]}:
                samples = [float(one) for one in (row["ours"] if self.of == "ours" else row["ratios"])]
                if self.of == "times":
                    samples = [1 / one for one in samples if one]
                if samples:
                    return Found(samples, self.unit or (row["unit"] if self.of == "ours" else "x"))
        return None


@dataclass(frozen=True)
class Found:
    """The samples for a goal, and their unit."""

    samples: list[float]
    unit: str


_AWAY = "outage and drain, burst"
_IDLE = "healthy, nothing to send: CPU"

GOALS: tuple[tuple[str, tuple[Goal, ...]], ...] = (
    (
        "What `send` costs its caller",
        (
            Goal("median, a burst into a healthy target", "send", "healthy, burst: p50", most=2.0),
            Goal("beside `queue.Queue.put`", "send", "healthy, burst: p50", most=2.5, beside="Queue.put", of="ratio"),
            Goal("cheaper than OpenTelemetry's `emit`, the record as body", "send_peers", "healthy, burst: p50",
                 least=6, beside="OpenTelemetry emit", of="times"),
            Goal("the same, its fields as attributes", "send_peers", "healthy, burst: p50", least=6,
                 beside="OpenTelemetry emit, attributes", of="times"),
            Goal("99.9 % of calls", "send", "healthy, burst: p99.9", most=100, beside="Queue.put"),
            Goal("99.9 % of calls, target away", "send", "target away: p99.9", most=100, beside="Queue.put"),
            Goal("99.9 % of calls, ring full and disk busy", "send", "saturated: ring full, disk busy: p99.9", most=100,
                 beside="Queue.put"),
            Goal("99.9 % of calls, a disk that takes 0.25 s for a sync", "send", "slow disk, ring full: p99.9",
                 most=100, beside="Queue.put"),
        ),
    ),
    (
        "On disk",
        (
            Goal("accept rate beside a framed append with fdatasync per 500", "accept", "accept rate, dicts of 200 B",
                 least=0.5, of="ratio"),
            Goal("CPU per million accepted and saved, encoding included", "accept",
                 "CPU per million accepted and saved, dicts of 200 B", most=3.0),
            Goal("put, saved, delivered, deleted, beside persist-queue's FIFOSQLiteQueue", "through_disk",
                 "rate, send to deleted", least=80, beside="FIFOSQLiteQueue", of="ratio"),
            Goal("the same beside its UniqueQ", "through_disk", "rate, send to deleted", least=80, beside="UniqueQ",
                 of="ratio"),
            Goal("the same beside its SQLiteAckQueue", "through_disk", "rate, send to deleted", least=80,
                 beside="SQLiteAckQueue", of="ratio"),
            Goal("put and saved, beside a raw append", "through_disk", "  in: send and save", least=0.5,
                 beside="raw append", of="ratio"),
            Goal("put, saved, delivered, deleted, beside a raw append", "through_disk", "rate, send to deleted",
                 least=0.5, beside="raw append", of="ratio"),
        ),
    ),
    (
        "Frugality",
        (
            Goal("written on a healthy link, 100/s", "bytes_written", "healthy, 100/s", most=0),
            Goal("written on a healthy link, 10,000/s", "bytes_written", "healthy, 10000/s", most=0),
            Goal("written for a record of 200 B, in and out, through an outage", "bytes_written", _AWAY, most=100),
            Goal("the same at 1,000 records a second", "frugality", "outage and drain, 1,000/s: to disk", most=100),
            Goal("fsyncs on a healthy link", "frugality", "healthy: fsyncs of it all", most=0),
            Goal("disk for ten targets, beside one", "fan_out", "10 targets, all away and back: disk", most=1.1,
                 beside="one target", of="ratio"),
            Goal("CPU with nothing to do", "idle", _IDLE, most=0.05),
            Goal("wake-ups with nothing to do", "idle", "healthy, nothing to send: wake-ups", most=0),
            Goal("RSS with 200,000 waiting, Python included", "backlog", "200,000 waiting: RSS after opening", most=40),
            Goal("RSS of the program that sent them, its ring of 16 MB included", "backlog",
                 "200,000 waiting: RSS of the program that sent them", most=40),
            Goal("RSS with 10,000,000 waiting, Python included", "backlog_of_millions",
                 "10,000,000 waiting: RSS after opening", most=80),
            Goal("CPU to drain a record of 10,000,000, beside 100,000", "backlog_of_millions",
                 "10,000,000 waiting: CPU to drain", most=1.5, beside="100,000 waiting", of="ratio"),
        ),
    ),
    (
        "Nothing lost, no waiting",
        (
            Goal("`close` with the target away, 100,000 just sent", "closing", "100000 wait, just sent: close()",
                 most=50),
            Goal("lost in an outage of 60 s", "outage", "resilient_exporters, outage 60 s: lost", most=0),
            Goal("lost in an outage of 420 s", "outage", "resilient_exporters, outage 420 s: lost", most=0),
            Goal("lost when closed in an outage", "outage", "resilient_exporters, close: lost", most=0),
            Goal("lost by kill -9 in an outage", "outage", "resilient_exporters, kill -9: lost", most=0),
        ),
    ),
    (
        "Beside the agents, driven by the same means",
        (
            Goal("CPU to accept with the target down, beside syslog-ng", "agents", "CPU to accept, target down", most=1,
                 beside="syslog-ng", of="ratio"),
            Goal("the same beside the OpenTelemetry Collector", "agents", "CPU to accept, target down", most=1,
                 beside="OTel Collector", of="ratio"),
            Goal("CPU to drain to an HTTP bulk receiver, beside syslog-ng", "agents",
                 "CPU to drain to an HTTP bulk receiver", most=1, beside="syslog-ng", of="ratio"),
            Goal("CPU to accept", "agents", "CPU to accept, target down", most=3),
            Goal("CPU to drain to an HTTP bulk receiver", "agents", "CPU to drain to an HTTP bulk receiver", most=3),
            Goal("accept rate beside a framed append, dicts", "agents", "accept rate, ours", least=0.5, of="ratio"),
            Goal("written, in and out", "agents", "written, in and out", most=100),
            Goal("lost by kill -9, worst of 3", "agents", "kill -9: lost, worst of 3", most=0),
            Goal("altered records delivered after 64 flipped bytes, worst of 12", "agents",
                 "64 bytes flipped: altered records delivered, worst of 12", most=0),
            Goal("gone after SIGTERM, target down", "agents", "SIGTERM, target down: gone after", most=50),
            Goal("CPU with the target down and nothing sent", "agents", "CPU while down, nothing sent", most=0.05),
            Goal("RSS with 200,000 waiting", "agents", "RSS with 200,000 waiting", most=40),
            Goal("lost and not counted on a full disk", "agents", "disk full: lost and not counted", most=0),
        ),
    ),
    (
        "Scale: flat or explained",
        (
            Goal("first record delivered, 1,000,000 waiting", "backlog",
                 "1,000,000 waiting: until the first is delivered", most=1),
            Goal("first record delivered, 10,000,000 waiting", "backlog_of_millions",
                 "10,000,000 waiting: until the first is delivered", most=1),
            Goal("disk for 10 targets, all away and back, beside one", "fan_out",
                 "10 targets, all away and back: disk", most=1.1, of="ratio"),
            Goal("written for 10 targets on a healthy link", "fan_out", "10 targets, healthy: disk", most=0),
            Goal("lost of 1,000,000 with 128 MB and one core, through an outage and kill -9", "small_machine",
                 "128 MB, one core, 1,000,000 through an outage and kill -9: lost", most=0),
        ),
    ),
    (
        "Into real servers, beside the raw client",
        (
            Goal("MongoDB's wire protocol", "drain_servers", "mongodb: records", least=0.9, of="ratio"),
            Goal("Elasticsearch", "drain_servers", "elasticsearch: records", least=0.9, of="ratio"),
            Goal("PostgreSQL", "drain_servers", "postgresql: records", least=0.9, of="ratio"),
            Goal("MariaDB", "drain_servers", "mariadb: records", least=0.9, of="ratio"),
            Goal("over a satellite, of the line: MongoDB's wire", "slow_link", "satellite, mongodb: defaults",
                 least=0.7, beside="the line", of="ratio"),
            Goal("over a satellite, of the line: Elasticsearch", "slow_link", "satellite, elasticsearch: defaults",
                 least=0.7, beside="the line", of="ratio"),
            Goal("over a satellite, of the line: PostgreSQL", "slow_link", "satellite, postgresql: defaults",
                 least=0.7, beside="the line", of="ratio"),
        ),
    ),
    (
        "Pipeline",
        (
            Goal("records beside a loop by hand, at its level 6", "pipeline", "records", least=0.7,
                 beside="loop with json and gzip, level 6", of="ratio"),
        ),
    ),
)  # fmt: skip
"""Chapter by chapter."""
