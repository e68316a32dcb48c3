"""How each process of ours begins and ends."""

import asyncio
import logging
import os
import signal

import pytest

from odradek.infra.runtime import process


class Waits:
    """A service that is ready at once, and ends when it is asked to."""

    def __init__(self):
        self.ready, self.over = asyncio.Event(), asyncio.Event()

    async def run(self):
        self.ready.set()
        await self.over.wait()

    def stop(self):
        self.over.set()


class Fails(Waits):
    async def run(self):
        raise ValueError("no")


@pytest.mark.parametrize("number", process.ENDS)
async def test_a_service_says_that_it_is_ready_and_ends_by_a_signal(number, caplog):
    """By the line that the supervisor waits for; afterwards signals do what they did."""
    caplog.set_level(logging.INFO, "odradek")
    service = Waits()
    serving = asyncio.create_task(process.serve(service, "waits"))
    while not caplog.messages:
        await asyncio.sleep(0)
    os.kill(os.getpid(), number)
    await asyncio.wait_for(serving, 60)
    assert ["ready: waits"] == caplog.messages
    assert service.over.is_set()
    assert not asyncio.get_running_loop().remove_signal_handler(number)


async def test_what_ends_a_service_is_raised_and_it_is_never_called_ready(caplog):
    """An error at start is the last word."""
    caplog.set_level(logging.INFO, "odradek")
    with pytest.raises(ValueError, match="no"):
        await process.serve(Fails(), "fails")
    assert [] == caplog.messages


def test_without_a_loop_a_signal_calls_at_once():
    """As in the trainer, whose main thread runs no event loop."""
    heard = []
    before = {number: signal.getsignal(number) for number in process.ENDS}
    try:
        process.on_signals(lambda: heard.append(1))
        for number in process.ENDS:
            os.kill(os.getpid(), number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert [1, 1] == heard
