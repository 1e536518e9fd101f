"""A program that sends without end, for tests that kill it: it prints the number of each record that was accepted.

Argument: JSON with ``cls``, the exporter's class; ``options``; ``first``, the number of its first record; ``burst``,
how many it sends at once before it sends ``rate`` a second.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
from typing import Any

import resilient_exporters


def main(cls: str, options: dict[str, Any], first: int, burst: int, rate: int) -> None:
    exporter = getattr(resilient_exporters, cls)(**options)
    pace = threading.Event()
    for n in itertools.count(first):
        exporter.send({"n": n, "text": "x" * 50})
        sys.stdout.write(f"{n}\n")
        if n - first >= burst:
            sys.stdout.flush()
            pace.wait(1 / rate)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
