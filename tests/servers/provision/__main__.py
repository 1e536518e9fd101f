"""python -m tests.servers.provision list | install [NAME ...] | run NAME"""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.servers.provision import HOST, SERVERS, Cache, Instance, Server, UnavailableError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.servers.provision", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what there is, and whether it is installed")
    install = commands.add_parser("install", help="what is missing; something that cannot be had is only told")
    install.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SERVERS)}; none: all")
    run = commands.add_parser("run", help="one server until Ctrl-C, to try things by hand")
    run.add_argument("name", choices=SERVERS, metavar="NAME")
    run.add_argument("--upstream", type=int, metavar="PORT")
    arguments = parser.parse_args()
    cache = Cache()
    if arguments.command == "list":
        for server in SERVERS.values():
            print(f"{server.name:16} {server.version:8} {'installed' if server.installed(cache) else '-'}")
    elif arguments.command == "install":
        install_all([SERVERS[name] for name in arguments.names or SERVERS], cache)
    else:
        run_one(SERVERS[arguments.name], cache, arguments.upstream)
    return 0


def install_all(servers: list[Server], cache: Cache) -> None:
    """One source after the other would wait on the network and on the compiler in turn: all sources at once."""
    missing = sorted((server for server in servers if not server.installed(cache)), key=lambda server: server.source)
    lanes = [list(lane) for _, lane in itertools.groupby(missing, key=lambda server: server.source)]
    if not lanes:
        return
    names = ", ".join(server.name for server in missing)
    print(f"installing for the tests, once, into {cache.root}: {names}", flush=True)
    with ThreadPoolExecutor(len(lanes)) as threads:
        list(threads.map(lambda lane: install_lane(lane, cache), lanes))


def install_lane(servers: list[Server], cache: Cache) -> None:
    for server in servers:
        began = time.monotonic()
        try:
            server.install(cache)
        except UnavailableError as error:
            print(f"{server.name} CANNOT BE HAD, its tests will be skipped: {error}", flush=True)
        else:
            print(f"{server.name} installed in {time.monotonic() - began:.0f} s", flush=True)


def run_one(server: Server, cache: Cache, upstream: int | None) -> None:
    server.install(cache)
    instance = Instance(server, Path(tempfile.mkdtemp(prefix="server-")), cache, upstream=upstream)
    instance.data.chmod(0o711)
    began = time.monotonic()
    try:
        instance.start()
        print(f"{server.name} is on {HOST}:{instance.port} after {time.monotonic() - began:.1f} s", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    finally:
        instance.remove()


if __name__ == "__main__":
    sys.exit(main())
