"""The proxy's memory of one episode."""

import asyncio
from collections import Counter
from enum import Enum
from typing import Final, Protocol

import msgspec
from aiohttp import web

from odradek.proxy.auth import Permit
from odradek.proxy.dialects.dialect import ParsedRequest
from odradek.proxy.dialects.replies import ReplyStore
from odradek.proxy.episodes.draft import RecordedReply
from odradek.proxy.episodes.history import EpisodeBranches
from odradek.proxy.errors import EpisodeClosed, TooManyCalls
from odradek.schemas.codec import Headers
from odradek.schemas.events import Turn

MAX_TOOLS: Final = 32
MAX_DIGESTS: Final = 4096
MAX_UNSEEN: Final = 1024


class EpisodePhase(Enum):
    """How far an episode is."""

    OPEN = "open"
    SEALING = "sealing"
    SEALED = "sealed"


NEXT: Final = {EpisodePhase.OPEN: EpisodePhase.SEALING, EpisodePhase.SEALING: EpisodePhase.SEALED}
"""The legal transitions; there is no way back."""


class InFlight(Protocol):
    """A call of an episode that has no reply yet."""

    client: web.Request
    request: ParsedRequest
    permit: Permit
    retries: int
    follows: bool
    """It waits for another call's reply."""
    gone_since: float | None

    @property
    def gone(self) -> bool:
        """Whether nobody waits for this call's reply."""

    def join(self, other: "InFlight") -> asyncio.Future[RecordedReply]:
        """Hand this call's reply to a retry of its client."""

    def stop(self, why: str, *, in_s: float) -> None:
        """Give the engine that many seconds more."""


class PendingTurn(msgspec.Struct, frozen=True):
    """A turn that was sent, and of which we do not know whether the log has it."""

    turn: Turn
    value: bytes
    headers: Headers


class LiveEpisode:
    """An episode as this writer knows it."""

    def __init__(self, episode_id: str, now: float) -> None:
        self.episode_id = episode_id
        self.stage = EpisodePhase.OPEN
        self.next_seq = 0
        self.samples = 0
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
        self.branches = EpisodeBranches()
        self.memory = ReplyStore()
        self.has_tools = False
        """Whether some call of the episode's task had tools."""
        self.tools: set[str] = set()
        self.unsure: list[PendingTurn] = []
        self.slimmed: set[str] = set()
        """Turns that lost their content, since no log takes it: nobody gets their replies."""
        self.orphans: list[RecordedReply] = []
        self.unseen: list[tuple[str, tuple[str, ...]]] = []
        """Digest and turns of replies that no client got and that are kept no longer."""
        self.calls: set[InFlight] = set()
        self.begun: Counter[str] = Counter()
        """How many calls with a digest were taken up, those apart that ended with an error."""
        self.quiet = asyncio.Event()
        """Set while no call is in flight."""
        self.quiet.set()
        self.used_at = now
        self.until = now

    def move(self, stage: EpisodePhase) -> None:
        """Go on to a stage. Raises EpisodeClosed for what the table does not allow."""
        if NEXT.get(self.stage) is not stage:
            raise EpisodeClosed(f"the episode is {self.stage.value}")
        self.stage = stage

    def enter(self, call: InFlight, limit: int) -> None:
        """Count a call in. Raises EpisodeClosed or TooManyCalls."""
        if self.stage is not EpisodePhase.OPEN:
            raise EpisodeClosed("the episode has ended: it takes no further call")
        if len(self.calls) >= limit:
            raise TooManyCalls(f"the episode has {limit} calls in flight already")
        self.calls.add(call)
        self.quiet.clear()

    def leave(self, call: InFlight, now: float) -> None:
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

    def sure(self, pending: PendingTurn) -> None:
        """The log has a turn that was unsure; `best_effort` may have given it up meanwhile."""
        if pending in self.unsure:
            self.unsure.remove(pending)

    @property
    def size(self) -> int:
        """Bytes that its history and its replies hold in memory, about."""
        return self.branches.size + self.memory.size + sum(orphan.size for orphan in self.orphans)

    def put_aside(self, reply: RecordedReply) -> None:
        """Give up a reply that no client got, but for the names of its turns."""
        self.unseen = [*self.unseen, (reply.digest, reply.turn_ids)][-MAX_UNSEEN:]

    def forget(self) -> None:
        """Give the history's memory back; the next turn is written whole.

        Replies that a request may go on from by their id stay: without them it would fail.
        """
        self.branches.clear()
        self.tools.clear()
        for reply in self.orphans:
            self.put_aside(reply)
        self.orphans.clear()

    def forget_replies(self) -> None:
        """Give those back, too: a request that names one is told that it is not found."""
        self.memory = ReplyStore()
