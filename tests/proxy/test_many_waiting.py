"""Many agents that wait at once (`odradek bench waiting` measures 8,000)."""

import asyncio
import subprocess
import sys

import pytest

from odradek.infra.bus import MemoryAppender
from odradek.proxy.calls import handler

pytestmark = pytest.mark.processes

N = 200
PROGRAM = """
import resource
from odradek.proxy.descriptors import raise_limit

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
now = raise_limit()
assert now == resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 256, now
assert raise_limit() == now
"""


class Counting(MemoryAppender):
    """A log that notes how many appends are under way at most."""

    now = most = 0

    async def append(self, topic, **record):
        """See `Appender`."""
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        return await super().append(topic, **record)


def test_the_limit_of_descriptors_is_raised_to_the_hard_one():
    """In a process of its own: a test must not change this one's."""
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=30)


@pytest.mark.parametrize("stream", [False, True])
async def test_replies_that_come_together_go_into_the_log_by_and_by(
    make, engine, stream, monkeypatch
):
    """None is refused, each has its turn, and no more than a few are under way at once."""
    monkeypatch.setattr(handler, "UNDER_WAY", 8)
    log = Counting()
    engine.gate.clear()
    async with make(log) as bench:
        body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": "x"}]}
        asking = [
            asyncio.create_task(
                bench.post("/v1/chat/completions", body, token=bench.token(f"e{number}"))
            )
            for number in range(N)
        ]
        await bench.until(lambda: len(engine.calls) == N, timeout_s=30)
        engine.gate.set()
        statuses = [status for status, _, _ in await asyncio.gather(*asking)]
        assert [200] * N == statuses
        assert {f"e{number}" for number in range(N)} == {record.key for record in log.records}
        assert 1 < log.most <= 8
