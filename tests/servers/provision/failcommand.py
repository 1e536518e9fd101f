"""MongoDB's ``failCommand`` fail point, as a proxy for servers that lack it. Arguments: port, port of the server.

Clients set it as they would on a mongod that runs with enableTestCommands::

    client.admin.command("configureFailPoint", "failCommand", mode={"times": 1},
                         data={"failCommands": ["insert"], "errorCode": 91})

``mode`` is "off", "alwaysOn", ``{"times": n}`` or ``{"skip": n}``; one fail point at a time. Of ``data`` it knows
failCommands, errorCode, errorLabels, closeConnection, blockConnection with blockTimeMS, and writeConcernError; and more
than mongod:

- ``dropReply: true``: the server does the work, and the connection breaks before its answer
- ``writeErrors: {"field": f, "value": v, "code": c}``: documents of an insert where f equals v are refused with c

It takes OP_MSG only, and hides that FerretDB answers writes that ask for no answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import struct
import sys
from dataclasses import dataclass, field
from typing import Any

import bson

HEADER = struct.Struct("<iiii")
OP_MSG = 2013
CHECKSUM, MORE_TO_COME = 1, 2
Document = dict[str, Any]


@dataclass
class FailPoint:
    """Which of the next commands go wrong, and how."""

    data: Document = field(default_factory=dict)
    skip: int = 0
    times: float = 0

    def set(self, command: Document) -> None:
        mode = command["mode"]
        limits = mode if isinstance(mode, dict) else {}
        self.data = {} if mode == "off" else command.get("data", {})
        self.skip, self.times = limits.get("skip", 0), limits.get("times", float("inf"))

    def fault(self, command: str) -> Document:
        """What happens to this command; empty: nothing."""
        if command not in self.data.get("failCommands", ()) or self.times < 1:
            return {}
        if self.skip > 0:
            self.skip -= 1
            return {}
        self.times -= 1
        return self.data


@dataclass
class Message:
    """One message of the protocol. `request` and `reply_to` are its ids."""

    request: int
    reply_to: int
    opcode: int
    body: bytes

    @classmethod
    async def read(cls, reader: asyncio.StreamReader) -> Message:
        length, request, reply_to, opcode = HEADER.unpack(await reader.readexactly(HEADER.size))
        return cls(request, reply_to, opcode, await reader.readexactly(length - HEADER.size))

    async def write(self, writer: asyncio.StreamWriter) -> None:
        header = HEADER.pack(HEADER.size + len(self.body), self.request, self.reply_to, self.opcode)
        writer.write(header + self.body)
        await writer.drain()

    @property
    def flags(self) -> int:
        return int.from_bytes(self.body[:4], "little")

    def document(self) -> Document:
        """The command or answer, with the documents that travel beside it put back in."""
        whole: Document = {}
        options: bson.CodecOptions[Document] = bson.CodecOptions(document_class=dict, tz_aware=True)
        at, end = 4, len(self.body) - (4 if self.flags & CHECKSUM else 0)
        while at < end:
            kind, size = self.body[at], int.from_bytes(self.body[at + 1 : at + 5], "little")
            section = self.body[at + 1 : at + 1 + size]
            if kind == 0:
                whole = {**bson.decode(section, options), **whole}
            else:
                name, _, documents = section[4:].partition(b"\0")
                whole[name.decode()] = bson.decode_all(documents, options)
            at += 1 + size
        return whole

    def asking(self, command: Document | None = None) -> Message:
        """The same request, with another command if given, and always wanting an answer."""
        if command is not None:
            return Message(self.request, 0, OP_MSG, encode(command))
        flags = self.flags & ~MORE_TO_COME
        return Message(self.request, 0, OP_MSG, flags.to_bytes(4, "little") + self.body[4:])

    def answer(self, document: Document) -> Message:
        return Message(0, self.request, OP_MSG, encode(document))


def encode(document: Document) -> bytes:
    return b"\0\0\0\0\0" + bson.encode(document)


class Link:
    """One client, and a connection to the server of its own. One request at a time, as drivers do."""

    def __init__(self, point: FailPoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.point, self.reader, self.writer = point, reader, writer

    async def serve(self, upstream: int) -> None:
        """Until one side hangs up or a fault does."""
        self.up_reader, self.up_writer = await asyncio.open_connection("127.0.0.1", upstream)
        with contextlib.closing(self.up_writer):
            while True:
                request = await Message.read(self.reader)
                reply = await self.reply(request)
                if reply is None:
                    return
                if request.opcode != OP_MSG or not request.flags & MORE_TO_COME:
                    await reply.write(self.writer)

    async def reply(self, request: Message) -> Message | None:
        """What the client gets; None: the connection breaks."""
        if request.opcode != OP_MSG:
            return await self.ask(request)
        command = request.document()
        name = next(key for key in command if key != "documents")
        if name == "configureFailPoint":
            self.point.set(command)
            return request.answer({"ok": 1.0})
        fault = self.point.fault(name)
        if not fault:
            return await self.ask(request.asking())
        if fault.get("blockConnection"):
            await asyncio.sleep(fault["blockTimeMS"] / 1000)  # the fault itself: a server that is slow
        if fault.get("closeConnection"):
            return None
        if "errorCode" in fault:
            error = {"ok": 0.0, "errmsg": "failing command via failpoint", "code": fault["errorCode"]}
            return request.answer({**error, "errorLabels": fault.get("errorLabels", [])})
        return await self.half_done(request, command, fault)

    async def half_done(self, request: Message, command: Document, fault: Document) -> Message | None:
        """Faults where the server does at least a part of the work."""
        refused: list[Document] = []
        kept = list(range(len(command.get("documents", ()))))
        if "writeErrors" in fault and "insert" in command:
            refused, kept = refuse(command, fault["writeErrors"])
            command = {**command, "documents": [command["documents"][index] for index in kept]}
        done: Document = {"n": 0, "ok": 1.0}
        if kept or not refused:
            answer = await self.ask(request.asking(command if refused else None))
            if fault.get("dropReply"):
                return None
            done = answer.document()
        for error in done.get("writeErrors", ()):
            error["index"] = kept[error["index"]]
        if errors := [*done.get("writeErrors", ()), *refused]:
            done["writeErrors"] = sorted(errors, key=lambda error: int(error["index"]))
        if "writeConcernError" in fault:
            done["writeConcernError"] = fault["writeConcernError"]
        return request.answer(done)

    async def ask(self, request: Message) -> Message:
        await request.write(self.up_writer)
        return await Message.read(self.up_reader)


def refuse(command: Document, rule: Document) -> tuple[list[Document], list[int]]:
    """The errors of the documents that the rule refuses, and the places of those that stay."""
    errors: list[Document] = []
    kept: list[int] = []
    for index, document in enumerate(command["documents"]):
        if document.get(rule["field"]) != rule["value"]:
            kept.append(index)
            continue
        message = rule.get("errmsg", "Document failed validation")
        errors.append({"index": index, "code": rule["code"], "errmsg": message})
        if command.get("ordered", True):
            break
    return errors, kept


async def main(port: int, upstream: int) -> None:
    point, stopped = FailPoint(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await Link(point, reader, writer).serve(upstream)

    listener = await asyncio.start_server(accept, "127.0.0.1", port)
    await stopped.wait()
    listener.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
