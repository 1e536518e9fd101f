"""How much of a narrow, far link do the records get? A satellite and 2G, into real servers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.drain_servers import AT, records_of, running, shut
from benchmarks.harness import Bench, Figures, column
from benchmarks.material import readings
from benchmarks.narrow_link import NarrowLink
from resilient_exporters import from_url
from tests.servers.provision import UnavailableError

LINKS: dict[str, tuple[dict[str, float], int]] = {
    "satellite": ({"up": 50_000, "down": 50_000, "delay": 0.3}, 120),
    "2G": ({"up": 5_000, "down": 10_000, "delay": 0.4}, 240),
}
"""Bytes a second each way, seconds one way, and for how long it is looked at."""
SMOKE: dict[str, tuple[dict[str, float], int]] = {"near": ({"up": 500_000, "down": 500_000, "delay": 0.01}, 6)}
TARGETS: dict[str, tuple[str, dict[str, Any]]] = {
    "elasticsearch": ("elasticsearch8", {"http_compress": True}),
    "mongodb": ("ferretdb", {}),
    "postgresql": ("postgresql", {}),
}
"""Server, and how to compress, where that server can."""
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "satellite": {
        "batch_records=100": {"batch_records": 100},
        "batch_records=2000": {"batch_records": 2000},
        "concurrency=1": {"concurrency": 1},
        "concurrency=4": {"concurrency": 4},
    },
    "2G": {
        "batch_records=100": {"batch_records": 100},
        "concurrency=4": {"concurrency": 4},
        "timeout=120": {"timeout": 120},
    },
}


def run(bench: Bench) -> None:
    links = SMOKE if bench.smoke else LINKS
    for target, (server, compressing) in TARGETS.items():
        try:
            with running(server) as port:
                for name, (line, seconds) in links.items():
                    options = {} if bench.smoke else OPTIONS[name]
                    if compressing and not bench.smoke:
                        options = {**options, "compressed": compressing}
                    given = {"target": target, "port": port, "line": line, "seconds": seconds}
                    _measure(bench, f"{name}, {target}", given, options)
        except UnavailableError as error:
            bench.note(f"{server} cannot be had: {str(error).splitlines()[0]}")
    bench.note("satellite: 50 kB/s both ways, round trip 600 ms; 2G: 5 kB/s up, 10 kB/s down, 800 ms; all connections")
    bench.note("together. Rates are of the second half of the time; the line: as many raw records as fit at its rate.")
    bench.note("Where several are in flight, some of what ended in that half was sent before: it counts for too much")


def _measure(bench: Bench, name: str, given: dict[str, Any], options: dict[str, dict[str, Any]]) -> None:
    cases: dict[str, tuple[Callable[..., Figures], dict[str, Any]]] = {
        f"{name}: raw client": (raw, {**given, "place": "raw"}),
        f"{name}: defaults": (drain, {**given, "place": "defaults", "options": {}}),
    }
    for number, (case, each) in enumerate(options.items()):
        cases[f"{name}: {case}"] = (drain, {**given, "place": f"place{number}", "options": each})
    found = bench.measure(cases, repeats=1, together=True)
    up = given["line"]["up"]
    fit = [up / size for size in column(found[f"{name}: raw client"], "size")]
    for case, samples in found.items():
        least = 0.7 if case.endswith("defaults") and name.startswith("satellite") else None
        beside = ("the line", fit)
        bench.row(case, column(samples, "rate"), "/s", beside=beside, least=least, of="ratio")
        if not case.endswith("raw client"):
            bench.row("  on the line", column(samples, "size"), "B/record")
            bench.row("  until the first was delivered", column(samples, "first"), "s")
            bench.row("  attempts that failed", column(samples, "failed"))


# In a process of their own:


def drain(
    directory: str, target: str, port: int, place: str, line: dict[str, float], seconds: float, options: dict[str, Any]
) -> Figures:
    """Fill a queue while the server is away, and look what it takes when it is there, on a narrow link."""
    material = readings()
    prepare, _, url, _ = AT[target]
    prepare(port, place)
    with NarrowLink(port, **line) as link:
        exporter = shut(from_url(url.format(port=link.port, place=place), directory=directory, retry=1.0, **options))
        for at in range(int(line["up"] * seconds / 25)):  # more than can be delivered
            exporter.send(material[at % len(material)])
        if not exporter.save(60):
            raise RuntimeError("not saved")
        while _figures(exporter).state != "open":
            time.sleep(0.01)
        before, failed = link.sent, _figures(exporter).retries + 1  # the one that finds it up
        del exporter.connect
        began = time.monotonic()
        exporter.flush(0.0)
        times = [(0.0, 0, 0)]
        while (now := time.monotonic() - began) < seconds:
            taken = _figures(exporter).delivered
            if taken > times[-1][1]:
                times.append((now, taken, link.sent - before))
            time.sleep(0.02)
        failed = _figures(exporter).retries - failed
        exporter.close(0.0)
    if len(times) < 2:
        raise RuntimeError(f"{target}: {times[-1][1]} records in {seconds} s with {options}")
    settled = next((at for at, (now, _, _) in enumerate(times) if now >= seconds / 2), 1)
    start, end = times[min(settled, len(times) - 2)], times[-1]
    records = end[1] - start[1]
    return {
        "rate": records / (end[0] - start[0]), "size": (end[2] - start[2]) / records, "first": times[1][0],
        "failed": failed, "taken": end[1],
    }  # fmt: skip


def _figures(exporter: Any) -> Any:
    (figures,) = exporter.stats().targets.values()
    return figures


def raw(target: str, port: int, place: str, line: dict[str, float], seconds: float) -> Figures:
    """The same without us: batches of 500, one after the other."""
    prepare, finish, _, write = AT[target]
    prepare(port, place)
    count = max(500, int(line["up"] * seconds / 500 // 500 * 500))
    with NarrowLink(port, **line) as link:
        began = time.monotonic()
        write(link.port, place, records_of(readings(), count))
        rate = count / (time.monotonic() - began)
        size = link.sent / count
    if finish(port, place) != count:
        raise RuntimeError(f"{finish(port, place)} of {count} are there")
    return {"rate": rate, "size": size}
