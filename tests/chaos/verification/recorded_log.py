"""A small run's log, made by the folds in memory: what the verifier's own tests doctor."""

import json
import struct
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from odradek.infra.bus import MemoryAppender
from odradek.schemas import codec, events
from odradek.schemas.events import raw
from odradek.schemas.topics import BATCHES, DLQ, EPISODES, TURNS, Topic
from odradek.streams.drivers.memory import MemoryDriver
from odradek.streams.stages.assembler import ASSEMBLE
from odradek.streams.stages.grouper import GROUP
from tests.chaos.verification import oracle
from tests.chaos.verification.log import BatchEvent, EpisodesEvent, Log, TurnsEvent
from tests.chaos.verification.verdict import Given

SEED, TASKS, SIZE, ROWS = 3, 12, 4, 8
WRITER = "w"


class Recording:
    """Plays every task by the oracle; `lose` names samples whose every attempt loses its host.

    Args:
        folder: Where the journal goes.
        lose: (task, sample) -> how many attempts are lost.
        most: Attempts at a sample.
        late: Whether each lost attempt has a turn that comes too late.
    """

    def __init__(
        self,
        folder: Path,
        lose: dict[tuple[str, int], int] | None = None,
        most: int = 3,
        *,
        late: bool = True,
    ) -> None:
        self.seen = folder / "seen.jsonl"
        self.tasks = {f"s{SEED}-{number:05d}": SIZE for number in range(TASKS)}
        self._lose, self._most, self._late = lose or {}, most, late
        self._told: list[bytes] = []
        self._log = MemoryAppender(partitions=1)

    async def make(self) -> tuple[Log, Given]:
        """The log, and what it is held against: clean together."""
        for task, size in self.tasks.items():
            await self._put(
                EPISODES, task, events.GroupOpened(task_id=task, group_size=size, group_s=900)
            )
            for sample in range(size):
                await self._sample(task, sample)
        self.seen.write_bytes(b"".join(self._told))
        drivers = [MemoryDriver(self._log, stage) for stage in (ASSEMBLE, GROUP)]
        for driver in drivers:
            await driver.step()
        log = Log(
            [(record, TurnsEvent.decode(record.value)) for record in self._log.on(TURNS.name)],
            [
                (record, EpisodesEvent.decode(record.value))
                for record in self._log.on(EPISODES.name)
            ],
            [(record, BatchEvent.decode(record.value)) for record in self._log.on(BATCHES.name)],
            letters=self._log.on(DLQ.name),
            marks={
                name: {partition: mark for partition, (mark, _) in driver.committed.items()}
                for name, driver in zip(("assemble", "group"), drivers, strict=True)
            },
        )
        log.steps = [(None, step) for step in _steps(log)]
        lost = sum(self._lose.values())
        given = Given(SEED, self.tasks, self.seen, ROWS, self._most, lost_attempts=lost)
        return log, given

    async def _sample(self, task: str, sample: int) -> None:
        for attempt in range(1, self._most + 1):
            play = oracle.play_of(SEED, task, sample, attempt)
            lost = attempt <= self._lose.get((task, sample), 0)
            name, final = f"{task}.{sample}.{attempt}", attempt == self._most
            await self._put(
                TURNS,
                name,
                events.EpisodeOpened(
                    episode_id=name, task_id=task, agent=oracle.AGENT, sample=sample,
                    group_size=SIZE, attempt=attempt, last_attempt=final, rewards=oracle.REWARDS,
                    failure_reward=oracle.FAILURE,
                ),
            )  # fmt: skip
            turns = [] if lost else _turns(name, play)
            for turn, call in turns:
                await self._put(TURNS, name, turn)
                self._told.append(json.dumps([name, call.key, 0]).encode() + b"\n")
            if lost or play.ending == "upstream_failed":
                why = events.Outcome.HOST_LOST if lost else events.Outcome.UPSTREAM_FAILED
                await self._put(
                    TURNS, name, events.EpisodeAborted(episode_id=name, reason=why, retry=not final)
                )
                if lost and self._late:
                    await self._put(TURNS, name, _turns(name, play)[0][0])
                continue
            for component, value in (("score", play.score), ("bonus", play.bonus)):
                if play.ending == "completed":
                    reward = events.Reward(
                        episode_id=name, component=component, value=value, source="/test"
                    )
                    await self._put(TURNS, name, reward)
            sealed = events.EpisodeSealed(
                episode_id=name,
                writer=WRITER,
                n_turns=len(turns),
                outcome=events.Outcome(play.ending),
            )
            await self._put(TURNS, name, sealed)
            return

    async def _put(self, topic: Topic, key: str, event: events.Event) -> None:
        await self._log.append(topic.name, key=key, value=codec.encode(event))


def _turns(name: str, play: oracle.Play) -> list[tuple[events.Turn, oracle.Call]]:
    found = []
    for number, step in enumerate(play.steps):
        for call in step:
            history = [*oracle.history(play, number), {"role": "user", "content": call.key}]
            ids, logprobs = oracle.completion(call.key), oracle.logprobs(call.key)
            turn = events.Turn(
                episode_id=name,
                turn_id=f"{name}/{len(found)}",
                writer=WRITER,
                seq=len(found),
                request=events.Request(messages=tuple(map(raw, history))),
                reply=events.Reply(
                    message=raw({"role": "assistant", "content": oracle.said(call.key)}),
                    finish_reason="stop",
                ),
                prompt=events.Prompt(ids=_packed("I", oracle.prompt(history))),
                completion=events.Completion(
                    ids=_packed("I", ids), logprobs=_packed("f", logprobs)
                ),
            )
            found.append((turn, call))
    return found


def _packed(kind: str, values: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(values)}{kind}", *values)


def _steps(log: Log) -> list[events.Step]:
    """A trainer that uses all rows in their order, a step as soon as it has enough."""
    episodes = {
        event.episode_id: event for _, event in log.episodes if isinstance(event, events.Episode)
    }
    rows = [
        record.offset
        for record, batch in log.batches
        if len({one.reward for one in batch.episodes}) > 1
        for one in batch.episodes
        for _ in episodes[one.episode_id].sequences
    ]
    found = []
    for number, first in enumerate(range(0, len(rows) - ROWS + 1, ROWS), 1):
        used = rows[first : first + ROWS]
        counted = tuple(
            events.BatchUse(offset=offset, rows=used.count(offset)) for offset in sorted(set(used))
        )
        weights = sha256(str(number).encode()).hexdigest()
        found.append(
            events.Step(
                run="r", incarnation=1, step=number, position=used[-1], version=number,
                used=counted, weights=weights,
            )
        )  # fmt: skip
    return found
