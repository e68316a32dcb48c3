"""Re-scores history again and again until it is told to end, as a timer would start `odradek rescore`.

`python -m tests.chaos.processes.rescorer`
"""

import asyncio
import signal
from typing import Final

from odradek.infra.bus import BusSettings
from odradek.infra.errors import BusError
from odradek.schemas.events import Conversation
from odradek.streams.judges.named import NamedJudge
from odradek.streams.judges.rescore import RescoreFilter, rescore
from tests.chaos.verification.oracle import LATE, rescored

NAME: Final = "chaos"
JUDGE: Final = "tests.chaos.processes.rescorer:judge"
PAUSE_S: Final = 0.2


async def judge(conversation: Conversation) -> float:
    """What the oracle says of an episode, whoever asks and however often."""
    return rescored(conversation.episode_id)


async def run() -> None:
    """Judge what is new until SIGTERM; what the bus cannot do now is tried again."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    named = NamedJudge(JUDGE, 1)
    await named.start()
    print("ready: rescorer", flush=True)
    wanted = RescoreFilter(LATE, everything=True)
    try:
        while not over.is_set():
            try:
                await rescore(BusSettings(), named, wanted, name=NAME, concurrency=1)
            except BusError as error:
                print(error, flush=True)
            try:
                await asyncio.wait_for(over.wait(), PAUSE_S)
            except TimeoutError:
                continue
    finally:
        await named.aclose()


if __name__ == "__main__":
    asyncio.run(run())
