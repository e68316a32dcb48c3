"""The process in which a plain reward function judges, one conversation at a time.

    python -m odradek.streams.judges.worker DESCRIPTOR PARENT module:function

DESCRIPTOR is a socket on which frames go both ways: four bytes of length, then so many bytes. In
come conversations as their records hold them; out go Answers in JSON, the first of them when the
function is imported. Neither side unpickles anything. The function runs in the main thread, so it
may set alarms; standard input is empty, and what it prints is printed.
"""

import asyncio
import inspect
import os
import signal
import socket
import sys
from collections.abc import Awaitable
from typing import Any, Final

import msgspec

from odradek.infra.runtime.foreign_code import ForeignCode
from odradek.infra.runtime.process import die_with_parent
from odradek.schemas import codec
from odradek.schemas.events import Conversation
from odradek.schemas.numbers import number
from odradek.schemas.topics import CONVERSATIONS
from odradek.streams.judges.judge import RETURNED, Scores, is_async, load, what_failed, why
from odradek.streams.judges.signals import Signals

HEAD: Final = 4
"""Bytes of a frame's length."""
INTERRUPT: Final = signal.SIGINT.name
TIMERS: Final = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


class WorkerReply(msgspec.Struct, omit_defaults=True):
    """A worker's message: first about its function, then about each conversation."""

    worth: float | None = None
    failed: str = ""
    """Why there is no number."""
    refused: str = ""
    """Why there will never be any: the function cannot be imported."""
    asynchronous: bool = False
    """The function is async: it is not for workers."""
    met: str = ""
    """The signal that met the verdict, which may be another one for it."""


def main(descriptor: str, parent: str, path: str) -> None:
    """Import the function, then judge until the other side hangs up."""
    signals = Signals()
    if (ask := die_with_parent(int(parent))) is not None:
        ask()
    us = os.getpid()

    def say(answer: WorkerReply) -> None:
        if os.getpid() != us:
            os._exit(1)  # a process that the function forked: its word would be the next verdict
        send(line, answer)

    with socket.socket(fileno=int(descriptor)) as line:
        line.set_inheritable(False)  # programs that the function starts must not hold it open
        with ForeignCode() as importing:
            function = load(path)
            answer = WorkerReply(asynchronous=is_async(function))
        if importing.error is not None:  # the service says it, and ends
            say(WorkerReply(refused=why(path, importing.error)))
            return
        say(answer)
        while (value := receive(line)) is not None:
            say(judged(function, value, signals))


def judged(function: Scores, value: bytes, signals: Signals) -> WorkerReply:
    """The answer about one conversation."""
    # An alarm or an interrupt of the function's own may come when the function is over.
    with ForeignCode() as late:
        answer = _reply(function, value, signals)
    if late.error is not None:
        answer = WorkerReply(failed=what_failed(late.error))
    signals.end()
    # Whoever catches an interrupt and gives a number has meant it.
    met = signals.met if answer.worth is None or signals.met != INTERRUPT else ""
    return msgspec.structs.replace(answer, met=met)


def _reply(function: Scores, value: bytes, signals: Signals) -> WorkerReply:
    signals.begin()
    try:
        with ForeignCode() as judging:
            conversation: Conversation = codec.decode(
                value, Conversation, max_bytes=CONVERSATIONS.max_bytes
            )
            worth = function(conversation)
            if inspect.isawaitable(worth):
                worth = asyncio.run(_awaited(worth))
            return WorkerReply(worth=number(worth, RETURNED))
        assert judging.error is not None  # an error event, and the worker goes on
        return WorkerReply(failed=what_failed(judging.error))
    finally:
        for timer in TIMERS:  # an alarm that was left behind would hit a neighbour
            signal.setitimer(timer, 0)


async def _awaited(worth: Awaitable[Any]) -> Any:
    return await worth


def send(line: socket.socket, answer: WorkerReply) -> None:
    """Write one frame."""
    value = msgspec.json.encode(answer)
    line.sendall(len(value).to_bytes(HEAD) + value)


def receive(line: socket.socket) -> bytes | None:
    """Read one frame; None where the other side has hung up."""
    head = _exactly(line, HEAD)
    return None if head is None else _exactly(line, int.from_bytes(head))


def _exactly(line: socket.socket, size: int) -> bytes | None:
    value = bytearray(size)
    view = memoryview(value)
    while view:
        count = line.recv_into(view)
        if not count:
            return None
        view = view[count:]
    return bytes(value)


if __name__ == "__main__":
    main(*sys.argv[1:])
