"""One worker, which the service starts, asks, and kills where it takes too long."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Final

import msgspec

from odradek.streams.errors import NoWorker, RewardFailed, RewardRefused
from odradek.streams.judges.signals import END
from odradek.streams.judges.worker import HEAD, WorkerReply

MODULE: Final = "odradek.streams.judges.worker"
START_S: Final = 600.0
"""How long the function's module may take to be imported: it may load a model."""
END_S: Final = 1.0
"""How long a worker may take to end."""
REAP_S: Final = 5.0
LARGEST: Final = 64 * 1024
"""Bytes of a WorkerReply."""
SENT: Final = (*END, signal.SIGINT)
"""Signals of which a worker dies that somebody has ended."""
STDERR: Final = 2


class Worker:
    """A process of its own, in a session of its own, that judges one conversation at a time.

    It shares nothing with other workers, so one that dies takes nobody with it.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.asynchronous = False
        """The function is async: it is not for workers."""
        self.verdicts = 0
        self._process = process
        self._reader = reader
        self._writer = writer
        self._killed = False
        self._ended = asyncio.create_task(process.wait())

    @classmethod
    async def start(cls, path: str) -> "Worker":
        """A worker that has imported the function.

        Raises:
            RewardRefused: The function cannot be imported.
            RewardFailed: The worker died over it.
            NoWorker: It cannot be started.
        """
        try:
            worker = await cls._spawn(path)
        except OSError as error:
            raise NoWorker(f"no worker can be started: {error}") from error
        await worker._begin()  # noqa: SLF001 - its own
        return worker

    async def _begin(self) -> None:
        answer = await self._converse(None, START_S)
        if answer.refused:
            await self.end()
            raise RewardRefused(answer.refused)
        self.asynchronous = answer.asynchronous

    @classmethod
    async def _spawn(cls, path: str) -> "Worker":
        """A new interpreter, so that nothing of ours is in it: no locks, no threads, no sockets."""
        service_end, worker_end = socket.socketpair()
        with ExitStack() as failed:
            failed.callback(service_end.close)  # which ends the process, if there is one
            with worker_end:
                number = worker_end.fileno()
                # -P: what lies in the folder must not stand in for what we import ourselves.
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-u", "-P", "-X", "faulthandler", "-m", MODULE,
                    str(number), str(os.getpid()), path,
                    stdin=subprocess.DEVNULL,
                    stdout=STDERR,
                    pass_fds=(number,),
                    start_new_session=True,
                )  # fmt: skip
            service_end.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=service_end)
            failed.pop_all()
        return cls(process, reader, writer)

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return not self._killed and self._process.returncode is None

    @property
    def pid(self) -> int:
        """The id of its process, and of the process group of all that it starts."""
        return self._process.pid

    async def ask(self, value: bytes, timeout_s: float) -> WorkerReply:
        """The worker's verdict on a conversation. A worker that does not answer in time is killed.

        Raises:
            RewardFailed: It says nothing, it dies, or a signal met its verdict.
        """
        self.verdicts += 1
        answer = await self._converse(value, timeout_s)
        if answer.met:
            await self.kill()
            raise RewardFailed(f"{answer.met} reached its worker over it", lost=True, again=True)
        return answer

    async def ask_many(self, values: Sequence[bytes], timeout_s: float) -> list[WorkerReply]:
        """The worker's verdicts on conversations, one after the other, sent all at once.

        Returns:
            As many as it gave before one took longer than `timeout_s`, killed it, or met a signal:
            that one is the next, and the worker is gone.
        """
        self.verdicts += len(values)
        replies: list[WorkerReply] = []
        exchange = asyncio.create_task(self._exchange_many(values, replies))
        try:
            answered = -1
            while not exchange.done() and not self._ended.done() and answered < len(replies):
                answered = len(replies)
                await asyncio.wait(
                    {exchange, self._ended},
                    timeout=timeout_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
        finally:
            whole = exchange.done() and not exchange.cancelled() and exchange.exception() is None
            if not whole:
                exchange.cancel()
            if not whole or len(replies) < len(values):
                await self.kill()
        return replies

    async def _exchange_many(self, values: Sequence[bytes], replies: list[WorkerReply]) -> None:
        self._writer.writelines(
            part for value in values for part in (len(value).to_bytes(HEAD), value)
        )
        # The worker answers while it still reads: its replies are short, and the line holds them.
        await self._writer.drain()
        while len(replies) < len(values):
            reply = await self._reply()
            if reply.met:
                return
            replies.append(reply)

    async def _converse(self, value: bytes | None, timeout_s: float) -> WorkerReply:
        exchange = asyncio.create_task(self._exchange(value))
        try:
            # Its end is waited for beside its answer: a process that it forked may hold the line.
            await asyncio.wait(
                {exchange, self._ended}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if exchange.done():
                return exchange.result()
            if not self._ended.done():
                raise RewardFailed(f"took longer than {timeout_s:g} s, and its worker was killed")
            raise self._lost()
        except (EOFError, OSError, msgspec.MsgspecError, ValueError) as error:
            await asyncio.wait({self._ended}, timeout=END_S)
            raise self._lost() from error
        finally:
            # Whoever is cancelled here asks no more, and a half-said answer helps nobody.
            if not exchange.done() or exchange.cancelled() or exchange.exception() is not None:
                exchange.cancel()
                await self.kill()

    async def _exchange(self, value: bytes | None) -> WorkerReply:
        if value is not None:
            self._writer.write(len(value).to_bytes(HEAD))
            self._writer.write(value)
            await self._writer.drain()
        return await self._reply()

    async def _reply(self) -> WorkerReply:
        size = int.from_bytes(await self._reader.readexactly(HEAD))
        if size > LARGEST:
            raise ValueError(f"an answer of {size} bytes")
        return msgspec.json.decode(await self._reader.readexactly(size), type=WorkerReply)

    def _lost(self) -> RewardFailed:
        # What killed it may have been left by an earlier conversation; in a new worker nothing is.
        signalled = -(self._process.returncode or 0) in SENT
        return RewardFailed(self._how(), lost=True, again=signalled or self.verdicts > 1)

    def _how(self) -> str:
        code = self._process.returncode
        if code is None:
            return "its worker broke off"
        if code < 0:
            return f"its worker died of {signal.Signals(-code).name}"
        return f"its worker ended with exit code {code}"

    async def end(self) -> None:
        """Let it end in good order, but soon."""
        if not self._killed:
            self._writer.close()
            await asyncio.wait({self._ended}, timeout=END_S)
        await self.kill()

    async def kill(self) -> None:
        """Kill it, and all that it has started."""
        if self._killed:
            return
        self._killed = True
        self._writer.transport.abort()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        await asyncio.wait({self._ended}, timeout=REAP_S)
