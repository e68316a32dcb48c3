"""A run of the trainer on a log, without its optimizer: rows, positions and entries are real."""

import random
from dataclasses import dataclass, field

from odradek.infra.bus import KafkaAppender, ensure_topics
from odradek.schemas import codec
from odradek.schemas.arrays import pack_floats, pack_ids
from odradek.schemas.events import Batch, Episode, Pointer, Sequence, Span, Step, VersionSpan
from odradek.schemas.topics import BATCHES, EPISODES, STEPS
from odradek.trainer.commit.protocol import OF_THE_PLACE
from odradek.trainer.feed.cursor import Cursor, Position
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rows import EpisodeGroup, Row
from odradek.trainer.settings import TrainerSettings


def episode_of(seed, task, sample, version, *, tokens=12):
    """An episode of one or two sequences, with replies of two versions and a greedy title."""
    rng = random.Random(f"{seed}/{task}/{sample}")
    sequences = []
    for _ in range(1 + (rng.random() < 0.3)):
        n = tokens + rng.randrange(tokens)
        cut = n // 2
        sequences.append(
            Sequence(
                ids=pack_ids([rng.randrange(50) for _ in range(n)]),
                spans=(
                    Span(3, cut, 1.0, "", False),
                    Span(cut + 2, n, rng.choice([1.0, 1.0, 0.7, 0.0]), "", False),
                ),
                logprobs=pack_floats([-rng.random() * 3 for _ in range(n - 5)]),
                versions=(VersionSpan(max(1, version - 1), 3, cut), VersionSpan(version, cut, n)),
                turn_ids=(f"w-{task}-{sample}-0", f"w-{task}-{sample}-1"),
            )
        )
    reward = float(rng.random() < 0.5)
    return Episode(
        episode_id=f"e-{task}-{sample}", task_id=task, agent="hilo", sample=sample, group_size=4,
        item=f"item {rng.randrange(9)}", reward=reward, components={"right": reward}, n_turns=2,
        opened_at=1000.0, closed_at=1001.0, sequences=tuple(sequences),
    )  # fmt: skip


@dataclass
class TrainedLog:
    """Groups on a log, and what a trainer did with them.

    Attributes:
        steps: By number, the rows of the step that counts, refused ones left out.
    """

    bus: object
    settings: TrainerSettings
    offset_of: dict[int, EpisodeGroup] = field(default_factory=dict)
    steps: dict[int, list[Row]] = field(default_factory=dict)
    entries: list[Step] = field(default_factory=list)
    positions: dict[int, Position] = field(default_factory=lambda: {0: Position()})
    version: int = 0
    incarnation: int = 0

    async def publish(self, n, *, seed=0, topic=BATCHES.name, first=0):
        """Groups of four onto the log."""
        await ensure_topics(self.bus)
        appender = await KafkaAppender.connect(self.bus)
        for number in range(first, first + n):
            task = f"t{number}"
            pointers, pairs = [], []
            for sample in range(4):
                episode = episode_of(seed, task, sample, 1 + number // 4)
                at = await append(appender, EPISODES.name, task, episode)
                pointers.append(
                    Pointer(
                        episode_id=episode.episode_id, sample=sample, topic=EPISODES.name,
                        partition=at.partition, offset=at.offset, reward=episode.reward,
                        digest=codec.digest(codec.encode(episode)),
                    )
                )  # fmt: skip
                pairs.append((pointers[-1], episode))
            batch = Batch(
                task_id=task, agent="hilo", item=pairs[0][1].item, group_size=4,
                episodes=tuple(pointers),
            )  # fmt: skip
            at = await append(appender, topic, task, batch)
            self.offset_of[at.offset] = EpisodeGroup(at.offset, batch, tuple(pairs))
        await appender.aclose()

    async def train(self, n, *, since=None):
        """A start of the trainer that makes `n` steps from the one at `since` on."""
        since = max(self.positions) if since is None else since
        self.incarnation += 1
        self.version += 1
        start = self.positions[since]
        lineage = Lineage.from_ledger(self.entries)
        lineage.cut_off(since)
        lineage.publish(self.version, since)
        cursor = Cursor(self.settings.rules, lineage, start)
        settings = self.settings.model_dump(
            mode="json", exclude_defaults=True, exclude=OF_THE_PLACE - {"model"}
        )
        entries = [
            self.entry(since, position=start.offset, row=start.row, optimized=False,
                       settings=settings)
        ]  # fmt: skip
        rows: list[Row] = []
        for offset in sorted(offset for offset in self.offset_of if offset >= start.offset):
            rows += cursor.feed(self.offset_of[offset])
            while len(rows) >= self.settings.rows_per_step and n:
                n -= 1
                since += 1
                passed = cursor.finish_step()
                self.steps[since] = rows[: self.settings.rows_per_step]
                rows = rows[self.settings.rows_per_step :]
                self.positions[since] = cursor.position
                self.version += 1
                lineage.publish(self.version, since)
                entries += [
                    self.entry(since, position=passed.position, row=passed.row, optimized=False),
                    self.entry(since, position=passed.position, row=passed.row, used=passed.used,
                               refused=passed.refused),
                ]  # fmt: skip
        self.entries += entries
        appender = await KafkaAppender.connect(self.bus)
        for entry in entries:
            await append(appender, STEPS.name, entry.run, entry)
        await appender.aclose()

    def entry(self, step, **more):
        """An entry of the ledger."""
        return Step(
            run=self.settings.run, incarnation=self.incarnation, step=step, version=self.version,
            policy="policy", **more,
        )  # fmt: skip


async def append(appender, topic, key, event):
    """Append an event; return its address."""
    return await appender.append(
        topic, key=key, value=codec.encode(event),
        headers=codec.headers(event, source="/test", subject=key, event_id="e"),
    )  # fmt: skip
