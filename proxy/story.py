"""What the proxy remembers of an episode, and for how long."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Final

import msgspec

from odradek.proxy.deltas import Branches
from odradek.proxy.dialects.memory import Memory
from odradek.proxy.errors import EpisodeSealed, TooManyCalls
from odradek.schemas.codec import Headers
from odradek.schemas.events import Outcome, Turn

if TYPE_CHECKING:
    from odradek.proxy.call import Call
    from odradek.proxy.retries import Result

MAX_TOOLS: Final = 32
MAX_DIGESTS: Final = 4096
NOTHING: Final = Memory()


class Stage(Enum):
    """How far an episode is."""

    OPEN = "open"
    SEALING = "sealing"
    SEALED = "sealed"


NEXT: Final = {Stage.OPEN: Stage.SEALING, Stage.SEALING: Stage.SEALED}
"""The legal transitions; there is no way back."""


class Pending(msgspec.Struct, frozen=True):
    """A turn that was sent, and of which we do not know whether the log has it."""

    turn: Turn
    value: bytes
    headers: Headers


class Sealing(msgspec.Struct, frozen=True):
    """What a seal wrote."""

    writer: str
    n_turns: int
    outcome: Outcome


class Story:
    """An episode as this writer knows it."""

    def __init__(self, episode_id: str, now: float) -> None:
        self.episode_id = episode_id
        self.stage = Stage.OPEN
        self.next_seq = 0
        self.asked = 0
        """Samples so far; a retry that gets a recorded reply is none."""
        self.tokens = 0
        """Tokens so far, prompts and replies."""
        self.counting = 0
        """Prompts whose tokens are being counted."""
        self.counted = 0
        """Prompts whose tokens were, or are."""
        self.lost = 0
        """Turns served although the log did not take them (`best_effort`)."""
        self.lock = asyncio.Lock()
        """Held while a turn is sent: the order on the wire is the order of seq."""
        self.seal_lock = asyncio.Lock()
        self.branches = Branches()
        self.memory = Memory()
        self.tools: set[str] = set()
        self.unsure: list[Pending] = []
        self.slimmed: set[str] = set()
        """Turns that lost their content, since no log takes it: nobody gets their replies."""
        self.orphans: list[Result] = []
        self.unseen: list[tuple[str, tuple[str, ...]]] = []
        """Digest and turns of replies that no client got and that are kept no longer."""
        self.calls: set[Call] = set()
        self.begun: Counter[str] = Counter()
        """How many calls with a digest were taken up, those apart that ended with an error."""
        self.quiet = asyncio.Event()
        """Set while no call is in flight."""
        self.quiet.set()
        self.used_at = now
        self.until = now

    def move(self, stage: Stage) -> None:
        """Go on to a stage. Raises EpisodeSealed for what the table does not allow."""
        if NEXT.get(self.stage) is not stage:
            raise EpisodeSealed(f"the episode is {self.stage.value}")
        self.stage = stage

    def enter(self, call: "Call", limit: int) -> None:
        """Count a call in. Raises EpisodeSealed or TooManyCalls."""
        if self.stage is not Stage.OPEN:
            raise EpisodeSealed("the episode has ended: it takes no further call")
        if len(self.calls) >= limit:
            raise TooManyCalls(f"the episode has {limit} calls in flight already")
        self.calls.add(call)
        self.quiet.clear()

    def leave(self, call: "Call", now: float) -> None:
        """Count a call out."""
        self.calls.discard(call)
        self.used_at = now
        if not self.calls:
            self.quiet.set()

    def begin(self, digest: str) -> None:
        """A call with this digest goes to the engine."""
        if len(self.begun) >= MAX_DIGESTS:
            self.begun.clear()
        self.begun[digest] += 1

    def knows_tools(self, digest: str) -> bool:
        """Whether an acked turn carries these tools."""
        return digest in self.tools

    def learn_tools(self, digest: str) -> None:
        """An acked turn carries these tools."""
        if len(self.tools) >= MAX_TOOLS:
            self.tools.clear()
        self.tools.add(digest)

    def sure(self, pending: Pending) -> None:
        """The log has a turn that was unsure; `best_effort` may have given it up meanwhile."""
        if pending in self.unsure:
            self.unsure.remove(pending)

    def forget(self) -> None:
        """Give the history's memory back; the next turn is written whole.

        Replies that a request may go on from by their id stay: without them it would fail.
        """
        self.branches.clear()
        self.tools.clear()
        self.orphans.clear()


class Stories:
    """All episodes that this process knows, open or sealed, each for a bounded time."""

    def __init__(self, clock: Callable[[], float], *, idle_s: float, keep_s: float) -> None:
        self._clock = clock
        self._idle_s = idle_s
        self._keep_s = keep_s
        self._open: dict[str, Story] = {}
        self._sealed: dict[str, tuple[Sealing, float]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Story]:
        return iter(list(self._open.values()))

    def get(self, episode_id: str) -> Story | None:
        """The episode's story, if there is one."""
        return self._open.get(episode_id)

    def sealed(self, episode_id: str) -> Sealing | None:
        """What an earlier seal wrote, while it is remembered."""
        found = self._sealed.get(episode_id)
        return found[0] if found else None

    def check(self, episode_id: str) -> None:
        """Raise EpisodeSealed if an episode has ended here."""
        if episode_id in self._sealed:
            raise EpisodeSealed("the episode has ended: it takes no further call")

    def of(self, episode_id: str, *, until: float = 0.0) -> Story:
        """The episode's story, a new one if need be; kept until `until` (clock) at least.

        Raises EpisodeSealed.
        """
        story = self._open.get(episode_id)
        if story is None:
            self.check(episode_id)
            story = self._open[episode_id] = Story(episode_id, self._clock())
        story.until = max(story.until, until)
        return story

    def memory(self, episode_id: str) -> Memory:
        """What the episode's earlier replies were."""
        story = self._open.get(episode_id)
        return NOTHING if story is None else story.memory

    def close(self, story: Story, sealing: Sealing) -> None:
        """The log has Sealed: drop the story, remember that it ended."""
        self._sealed[story.episode_id] = (sealing, max(self._clock() + self._keep_s, story.until))
        self._open.pop(story.episode_id, None)

    def drop(self, story: Story) -> None:
        """Forget an episode that nobody can name again."""
        self._open.pop(story.episode_id, None)

    def sweep(self) -> None:
        """Free what nobody can ask for any more.

        An idle episode loses its history, which only makes its next turn larger. It loses its
        numbering only when every token seen for it has long ended, since a second run of seq from
        0 by the same writer would read as duplicates.
        """
        now = self._clock()
        for story in [story for story in self._open.values() if not story.calls]:
            if now - story.used_at > self._idle_s:
                story.forget()
            if now > max(story.until, story.used_at) + self._keep_s:
                del self._open[story.episode_id]
        for episode_id in [name for name, (_, until) in self._sealed.items() if until < now]:
            del self._sealed[episode_id]
