"""The log of an agent that uses tools, written by hand: what it said, what came back, and when."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from odradek.infra.app.introspection.episodes import PlacedEvent
from odradek.schemas import events
from odradek.schemas.arrays import pack_floats, pack_ids
from odradek.schemas.topics import EPISODES, TURNS
from tests.support.schemas.event_builders import TIMES


@dataclass
class ToolAgentEpisode:
    """One episode as it grows; its events stand on partition 0 of their topics.

    Attributes:
        number: Of the episode: its id, its offset on `rl.episodes.v1` and its start follow from it.
        now: Unix seconds.
    """

    number: int
    agent: str = "coder"
    attempt: int = 1
    retry: bool = False
    outcome: events.Outcome = events.Outcome.COMPLETED
    error: str = ""
    reward: float | None = 1.0
    start: float = 1_000_000.0
    log: list[PlacedEvent] = field(default_factory=list)
    now: float = 0.0
    _length: int = 0
    _prompt: int = 0
    _answers: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now = self.opened_at = self.start + 1000 * self.number
        self.episode_id, self.task_id = f"e{self.number}", f"t{self.number // 2}"
        self.add(
            events.EpisodeOpened(
                episode_id=self.episode_id, task_id=self.task_id, agent=self.agent,
                sample=self.number % 2, group_size=2, attempt=self.attempt, timeouts=TIMES,
            )
        )  # fmt: skip

    def add(self, event: Any) -> str:
        """Append an event; return its place."""
        at = f"{TURNS.name}/0/{1000 * self.number + len(self.log)}"
        self.log.append(PlacedEvent(at, self.now, event))
        return at

    def turn(
        self,
        text: str = "",
        calls: Sequence[tuple[str, Any]] = (),
        *,
        asked: str = "go on",
        tokens: int = 20,
        call_s: float = 1.0,
        **more: Any,
    ) -> str:
        """A model call that is given the results of tools, else `asked`; return its place."""
        n = len(self.log) - 1
        new = self._answers or [{"role": "user", "content": asked}]
        asked_for = [
            {
                "id": f"call-{n}-{place}",
                "type": "function",
                "function": {"name": name, "arguments": msgspec.json.encode(arguments).decode()},
            }
            for place, (name, arguments) in enumerate(calls)
        ]
        reply = {"role": "assistant", "content": text or None}
        if asked_for:
            reply["tool_calls"] = asked_for
        self._prompt += tokens
        turn = events.Turn(
            episode_id=self.episode_id, turn_id=f"{self.episode_id}-{n}", writer="w", seq=n,
            request=events.Request(
                base=f"{self.episode_id}-{n - 1}" if n else "", prefix_len=self._length,
                messages=tuple(map(events.raw, new)), digest=f"{n}",
            ),
            reply=events.Reply(message=events.raw(reply), finish_reason="stop"),
            usage=events.Usage(prompt_tokens=self._prompt, completion_tokens=5),
            timing=events.Timing(started_at=self.now, ttft_ms=100.0, total_ms=call_s * 1000),
            completion=events.Completion(ids=pack_ids([7] * 5), logprobs=pack_floats([-0.5] * 5)),
            versions=(events.VersionSpan(1, 0, 5),),
            **more,
        )  # fmt: skip
        self._length += len(new) + 1
        self._answers = []
        at = self.add(turn)
        self.now += call_s
        return at

    def results(self, *texts: str, wait_s: float = 0.1) -> None:
        """What the last turn's calls came to; the next turn is given it."""
        turn = self.log[-1].event
        calls = events.parsed(turn.reply.message)["tool_calls"]
        self._answers = [
            {"role": "tool", "tool_call_id": call["id"], "content": text}
            for call, text in zip(calls, texts, strict=True)
        ]
        self.now += wait_s

    def end(self) -> tuple[events.EpisodeHead, str, list[PlacedEvent]]:
        """The record of the episode, its place and its events."""
        n = len(self.log) - 1
        self.add(
            events.EpisodeSealed(
                episode_id=self.episode_id, writer="w", n_turns=n, outcome=self.outcome
            )
        )
        head = events.EpisodeHead(
            episode_id=self.episode_id, task_id=self.task_id, agent=self.agent,
            sample=self.number % 2, group_size=2, attempt=self.attempt, retry=self.retry,
            outcome=self.outcome, error=self.error, reward=self.reward,
            components={} if self.reward is None else {"game": self.reward},
            weights={"game": 1.0}, n_turns=n, opened_at=self.opened_at, closed_at=self.now,
        )  # fmt: skip
        return head, self.at, self.log

    @property
    def at(self) -> str:
        """The place of its record."""
        return f"{EPISODES.name}/0/{self.number}"
