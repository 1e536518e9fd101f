"""What a year in the field came to: the figures, the card that counts what is written, and the picture."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Card", "Figures", "Sample", "draw"]


@dataclass
class Sample:
    """A look at everything, once an hour or so."""

    day: float
    backlog: list[int]
    states: list[str]
    written: int
    disk: int
    rss: int


@dataclass
class Figures:
    """What a year came to."""

    days: float
    sent: int = 0
    payload: int = 0
    lost: int = 0
    in_window: int = 0
    doubled: int = 0
    resent: int = 0
    altered: int = 0
    unlawful: int = 0
    dead: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    link_up: float = 0.0
    most_backlog: int = 0
    most_disk: int = 0
    written: int = 0
    rss: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    samples: list[Sample] = field(default_factory=list)

    def __str__(self) -> str:
        down, kept = self.ends["killed"], self.ends["cut"]
        lines = {
            "days": f"{self.days:g}, the link up {self.link_up:.0%} of the time",
            "readings sent": f"{self.sent:,}, {self.payload / 1e6:.0f} MB encoded",
            "program killed": f"{down} times",
            "power cut": f"{kept} times",
            "lost": f"{self.lost}",
            "taken by a cut, accepted within loss_window before it": f"{self.in_window}",
            "there twice": f"{self.doubled}",
            "sent again, and absorbed by the id": f"{self.resent:,}",
            "altered": f"{self.altered}",
            "counters that did not add up": f"{self.unlawful}",
            "dead letters (poison)": f"{self.dead}",
            "dropped": f"{dict(self.dropped) or 0}",
            "most that waited for one target": f"{self.most_backlog:,}",
            "most disk": f"{self.most_disk / 1e6:.1f} MB",
            "written to the card": f"{self.written / 1e6:.0f} MB, {self.written / self.payload:.2f} of the payload",
            "peak RSS": f"{self.rss / 1e6:.0f} MB",
            "took": f"{self.seconds:.0f} s, {self.cpu:.0f} of them CPU",
        }
        return "\n".join(["| figure | |", "|---|---|", *(f"| {name} | {text} |" for name, text in lines.items())])


class Card:
    """Where the queue lies: an ext4 of its own on a loop device, which counts what is written to it.

    Without the right to mount it is a folder, and the kernel's count for this process stands in (which takes a page
    cache of large pages for written as a whole).
    """

    def __init__(self, root: Path) -> None:
        self.place = root / "card"
        self.place.mkdir()
        self._counter = Path("/proc/self/io")
        try:
            self._mount(root / "image")
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"no file system of its own ({getattr(error, 'stderr', '') or error}): counted by /proc/self/io")

    @property
    def mounted(self) -> bool:
        """Whether it is a file system of its own."""
        return self._counter.name == "stat"

    def _mount(self, image: Path) -> None:
        with image.open("wb") as file:
            file.truncate(1 << 30)
        _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
        _run("mount", "-o", "loop", image, self.place)
        device = f"{os.major(self.place.stat().st_dev)}:{os.minor(self.place.stat().st_dev)}"
        self._counter = Path(f"/sys/dev/block/{device}/stat")

    def written(self) -> int:
        """Bytes, so far."""
        text = self._counter.read_text()
        return int(text.split()[6]) * 512 if self.mounted else int(text.split("write_bytes: ")[1].split()[0])

    def sync(self) -> None:
        """Let everything get there."""
        handle = os.open(self.place, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        os.sync()

    def eject(self) -> None:
        """Unmount it."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", self.place], check=True)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def draw(figures: Figures, path: Path) -> None:
    """The year in a picture: what waited, what was written, how the breakers stood."""
    from matplotlib.figure import Figure

    days = [one.day for one in figures.samples]
    figure = Figure(figsize=(10, 7), layout="constrained")
    backlog, written, states = figure.subplots(3, 1, sharex=True, height_ratios=(4, 3, 1.4))
    for at, name in enumerate(("cloud", "plant")):
        backlog.plot(days, [one.backlog[at] for one in figures.samples], label=name, linewidth=0.9)
    backlog.set_ylabel("records that wait")
    backlog.set_yscale("symlog", linthresh=100)
    backlog.legend(loc="upper left")
    first = figures.samples[0].written
    written.plot(days, [(one.written - first) / 1e6 for one in figures.samples], label="written to the card")
    written.plot(days, [one.disk / 1e6 for one in figures.samples], label="queue directory", linewidth=0.9)
    written.plot(days, [one.rss / 1e6 for one in figures.samples], label="RSS", linewidth=0.9)
    written.set_ylabel("MB")
    written.legend(loc="upper left")
    colours = {"closed": "#bcd9bc", "half-open": "#f0d080", "open": "#e0a060", "held": "#a03030"}
    for at in range(2):
        for state, colour in colours.items():
            here = [(one.day, figures.days / len(days)) for one in figures.samples if one.states[at] == state]
            states.broken_barh(here, (at - 0.4, 0.8), color=colour, label=state if not at else None)
    states.set_yticks([0, 1], ["cloud", "plant"])
    states.set_xlabel("day")
    states.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.45))
    figure.savefig(path, dpi=80)
