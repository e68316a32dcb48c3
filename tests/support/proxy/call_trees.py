"""Random trees of calls through the real recorder, and what a model on lists says of them.

Sub-agents interleave with their parents, histories are compacted and edited, calls have parallel
samples, are repeated, fail, are cut off and redeemed; and a template that makes tokens again from
text joins what was sampled apart.
"""

import asyncio
import json
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from odradek.infra.bus import MemoryAppender
from odradek.proxy.dialects.chat import CHAT
from odradek.proxy.dialects.dialect import RequestRules
from odradek.proxy.episodes.episode import LiveEpisode
from odradek.proxy.log import compose
from odradek.proxy.log.writer import TurnWriter
from odradek.proxy.wire.reply import CapturedReply, whole
from odradek.schemas import codec
from odradek.schemas.events import Turn

USER, ASSISTANT, TOOL, END, JOINED = 10, 11, 12, 13, 5
ROLES = {"user": USER, "assistant": ASSISTANT, "tool": TOOL}


@dataclass(frozen=True)
class Said:
    """A message of a conversation, and the tokens that were sampled for it, if any were."""

    role: str
    words: tuple[int, ...]
    name: int = 0
    """Tells replies with equal words apart."""
    sampled: tuple[int, ...] = ()

    @property
    def message(self):
        """As an agent sends it."""
        text = "".join(map(str, self.words))
        named = {"name": str(self.name)} if self.name else {}
        return {"role": self.role, "content": text, **named}

    def ids(self, *, again):
        """Its tokens: as they were sampled, or made `again` from its words."""
        if self.sampled and not again:
            return [ROLES[self.role], *self.sampled]
        return [ROLES[self.role], *tokenized(self.words), END]


def tokenized(words):
    """The tokenizer's own way: two zeros are one token."""
    ids = []
    for word in words:
        if word == 0 and ids and ids[-1] == 0:
            ids[-1] = JOINED
        else:
            ids.append(word)
    return ids


@dataclass
class Call:
    """One choice of a call, as the model on lists has it."""

    said: tuple[Said, ...]
    prompt: list[int]
    reply: Said
    fate: str
    """`plain`, `cut` (the client left, and came again for it), `failed` or `unsure` (no logprobs)."""
    turn_id: str = ""

    @property
    def sampled(self):
        return [] if self.fate == "failed" else list(self.reply.sampled)

    @property
    def whole(self):
        return self.prompt + self.sampled

    @property
    def words(self):
        """Its conversation, the reply among it."""
        return [one.message for one in (*self.said, self.reply)]

    @property
    def base(self):
        """Whether later turns may build on it."""
        return self.fate in {"plain", "unsure"}

    @property
    def trained(self):
        return self.fate == "plain"


@dataclass
class Tree:
    """Calls of one episode in the order in which they ended."""

    calls: list[list[Call]] = field(default_factory=list)
    """The choices of each."""


words = st.lists(st.sampled_from([0, 0, 1]), min_size=1, max_size=3).map(tuple)
STEPS = ("go on", "tool", "sub-agent", "compact", "edit", "again")


@st.composite
def trees(draw, most=9):
    """A random episode."""
    tree, states = Tree(), [()]
    named = 0
    for _ in range(draw(st.integers(1, most))):
        said, repeated = _next(draw, states, tree)
        again = draw(st.sampled_from([False, False, True]))
        prompt = [token for one in said for token in one.ids(again=again)] + [ASSISTANT]
        fate = draw(st.sampled_from(["plain"] * 5 + ["cut", "failed", "unsure"]))
        choices = []
        for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
            named += 1
            text = draw(words) if repeated is None or draw(st.booleans()) else repeated
            reply = Said("assistant", text, named, (*text, END))
            choices.append(Call(said, prompt, reply, fate))
            if fate != "failed":
                states.append((*said, reply))
        tree.calls.append(choices)
    return tree


def _next(draw, states, tree):
    """The messages of the next call, and what it was answered where it is asked again."""
    step = draw(st.sampled_from(STEPS))
    if step == "again" and tree.calls:
        before = draw(st.sampled_from(tree.calls))[0]
        return before.said, before.reply.words
    # Mostly the newest state: long conversations. An older one is a fork, or the parent that a
    # sub-agent interrupted.
    state = draw(st.sampled_from([states[-1], states[-1], *states]))
    more = Said("user", draw(words))
    if step == "tool":
        more = Said("tool", draw(words))
    elif step == "sub-agent":
        state = ()
    elif step == "compact":
        state = (Said("user", draw(words)), *state[len(state) // 2 :])
    elif step == "edit" and state:
        place = draw(st.integers(0, len(state) - 1))
        edited = Said(state[place].role, draw(words), state[place].name)
        state = (*state[:place], edited, *state[place + 1 :])
    return (*state, more), None


def recorded(tree):
    """What a tree becomes on the wire: each turn with its call, in order."""
    return asyncio.run(_record(tree))


async def _record(tree):
    log = MemoryAppender()
    recorder, story = TurnWriter(log, "w", lambda: 0.0), LiveEpisode("e1", 0.0)
    calls = []
    for choices in tree.calls:
        asked = {"messages": [one.message for one in choices[0].said]}
        ask = CHAT.parse(json.dumps(asked).encode(), RequestRules())
        story.begin(ask.digest)
        for call, captured in zip(choices, whole(_answer(choices)), strict=True):
            found = CapturedReply(error="the engine broke") if call.fate == "failed" else captured
            draft = compose.draft(ask, found, disconnected=call.fate == "cut")
            await recorder.turn(story, draft)
            calls.append(replace(call, turn_id=draft.turn_id))
            if draft.turn.disconnected:  # the retry that came for it has it written again
                draft.again(retries=1)
                await recorder.turn(story, draft)
                calls.append(replace(call, turn_id=draft.turn_id, fate="plain"))
    return calls, [codec.decode(found.value, Turn) for found in log.records]


def _answer(choices):
    """The engine's answer to a call."""
    unsure = choices[0].fate == "unsure"
    found = [
        {
            "index": index,
            "message": call.reply.message,
            "finish_reason": "stop",
            "token_ids": list(call.reply.sampled),
            "logprobs": None
            if unsure
            else {"content": [{"logprob": -token / 8} for token in call.reply.sampled]},
        }
        for index, call in enumerate(choices)
    ]
    return json.dumps({"choices": found, "prompt_token_ids": choices[0].prompt}).encode()
