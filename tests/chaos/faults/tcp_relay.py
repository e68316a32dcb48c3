"""A TCP relay that behaves as badly as networks do: slow, in crumbs, with resets, down, half open.

It stands between a client and a server in the test's own event loop and changes its behaviour while
connections are open. Kafka's clients learn the broker's address from the broker, so a broker behind
a relay must advertise the relay's port (`broker_faults.Broker` does).
"""

import asyncio
import random
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

CHUNK = 64 * 1024
HOST = "127.0.0.1"


@dataclass
class Conditions:
    """How bytes travel; every field may change at any time."""

    latency_s: float = 0.0
    """Each read waits this long before it is passed on."""
    jitter_s: float = 0.0
    """And up to this long in addition."""
    slice_bytes: int = 0
    """Pass on pieces of 1 to this many bytes, each in a packet of its own; 0: as they come."""
    bytes_per_s: float = 0.0
    """Bandwidth of each direction of each connection; 0: no bound."""


CLEAR = Conditions()


class Link:
    """One connection through the relay."""

    def __init__(self, client, server):
        self.client = client
        self.server = server
        self.stranded = False
        self.tasks = []

    def reset(self):
        """End both sides with RST, not with FIN."""
        for writer in (self.client[1], self.server[1]):
            raw = writer.get_extra_info("socket")
            if raw is not None:
                with suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def strand(self):
        """Leave the client alone with an open connection on which nothing will ever come."""
        self.stranded = True
        self.server[1].transport.abort()


class FaultyLink:
    """A relay to `target` (host:port), as an async context manager.

    Args:
        target: Where the server listens.
        port: Where we listen; 0 takes a free port and keeps it through `down` and `up`.
        seed: Of slices, jitter and of who is hit by `reset(share)`.
    """

    def __init__(self, target, *, port=0, seed=0):
        self.conditions = Conditions()
        self.links = set()
        self.resets = 0
        self.port = port
        self._target = target.rpartition(":")
        self._random = random.Random(seed)
        self._server = None
        self._flowing = asyncio.Event()
        self._flowing.set()

    @property
    def address(self):
        """What clients connect to."""
        return f"{HOST}:{self.port}"

    async def __aenter__(self):
        await self.up()
        return self

    async def __aexit__(self, *_):
        await self.down()

    async def up(self):
        """Listen (again, on the same port)."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, HOST, self.port)
            self.port = self._server.sockets[0].getsockname()[1]
        self._flowing.set()

    async def down(self):
        """Refuse connections, and reset those that are open."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        tasks = [task for link in self.links for task in link.tasks]
        self.reset()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def reset(self, share=1.0):
        """Reset a share of the open connections; returns how many."""
        chosen = [link for link in self.links if self._random.random() < share]
        for link in chosen:
            link.reset()
        self.resets += len(chosen)
        return len(chosen)

    def strand(self, share=1.0):
        """Make a share of the connections half open: their clients are told nothing."""
        chosen = [link for link in self.links if self._random.random() < share]
        for link in chosen:
            link.strand()
        return len(chosen)

    def freeze(self):
        """Accept and keep connections, and pass nothing on."""
        self._flowing.clear()

    def thaw(self):
        """Pass on what waited, and go on."""
        self._flowing.set()

    async def _accept(self, reader, writer):
        host, _, port = self._target
        try:
            server = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            return
        link = Link((reader, writer), server)
        self.links.add(link)
        link.tasks = [
            asyncio.create_task(self._pump(link, reader, server[1])),
            asyncio.create_task(self._pump(link, server[0], writer)),
        ]
        await asyncio.gather(*link.tasks, return_exceptions=True)
        self.links.discard(link)
        for each in (writer, server[1]):
            each.transport.abort()

    async def _pump(self, link, reader, writer):
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(CHUNK):
                await self._flowing.wait()
                if link.stranded:
                    continue  # swallowed
                conditions = self.conditions
                wait_s = conditions.latency_s + conditions.jitter_s * self._random.random()
                if conditions.bytes_per_s:
                    wait_s += len(data) / conditions.bytes_per_s
                if wait_s:
                    await asyncio.sleep(wait_s)
                for piece in self._pieces(data, conditions.slice_bytes):
                    writer.write(piece)
                    await writer.drain()
                    if conditions.slice_bytes:
                        await asyncio.sleep(0)
        except (OSError, asyncio.IncompleteReadError):
            pass
        # Stranded, the client's side stays open until the client gives up.
        while link.stranded and writer is link.client[1] and not writer.is_closing():
            await asyncio.sleep(0.05)
        with suppress(OSError, RuntimeError):
            if loop.is_running() and writer.can_write_eof():
                writer.write_eof()

    def _pieces(self, data, most):
        if not most:
            return [data]
        pieces, at = [], 0
        while at < len(data):
            size = self._random.randint(1, most)
            pieces.append(data[at : at + size])
            at += size
        return pieces
