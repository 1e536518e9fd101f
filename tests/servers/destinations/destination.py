"""A target on a server of its own: what can go wrong with the server, and what is in it.

What can go wrong is a method that takes True (it begins) or False (it ends).
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import resilient_exporters
from resilient_exporters import Exporter
from tests.servers.provision import Instance, Link
from tests.servers.small_disk import SmallDisk

PASSWORD = "p:@/%?#"
OwnServer = Callable[..., Instance]


class Destination(ABC):
    """One target, on a server of its own that lasts for many tests; `open` gives each test an empty place in it.

    Args:
        start: starts a server.
        link: makes a link to a port.

    Attributes:
        name: of the kind.
        cls: the exporter's class, by name.
        server: the server.
        link: the way of this test to it.
        answer: bytes after which answers break off so that the server has committed what it was given.
        in_order: whether the order of writing can be read.
        only: the faults that this one is for; None: all that it knows.
    """

    name: ClassVar[str]
    cls: ClassVar[str]
    server: Instance
    answer: ClassVar[int] = 20
    in_order: ClassVar[bool] = True
    only: ClassVar[frozenset[str] | None] = None

    def __init__(self, start: OwnServer) -> None:
        self._own_server = start
        self.disk: SmallDisk | None = None
        self.started()

    @abstractmethod
    def started(self) -> None:
        """Start the server."""

    @abstractmethod
    def fresh(self, name: str) -> None:
        """Make an empty place of this name."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The exporter's options, but for those of delivery."""

    @abstractmethod
    def numbers(self) -> list[int]:
        """``n`` of all that is there, in the order in which it was written."""

    def open(self, link: Link) -> None:
        """A test begins: an empty place, reached by this link."""
        self.link = link
        self.place = f"t_{uuid.uuid4().hex[:12]}"
        self.fresh(self.place)

    def exporter(self, **options: Any) -> Exporter:
        """An exporter to this place by this link."""
        made: Exporter = getattr(resilient_exporters, self.cls)(**self.options(), **options)
        return made

    def port(self, fault: str) -> int:
        """Where the link goes to, for a fault that takes something in between."""
        return self.server.port

    def close(self) -> None:
        """Stop what was started."""
        self.server.stop()
        if self.disk is not None:
            self.disk.remove()
        self.server.remove()

    # What can go wrong with every server

    def stopped(self, wrong: bool) -> None:
        self.server.stop() if wrong else self.server.start()

    def killed(self, wrong: bool) -> None:
        self.server.kill() if wrong else self.server.start()

    def restarted(self, wrong: bool) -> None:
        if wrong:
            self.server.stop()
            self.server.start()

    def _again(self) -> None:
        """Make the exporter connect anew: what was changed holds for new connections only."""
        self.link.cut()
        self.link.mend()
