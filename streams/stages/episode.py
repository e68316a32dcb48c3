"""One open episode: its events so far, and the Conversation that they make at its end."""

import math
from typing import Final

import msgspec
from msgspec import Struct

from odradek.schemas.events import (
    Conversation,
    ConversationTurn,
    EpisodeAborted,
    EpisodeOpened,
    EpisodeSealed,
    Outcome,
    Reward,
    Turn,
)
from odradek.schemas.topics import CONVERSATIONS, TURNS
from odradek.streams.stages.continuity import Continuity

DEFAULT_REWARDS: Final = {"reward": 1.0}
"""Where a task names no rewards: any reward called "reward"."""

FAILED: Final = frozenset({Outcome.FAILED, Outcome.TIMED_OUT})
"""By the agent: these count with the failure reward and wait for no other."""

SIDE_CALL: Final = "side_call"
"""Why a turn beside the episode's task is left out."""

LONGEST_S: Final = TURNS.retention_ms / 1000 / 4
"""No deadline of a task is longer, so retention never overtakes the oldest open episode."""


class EpisodeEnd(Struct, frozen=True):
    """How and when an episode ended."""

    outcome: Outcome
    at: float
    error: str = ""
    retry: bool = False


class OpenEpisode:
    """An episode between EpisodeOpened and the Episode event that holds it."""

    def __init__(self, opened: EpisodeOpened, offset: int, at: float, trace: str | None) -> None:
        self.opened = opened
        self.offset = offset
        """Of EpisodeOpened: a new owner must read from here."""
        self.repeat = -1
        """Offset of the last repeat of EpisodeOpened that could be taken for an opening."""
        self.at = at
        self.trace = trace
        self.turns: dict[str, Turn] = {}
        self.rewards: dict[str, Reward] = {}
        self.family: list[OpenEpisode] = []
        """Its children, and theirs, in the order of their opening."""
        self._root: OpenEpisode | None = None  # itself would hold it for ever
        self.followed = False
        """Of a child: whether another attempt at the same message has begun."""
        self.end: EpisodeEnd | None = None
        self._seats: dict[tuple[str, int], str] = {}
        self._order: list[Turn] | None = None

    @property
    def root(self) -> "OpenEpisode":
        """The episode that is the sample's: of a child the topmost parent."""
        return self._root or self

    @property
    def wanted_rewards(self) -> dict[str, float]:
        """Components and weights that the episode waits for."""
        if self.opened.parent and not self.opened.own_weight:
            return {}
        return self.opened.rewards or DEFAULT_REWARDS

    @property
    def deadline(self) -> float:
        """When a Tick closes the episode as it is."""
        times = self.opened.timeouts
        if self.end is not None:
            if self.settled:
                return math.inf  # what it waits for are its children, which have their own
            if self.end.retry:
                return self.end.at + min(times.attempt_s + times.seal_s, LONGEST_S)
            return self.end.at + min(times.reward_s, LONGEST_S)
        return self.at + min(times.attempt_s + times.seal_s, LONGEST_S)

    def add(self, turn: Turn) -> str:
        """Take a turn. Returns "" if it is new, else `duplicate` or `conflicting_seq`."""
        if turn.turn_id in self.turns:
            return "duplicate"
        if self._seats.setdefault((turn.writer, turn.seq), turn.turn_id) != turn.turn_id:
            return "conflicting_seq"
        self.turns[turn.turn_id] = turn
        return ""

    def judge(self, reward: Reward) -> str:
        """Take a reward. Returns "" if it is new, else `duplicate` or `late_reward`."""
        first = self.rewards.setdefault(reward.component, reward)
        if first is reward:
            return ""
        return "duplicate" if first == reward else "late_reward"

    @property
    def rewarded(self) -> bool:
        """Whether every wanted component is there."""
        return self.rewards.keys() >= self.wanted_rewards.keys()

    @property
    def settled(self) -> bool:
        """Whether nothing more is waited for, but for its children."""
        if self.end is None:
            return False
        if self.end.retry:
            return self.followed or self.root is self
        return self.end.outcome is not Outcome.COMPLETED or self.rewarded

    @property
    def complete(self) -> bool:
        """Whether it and its children are settled.

        Where it counts for nothing, its children may be as they are.
        """
        if self.end is None or not self.end.outcome.counts:
            return self.end is not None
        return self.settled and (not self.family or all(child.settled for child in self.family))

    def takes(self, message_id: str) -> bool:
        """Whether a child that begins now, for a message, is one of its own.

        One that begins behind its end is nobody's, unless it is a further attempt at a message:
        the attempt before it promised it.
        """
        if self.end is None and self.root.end is None:
            return True
        return any(
            before.opened.message_id == message_id and before.end is not None and before.end.retry
            for before in self.root.family
        )

    def adopt(self, child: "OpenEpisode", message_id: str) -> None:
        """Take the episode of an agent that this one's agent asked by a message."""
        for before in self.root.family:
            if before.opened.message_id == message_id:
                before.followed = True
        for member in (child, *child.family):
            member._root = self.root  # noqa: SLF001 - one of our own
            self.root.family.append(member)
        child.family = []

    def part(self) -> None:
        """Let its children go: they and it hold each other."""
        for member in self.family:
            member._root = None  # noqa: SLF001 - one of our own

    def seal(self, sealed: EpisodeSealed, at: float) -> EpisodeEnd:
        """End the episode as its host says, unless turns are missing."""
        gap = self._gap(sealed)
        if gap and (sealed.outcome is Outcome.COMPLETED or sealed.outcome in FAILED):
            self.end = EpisodeEnd(Outcome.INCOMPLETE, at, gap)
        else:
            self.end = EpisodeEnd(sealed.outcome, at, sealed.error)
        return self.end

    def abort(self, aborted: EpisodeAborted, at: float) -> EpisodeEnd:
        """End the episode as given up."""
        self.end = EpisodeEnd(aborted.reason, at, aborted.error, aborted.retry)
        return self.end

    def expire(self, at: float) -> EpisodeEnd:
        """End the episode because its deadline has passed."""
        if self.end is not None and self.end.retry:
            self.end = EpisodeEnd(self.end.outcome, at, "its next attempt never began")
        elif self.end is not None:
            missing = ", ".join(sorted(self.wanted_rewards.keys() - self.rewards.keys()))
            self.end = EpisodeEnd(Outcome.UNREWARDED, at, f"no reward came for {missing}")
        elif self.opened.unattributed:
            self.end = EpisodeEnd(Outcome.INCOMPLETE, at, "no host opened or sealed this episode")
        else:
            error = "neither EpisodeSealed nor EpisodeAborted came before the attempt's deadline"
            self.end = EpisodeEnd(Outcome.HOST_LOST, at, error, retry=not self.opened.last_attempt)
        return self.end

    def _gap(self, sealed: EpisodeSealed) -> str:
        """Which turn is missing, "" if none.

        The sealing writer says how many there are. Of another writer (one that died) only gaps
        inside its run count: the tail that it lost was never released to the agent.
        """
        highest: dict[str, int] = {}
        counted: dict[str, int] = {}
        for writer, seq in self._seats:
            highest[writer] = max(highest.get(writer, 0), seq + 1)
            counted[writer] = counted.get(writer, 0) + 1
        if sealed.writer or sealed.n_turns:
            highest[sealed.writer] = max(highest.get(sealed.writer, 0), sealed.n_turns)
            if highest[sealed.writer] > sealed.n_turns:
                return f"{sealed.writer} sealed {sealed.n_turns} turns but wrote more"
        for writer, n in sorted(highest.items()):
            if counted.get(writer, 0) < n:
                return f"{counted.get(writer, 0)} of {n} turns of {writer} are in the log"
        if not sealed.children:
            return ""
        present = {child.opened.episode_id for child in self.root.family}
        absent = [child for child in sealed.children if child not in present]
        return f"its child {absent[0]} is not in the log" if absent else ""

    def ordered(self) -> list[Turn]:
        """The turns in the order in which they were sent, whatever order they arrived in.

        A writer's turns by seq. Several writers (an episode that moves between replicas) are merged
        by the times at which their calls ended: a wrong clock can cost breaks, never a token.
        """
        if self._order is not None and len(self._order) == len(self.turns):
            return self._order
        latest: dict[str, float] = {}
        placed: list[tuple[float, str, int, Turn]] = []
        for turn in sorted(self.turns.values(), key=lambda turn: turn.seq):
            ended = turn.timing.started_at + turn.timing.total_ms / 1000
            # Never before what the same writer sent before, whatever its clock did.
            latest[turn.writer] = max(latest.get(turn.writer, ended), ended)
            placed.append((latest[turn.writer], turn.writer, turn.seq, turn))
        self._order = [turn for *_, turn in sorted(placed, key=lambda place: place[:3])]
        return self._order

    def superseded(self, turns: list[Turn]) -> set[str]:
        """Turns that were acked but never released: their retry stands for them.

        The proxy names such a turn where it knows it. Where the proxy died between ack and release,
        the retry reaches another writer with the same digest. Each turn of the dead writer records
        how many equal calls it had accepted by then. Its turns and the retries together may be
        more than these calls: as many of its turns were never released. A call that it had not
        accepted yet when it wrote its last turn looks like a retry. Then one turn too many is left
        out, which is better than to train on a turn that no client saw.
        """
        superseded = {turn.supersedes for turn in turns if turn.supersedes}
        acked: dict[tuple[str, str, int], list[Turn]] = {}
        again: dict[tuple[str, int], list[tuple[int, str]]] = {}
        for at, turn in enumerate(turns):
            digest, choice = turn.request.digest, turn.choice
            if turn.error or not digest or turn.turn_id in superseded:
                continue
            acked.setdefault((turn.writer, digest, choice), []).append(turn)
            if turn.retry_count:
                again.setdefault((digest, choice), []).append((at, turn.writer))
        places = {turn.turn_id: at for at, turn in enumerate(turns)}
        for (writer, digest, choice), own in acked.items():
            first = places[own[0].turn_id]
            retried = sum(
                at > first and other != writer for at, other in again.get((digest, choice), ())
            )
            unseen = len(own) + retried - max(turn.equal_calls for turn in own) if retried else 0
            # Those that the client is known to have left come first, then the newest.
            own.sort(key=lambda turn: (turn.disconnected, places[turn.turn_id]), reverse=True)
            superseded.update(turn.turn_id for turn in own[: max(0, unseen)])
        return superseded & self.turns.keys()

    def conversation(self) -> Conversation:
        """The words of a sealed episode."""
        opened, end = self.opened, self.ended
        turns = self.ordered()
        unseen = self.superseded(turns) | {turn.turn_id for turn in turns if turn.disconnected}
        turns_in_words = tuple(_in_words(turn, unseen=turn.turn_id in unseen) for turn in turns)
        size = sum(_size(turn) for turn in turns) + 512 * len(turns)
        fits = size < CONVERSATIONS.max_bytes
        return Conversation(
            episode_id=opened.episode_id,
            task_id=opened.task_id,
            agent=opened.agent,
            sample=opened.sample,
            attempt=opened.attempt,
            purpose=opened.purpose,
            item=opened.item,
            input=opened.input,
            outcome=end.outcome,
            error=end.error if fits else f"{size} bytes of messages are too large for one record",
            reward_components=tuple(self.wanted_rewards),
            turns=turns_in_words if fits else (),
            parent=opened.parent,
        )

    def continuity(self, leave_out: str = "") -> Continuity:
        """Its turns as sequences of tokens.

        Args:
            leave_out: Why none of them is to be trained on; "" to decide by each turn.
        """
        continuity = Continuity()
        turns = self.ordered()
        superseded = self.superseded(turns)
        # Those of a call beside the task say nothing of the task's.
        tasks = (turn for turn in turns if turn.untrainable != SIDE_CALL)
        has_tools = any(turn.request.tools_digest for turn in tasks)
        for turn in turns:
            aside = SIDE_CALL if turn.without_tools and has_tools and not turn.error else ""
            aside = "superseded" if turn.turn_id in superseded else aside
            continuity.add(turn, leave_out or aside)
        return continuity

    def reward(self, outcome: Outcome) -> float | None:
        """What it is worth by its own rewards if it ends like this; None where nothing says so."""
        if outcome in FAILED:
            return self.opened.failure_reward
        if outcome is not Outcome.COMPLETED or not self.rewarded:
            return None
        total = sum(
            weight * self.rewards[name].value for name, weight in self.wanted_rewards.items()
        )
        return total if math.isfinite(total) else None

    @property
    def ended(self) -> EpisodeEnd:
        """How it ended."""
        return self.end or EpisodeEnd(Outcome.INCOMPLETE, self.at, "not ended")


def _in_words(turn: Turn, *, unseen: bool) -> ConversationTurn:
    """A turn in words. Messages stay raw JSON: they are written, not read, here."""
    request, message = turn.request, turn.reply.message
    return ConversationTurn(
        turn_id=turn.turn_id,
        base=request.base,
        prefix_len=request.prefix_len,
        messages=list(request.messages),
        tools=request.tools,
        reply=None if unseen or bytes(message) == b"null" else message,
        finish_reason=turn.reply.finish_reason,
        error=turn.error or ("the agent never saw this reply" if unseen else ""),
    )


def _size(turn: Turn) -> int:
    """Bytes of a turn's words."""
    size = len(memoryview(turn.reply.message))
    for message in turn.request.messages:
        size += len(memoryview(message))
    return size


def read(conversation: Conversation) -> Conversation:
    """A conversation with its messages parsed, as its readers get it from the topic."""
    return msgspec.json.decode(msgspec.json.encode(conversation), type=Conversation)
