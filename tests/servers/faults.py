"""What goes wrong in the fault matrix: on the wire by Toxiproxy, and with the server."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tests.servers.destinations import Destination

Change = Callable[[Destination, bool], None]


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that goes wrong and gets well again.

    Attributes:
        change: makes it so for a destination (True), and takes it back (False).
        needs: what the destination must know; None: nothing.
        bites: attempts fail meanwhile, and the exporter says that the destination is in trouble.
        nibbles: attempts fail meanwhile, and small ones do not.
        unheard: the server does work of which nobody hears.
        first: it is there before the first record.
    """

    change: Change
    needs: str | None = None
    bites: bool = True
    nibbles: bool = False
    unheard: bool = False
    first: bool = False

    def possible(self, name: str, destination: type[Destination]) -> bool:
        """Whether this destination can have it."""
        known = self.needs is None or hasattr(destination, self.needs)
        return known and (destination.only is None or name in destination.only)


def wire(*toxics: tuple[str, dict[str, Any]]) -> Change:
    """A link that goes bad."""

    def change(destination: Destination, wrong: bool) -> None:
        if not wrong:
            destination.link.mend()
            return
        for kind, attributes in toxics:
            destination.link.fault(kind, **attributes)

    return change


def cut(destination: Destination, wrong: bool) -> None:
    destination.link.cut() if wrong else destination.link.mend()


def lost_answer(destination: Destination, wrong: bool) -> None:
    wire(("limit_data", {"bytes": destination.answer}))(destination, wrong)


def server(name: str, **more: bool) -> Fault:
    """What a method of the destination does."""
    return Fault(lambda destination, wrong: getattr(destination, name)(wrong), needs=name, **more)


UP = {"stream": "upstream"}
FAULTS: dict[str, Fault] = {
    "latency": Fault(wire(("latency", {"latency": 200, "jitter": 100})), bites=False),
    "slices": Fault(wire(("slicer", {"average_size": 50, "size_variation": 20, "delay": 1000, **UP})), bites=False),
    "half_open": Fault(wire(("timeout", {"timeout": 0}), ("timeout", {"timeout": 0, **UP}))),
    "swallowed_answers": Fault(wire(("timeout", {"timeout": 0}))),
    "reset": Fault(wire(("reset_peer", {"timeout": 20, **UP}))),
    "cut_batch": Fault(wire(("limit_data", {"bytes": 2000, **UP})), bites=False, nibbles=True),
    "lost_answer": Fault(lost_answer, unheard=True),
    "1_kB_a_second": Fault(wire(("bandwidth", {"rate": 1}), ("bandwidth", {"rate": 1, **UP})), bites=False),
    "slow_close": Fault(wire(("slow_close", {"delay": 1000})), bites=False),
    "cut": Fault(cut),
    "stopped": server("stopped"),
    "killed": server("killed"),
    "restarted": server("restarted", bites=False),
    "late": server("stopped", first=True),
    "wrong_password": server("wrong_password", first=True),
    "missing_right": server("missing_right"),
    "missing_place": server("missing_place"),
    "read_only": server("read_only"),
    "full_disk": server("full_disk"),
    "dropped_replies": server("dropped_replies", unheard=True),
    "overload": server("overload"),
    "overload_of_memory": server("overload_of_memory"),
}
