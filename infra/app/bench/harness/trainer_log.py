"""A log for trainers under measurement: a model, batches with their episodes, a trainer on them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from odradek.infra.app.bench.harness.processes import MeasuredProcess, started
from odradek.infra.app.bench.harness.site import kafka
from odradek.infra.bus import BusSettings, KafkaAppender, ensure_topics
from odradek.infra.runtime.loop_thread import LoopThread
from odradek.schemas import codec
from odradek.schemas.arrays import pack_floats, pack_ids
from odradek.schemas.events import Batch, Episode, Event, Pointer, Sequence, Span, VersionSpan
from odradek.schemas.topics import BATCHES, EPISODES, Topic

GROUP: Final = 8
"""Episodes of a batch, each of which is one row."""
FIRST_ID, LAST_ID = 7, 100
"""The tiny model's ids of characters."""
AT_EASE: Final = "1000000"
"""For bounds that are not to matter."""


@dataclass(frozen=True)
class EpisodeSize:
    """Token ids of an episode: a prompt that its group shares, and one reply."""

    prompt: int = 64
    sampled: int = 16


@contextmanager
def publisher(bus: BusSettings, size: EpisodeSize) -> Iterator[Callable[[int], None]]:
    """`publish(number)` writes a batch with its episodes, as assembler and grouper would."""
    with closing(LoopThread()) as thread:
        thread.call(ensure_topics(bus))
        appender: KafkaAppender = thread.call(KafkaAppender.connect(bus))
        try:
            yield lambda number: thread.call(_publish(appender, number, size))
        finally:
            thread.call(appender.aclose())


async def _publish(appender: KafkaAppender, number: int, size: EpisodeSize) -> None:
    task = f"t{number}"
    random = np.random.default_rng(number)
    prompt = random.integers(FIRST_ID, LAST_ID, size.prompt)
    pointers = []
    for sample in range(GROUP):
        reply = random.integers(FIRST_ID, LAST_ID, size.sampled)
        episode = _episode(task, sample, np.append(prompt, reply), size)
        at = await _append(appender, EPISODES, task, episode)
        pointers.append(
            Pointer(
                topic=EPISODES.name,
                partition=at.partition,
                offset=at.offset,
                digest=codec.digest(codec.encode(episode)),
                episode_id=episode.episode_id,
                sample=sample,
                reward=float(sample % 2),
            )
        )
    batch = Batch(task_id=task, group_size=GROUP, episodes=tuple(pointers))
    await _append(appender, BATCHES, task, batch)


def _episode(task: str, sample: int, ids: "np.ndarray[Any, Any]", size: EpisodeSize) -> Episode:
    sequence = Sequence(
        ids=pack_ids(ids),
        spans=(Span(size.prompt, len(ids)),),
        logprobs=pack_floats([-4.6] * size.sampled),
        versions=(VersionSpan(1, size.prompt, len(ids)),),
    )
    return Episode(
        episode_id=f"{task}-{sample}",
        task_id=task,
        agent="bench",
        sample=sample,
        group_size=GROUP,
        reward=float(sample % 2),
        sequences=(sequence,),
    )


async def _append(appender: KafkaAppender, topic: Topic, key: str, event: Event) -> Any:
    return await appender.append(
        topic.name,
        key=key,
        value=codec.encode(event),
        headers=codec.headers(event, source="/bench", subject=key, event_id=f"{key}-bench"),
    )


def trainer(
    bus: BusSettings, folder: Path, settings: Mapping[str, str]
) -> AbstractContextManager[MeasuredProcess]:
    """A trainer as users start it, on the model in `folder`; ended when the block ends.

    Args:
        bus: Where the batches are.
        folder: With `model`; its output goes there.
        settings: Of the trainer, by the last words of their variables.
    """
    bounds = {"MODEL": str(folder / "model"), "MAX_STALENESS": AT_EASE, "MAX_STEPS": AT_EASE}
    env = {f"ODRADEK_TRAINER_{name}": value for name, value in {**bounds, **settings}.items()}
    return started("odradek.infra.app.cli", "train", folder=folder, core=None, env=kafka(bus) | env)
