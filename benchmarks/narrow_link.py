"""A link that is narrow and far: one rate for all connections together, and a delay.

Toxiproxy limits each connection by itself. Ten connections through a satellite share one rate, and whether more of them
help is what is to be found out.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

_PACKET = 1460
_WINDOW = 8192
_BUFFER = 0.1
"""Seconds that packets wait in front of the line, as in a modem: it stays full though a busy machine makes us late."""


class NarrowLink:
    """Forwards TCP connections to a port of this machine, in a thread of its own. A context manager.

    A connection costs a round trip more, as a handshake does. What the client has handed to its kernel is sent even
    after the client has gone, as on a real line. Congestion and lost packets are not played.

    Args:
        upstream: port of the server.
        up, down: bytes a second towards the server, and back; of all connections together.
        delay: seconds that a byte takes one way. The round trip is twice that.

    Attributes:
        port: where to connect to.
    """

    def __init__(self, upstream: int, *, up: float, down: float, delay: float) -> None:
        self.port = 0
        self._upstream = upstream
        self._delay = delay
        self._up, self._down = _Lane(up), _Lane(down)
        self._loop = asyncio.new_event_loop()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="narrow link")
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def sent(self) -> int:
        """Bytes that went towards the server."""
        return self._up.bytes

    @property
    def received(self) -> int:
        """Bytes that came back."""
        return self._down.bytes

    def __enter__(self) -> Self:
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._begun.set()
        self._loop.run_forever()
        for task in self._tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._loop.close()

    async def _listen(self) -> None:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW)  # little waits here: it waits at the client
        listening.bind(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        await asyncio.start_server(self._accept, sock=listening, limit=_PACKET)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            writer.transport.abort()
            return
        self._start(self._carry(reader, server_writer, self._up, 2 * self._delay))
        self._start(self._carry(server_reader, writer, self._down, 0.0))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lane: _Lane, wait: float
    ) -> None:
        """One direction of one connection: packet by packet onto the line, and out at the other end later."""
        loop = self._loop
        await asyncio.sleep(wait)
        flying: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._start(self._deliver(flying, writer))
        packet = b"first"
        while packet:
            try:
                packet = await reader.read(_PACKET)
            except OSError:
                packet = b""
            gone = lane.send(len(packet), loop.time())
            await asyncio.sleep(gone - _BUFFER - loop.time())
            flying.put_nowait((gone + self._delay, packet))

    async def _deliver(self, flying: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            there, packet = await flying.get()
            await asyncio.sleep(there - self._loop.time())
            try:
                if not packet:
                    writer.write_eof()
                    return
                writer.write(packet)
                await writer.drain()
            except (OSError, RuntimeError):  # the other side has gone
                return


class _Lane:
    """One direction of the line, for all connections."""

    def __init__(self, rate: float) -> None:
        self.bytes = 0
        self._rate = rate
        self._free = 0.0

    def send(self, size: int, now: float) -> float:
        """Put a packet on the line; when its last byte has left."""
        self.bytes += size
        self._free = max(now, self._free) + size / self._rate
        return self._free
