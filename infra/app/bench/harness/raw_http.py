"""The thinnest HTTP/1.1 that will do: its cost must not hide what is measured."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

END: Final = b"\r\n\r\n"
LENGTH: Final = b"content-length:"
CHUNKED: Final = b"transfer-encoding: chunked"
LAST: Final = b"0\r\n\r\n"
"""The chunk that ends a chunked body."""


def message(buffer: bytes | bytearray) -> tuple[bytes, bytes, int] | None:
    """(head, body, length in all) of the first whole message in a buffer, if there is one."""
    end = buffer.find(END)
    if end < 0:
        return None
    head = bytes(buffer[:end])
    start = end + len(END)
    lowered = head.lower()
    if CHUNKED in lowered:
        last = start if buffer.startswith(LAST, start) else buffer.find(b"\r\n" + LAST, start) + 2
        return None if last < start else (head, bytes(buffer[start:last]), last + len(LAST))
    at = lowered.find(LENGTH)
    size = int(head[at + len(LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
    if len(buffer) < start + size:
        return None
    return head, bytes(buffer[start : start + size]), start + size


class HTTPConnection(asyncio.Protocol):
    """A connection with one request at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._transport: Any = None  # uvloop's transports are no asyncio.Transport
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        self._buffer += data
        parsed = message(self._buffer)
        if parsed is not None and self._answer is not None:
            head, body, length = parsed
            del self._buffer[:length]
            self._answer.set_result((int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side is gone."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed before the answer"))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


async def connect(host: str, port: int) -> HTTPConnection:
    """A connection."""
    _, client = await asyncio.get_running_loop().create_connection(HTTPConnection, host, port)
    return client


class HTTPServer(asyncio.Protocol):
    """Answers each request at once with the pieces of `answer(head, body)`, each on its own."""

    def __init__(self, answer: Callable[[bytes, bytes], Sequence[bytes]]) -> None:
        self._answer = answer
        self._buffer = bytearray()
        self._transport: Any = None  # uvloop's transports are no asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """A part of a request."""
        self._buffer += data
        while (parsed := message(self._buffer)) is not None:
            head, body, length = parsed
            del self._buffer[:length]
            self._write(self._answer(head, body), 0)

    def _write(self, pieces: Sequence[bytes], at: int) -> None:
        """Write a piece; the next one in the loop's next round, as an engine's tokens come."""
        self._transport.write(pieces[at])
        if at + 1 < len(pieces):
            asyncio.get_running_loop().call_soon(self._write, pieces, at + 1)


def request(path: str, host: str, body: bytes, *, token: str = "") -> bytes:
    """A POST, ready to be written."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join(lines).encode() + END + body


def response(body: bytes) -> bytes:
    """A 200 with JSON, ready to be written."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + END + body


def streamed(chunks: Sequence[bytes]) -> list[bytes]:
    """A 200 with server-sent events, one piece an event, ready to be written."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked"
    events = [b"data: " + chunk + b"\n\n" for chunk in (*chunks, b"[DONE]")]
    framed = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    return [head + END, *framed[:-1], framed[-1] + LAST]
