"""Draw where the time goes: py-spy samples a program, the stacks become a flame graph in docs/performance.

``python -m benchmarks.flame accept`` (records taken and saved while the target is away) or ``drain`` (a backlog read,
delivered and deleted). A box is as wide as the share of the samples in which its function was on the stack; what it
calls stands above it. Threads that wait are left out.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from benchmarks.harness import fresh_directory, remove
from benchmarks.material import Target, readings

_OUT = Path(__file__).parent.parent / "docs" / "performance"
_COUNT = 1_500_000
_RATE = 500
_WIDTH, _ROW, _LETTER = 1200, 17, 6.6
_NARROWEST = 0.7  # pixels below which a box is not drawn
_WAITING = ("Bell.wait (", "Workers._work (", "wait (threading.py", "_wait_for_tstate_lock (")
_WARM = ("#e4572e", "#e8753a", "#eb8f47", "#efa857", "#f3c06a")
_COOL = "#8fb8de"  # functions of others


@dataclass
class Box:
    """One function on one stack, with the samples it was seen in."""

    name: str
    samples: int = 0
    above: dict[str, Box] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """Rows that it and what it calls take."""
        return 1 + max((box.depth for box in self.above.values()), default=0)


def tree(folded: str) -> Box:
    """The stacks of ``py-spy record --format raw``, one above the other."""
    whole = Box("all threads")
    for line in folded.splitlines():
        stack, _, samples = line.rpartition(" ")
        names = stack.split(";")
        if names[-1].startswith(_WAITING):
            continue
        box = whole
        box.samples += int(samples)
        for name in names:
            # Threads by their names, functions without the line.
            short = name.partition(": ")[2] if name.startswith("thread (") else name.rpartition(":")[0] + ")"
            box = box.above.setdefault(short.replace("resilient_exporters/", ""), Box(short))
            box.name = short.replace("resilient_exporters/", "")
            box.samples += int(samples)
    return whole


def svg(whole: Box, title: str) -> str:
    """The picture. Hovering a box shows its function and share."""
    height = (whole.depth + 2) * _ROW
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            'font-family="monospace" font-size="11">'
        ),
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="4" y="13" font-size="13">{escape(title)}</text>',
        *_boxes(whole, whole.samples, 0.0, height - _ROW, 0),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _boxes(box: Box, total: int, left: float, top: int, at: int) -> Iterator[str]:
    width = box.samples / total * _WIDTH
    if width < _NARROWEST:
        return
    ours = ".py" not in box.name or "delivery/" in box.name or box.name.endswith(("codec.py)", "exporter.py)"))
    color = _WARM[at % len(_WARM)] if ours else _COOL
    share = f"{escape(box.name)}: {100 * box.samples / total:.1f} %"
    room = int((width - 4) / _LETTER)
    label = escape(box.name[:room]) if room >= 3 else ""
    yield (
        f'<g><title>{share}</title><rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{_ROW - 1}" '
        f'fill="{color}" rx="1"/><text x="{left + 2:.1f}" y="{top + 12}">{label}</text></g>'
    )
    for number, above in enumerate(sorted(box.above.values(), key=lambda one: one.name)):
        yield from _boxes(above, total, left, top - _ROW, at + number + 1)
        left += above.samples / total * _WIDTH


def draw(what: str) -> Path:
    """Sample one of the programs and write its picture."""
    with tempfile.TemporaryDirectory() as place:
        folded = Path(place) / "stacks"
        program = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.flame", f"--{what}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdout.readline()
        spy = subprocess.Popen(
            ["py-spy", "record", "-t", "-r", str(_RATE), "-f", "raw", "-o", str(folded), "-p", str(program.pid)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert spy.stdout is not None
        spy.stdout.readline()  # it has attached
        program.stdin.write("\n")
        program.stdin.flush()
        print(program.stdout.readline(), end="")
        spy.send_signal(signal.SIGINT)  # it writes what it has
        spy.communicate()
        program.communicate("\n")
        _OUT.mkdir(parents=True, exist_ok=True)
        path = _OUT / f"flame-{what}.svg"
        path.write_text(svg(tree(folded.read_text()), _TITLES[what]))
    return path


_TITLES = {
    "accept": "accept: dicts of 12 fields sent and saved, target away (samples of CPU in use, all threads)",
    "drain": "drain: a backlog read from disk, delivered and deleted (samples of CPU in use, all threads)",
}


# The programs that are looked at, in processes of their own:


def _program(what: str) -> None:
    logging.disable(logging.WARNING)
    directory = fresh_directory()
    material = readings()
    target = Target(directory, up=False, on_full="block", max_disk="2 GB")
    target.send(material[0])
    if what == "drain":
        _send(target, material)
    print("ready", flush=True)
    sys.stdin.readline()
    if what == "accept":
        _send(target, material)
    else:
        target.up = True
        target.flush(600)
    print(f"{what}: {target.stats().accepted} records", flush=True)
    sys.stdin.readline()
    target.close(0.0)
    remove(directory)


def _send(target: Target, material: list[dict[str, object]]) -> None:
    for at in range(_COUNT):
        target.send(material[at % len(material)])
    target.save()


def main() -> None:
    """Draw what is named, or both."""
    if sys.argv[1:] and sys.argv[1].startswith("--"):
        _program(sys.argv[1][2:])
        return
    for what in sys.argv[1:] or _TITLES:
        print(draw(what))


if __name__ == "__main__":
    main()
