"""Turns of an episode into linear runs of tokens, compared token by token.

A turn continues an earlier one only if its prompt begins with that turn's prompt and completion,
id for id. Text is never tokenised again to find out. Runs of several agents in one episode
interleave, so each turn is compared with every open run, not only with the last turn. The tokens
of a turn are trained on in exactly one run: where its completion was sampled.

Arrays stay bytes here (little-endian u32): a prefix test is one memcmp.
"""

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from odradek.schemas.arrays import ID_BYTES, common_prefix
from odradek.schemas.events import Break, Sequence, Span, Turn, VersionSpan
from odradek.streams.stages.samplings import Samplings

Verdict = Literal[
    "first",
    "append",
    "branch",
    "rewritten",
    "retokenized",
    "no_tokens",
    "unknown_base",
    "untrained",
]


class TokenRun:
    """One linear run of tokens that may still grow at its end."""

    def __init__(self, prompt: bytes) -> None:
        self.ids = prompt
        self.ends: list[int] = []
        """Byte positions at which the completions of its turns end."""
        self.spans: list[Span] = []
        self.logprobs: list[bytes] = []
        self.versions: list[VersionSpan] = []
        self.turn_ids: list[str] = []

    def grow(self, prompt: bytes, turn: Turn, samplings: Samplings) -> None:
        """Take a turn whose prompt begins with all ids of this run."""
        completion = turn.completion
        self.ids = prompt + completion.ids
        self.ends.append(len(self.ids))
        start = len(prompt) // ID_BYTES
        self.spans.append(samplings.span(turn, start, len(self.ids) // ID_BYTES))
        self.logprobs.append(completion.logprobs)
        for version, first, last in map(_fields, _aged(turn)):
            self.versions.append(VersionSpan(version, start + first, start + last))
        self.turn_ids.append(turn.turn_id)

    def sequence(self) -> Sequence:
        """The run as it is written."""
        return Sequence(
            ids=self.ids,
            spans=tuple(self.spans),
            logprobs=b"".join(self.logprobs),
            versions=tuple(self.versions),
            turn_ids=tuple(self.turn_ids),
        )


def _fields(span: VersionSpan) -> tuple[int, int, int]:
    return span.version, span.start, span.end


def _aged(turn: Turn) -> tuple[VersionSpan, ...]:
    """Versions of a turn's tokens, none of them newer than the salt that the call carried.

    A token that newer weights sampled, before anybody had announced them, may rest on keys and
    values of the older ones, which the salt names. A token whose version nobody names is of the
    salt's weights or newer ones. Both count as the salt's.
    """
    salt, n = turn.cache_salt, len(turn.completion.ids) // ID_BYTES
    if salt is None:
        return turn.versions
    spans: list[VersionSpan] = []
    at = 0
    for version, first, last in (*map(_fields, turn.versions), (salt, n, n)):
        for span in (VersionSpan(salt, at, first), VersionSpan(min(version, salt), first, last)):
            if span.start < span.end:
                _join(spans, span)
        at = last
    return tuple(spans)


def _join(spans: list[VersionSpan], span: VersionSpan) -> None:
    """Append a span, or lengthen the last one where it is of the same version."""
    if spans and (spans[-1].version, spans[-1].end) == (span.version, span.start):
        span = VersionSpan(span.version, spans.pop().start, span.end)
    spans.append(span)


class TurnTokens(Struct, frozen=True, gc=False):
    """The state of the conversation at the end of a turn."""

    messages: int
    """The reply among them."""
    base: str
    prefix_len: int
    sampled: bool
    """Whether the reply's tokens are known."""

    @classmethod
    def of(cls, turn: Turn) -> "TurnTokens":
        """The state at the end of this turn."""
        request = turn.request
        replied = bytes(turn.reply.message) != b"null"
        return cls(
            request.prefix_len + len(request.messages) + replied,
            request.base,
            request.prefix_len,
            replied and bool(turn.completion.ids),
        )


class Continuity:
    """Grows the runs of one episode, turn by turn in the order in which they were sent."""

    def __init__(self) -> None:
        self.runs: list[TokenRun] = []
        self.breaks: list[Break] = []
        self.untrained_turns: dict[str, str] = {}
        self._ids: dict[str, tuple[TokenRun, int] | bytes] = {}
        self._turns: dict[str, TurnTokens] = {}
        self._samplings = Samplings()

    def add(self, turn: Turn, leave_out: str = "") -> Verdict:
        """Place a turn.

        Args:
            turn: The next turn, as captured: prompts are deltas on earlier turns.
            leave_out: Why it is not to be trained on; "" to decide by what the turn holds.

        Returns:
            How it continues what came before.
        """
        reason = leave_out or unfit(turn)
        prompt = self._prompt(turn)
        self._samplings.learn(turn)
        self._turns[turn.turn_id] = TurnTokens.of(turn)
        if prompt is None:
            return self._without(turn, reason or "unknown_base", "unknown_base")
        if reason:
            self._ids[turn.turn_id] = prompt + turn.completion.ids
            return self._without(turn, reason, "no_tokens")
        run, verdict = self._place(turn, prompt)
        run.grow(prompt, turn, self._samplings)
        self._ids[turn.turn_id] = (run, len(run.ids))
        return verdict

    def _without(
        self, turn: Turn, reason: str, why: Literal["no_tokens", "unknown_base"]
    ) -> Verdict:
        self.untrained_turns[turn.turn_id] = reason
        if why == "unknown_base" or reason in {"no_token_ids", "no_logprobs"}:
            self.breaks.append(Break(turn_id=turn.turn_id, reason=why))
            return why
        return "untrained"

    def _prompt(self, turn: Turn) -> bytes | None:
        """All ids of the prompt, or None where its base is unknown or shorter than it says."""
        if not turn.prompt.base:
            return turn.prompt.ids
        base = self._ids.get(turn.prompt.base)
        if base is None:
            return None
        end = turn.prompt.prefix_len * ID_BYTES
        ids_before = base if isinstance(base, bytes) else base[0].ids[: base[1]]
        return ids_before[:end] + turn.prompt.ids if end <= len(ids_before) else None

    def _place(self, turn: Turn, prompt: bytes) -> tuple[TokenRun, Verdict]:
        """The run that the turn grows, a new one if it continues none."""
        tip: TokenRun | None = None
        for run in self.runs:
            if prompt.startswith(run.ids) and (tip is None or len(run.ids) > len(tip.ids)):
                tip = run
        if tip is not None:
            return tip, "append"
        verdict: Verdict = "first"
        if self.runs:
            reason, index = self._difference(turn, prompt)
            self.breaks.append(Break(turn_id=turn.turn_id, reason=reason, index=index))
            verdict = reason
        run = TokenRun(prompt)
        self.runs.append(run)
        return run, verdict

    def _difference(
        self, turn: Turn, prompt: bytes
    ) -> tuple[Literal["branch", "rewritten", "retokenized"], int]:
        """Why no run ends where the prompt goes on, and the first position that differs."""
        shared = [(common_prefix(prompt, run.ids), run) for run in self.runs]
        longest = max(length for length, _ in shared)
        if (
            longest * ID_BYTES == len(prompt)
            or any(end <= length * ID_BYTES for length, run in shared for end in run.ends)
            or any(prompt.startswith(ids) for ids in self._aside())
        ):
            return "branch", longest
        return ("retokenized" if self._respoken(turn) else "rewritten"), longest

    def _aside(self) -> Iterator[bytes]:
        """All ids of each turn that has some and is in no run."""
        for turn_id, ids in self._ids.items():
            if isinstance(ids, bytes) and self._turns[turn_id].sampled:
                yield ids

    def _respoken(self, turn: Turn) -> bool:
        """Whether the words of some earlier turn, its reply among them, all come first.

        A base's words begin with those of its own base, so the loop follows the bases.
        """
        base, prefix_len = turn.request.base, turn.request.prefix_len
        while base and (earlier := self._turns.get(base)) is not None:
            if earlier.sampled and earlier.messages <= prefix_len:
                return True
            base, prefix_len = earlier.base, min(prefix_len, earlier.prefix_len)
        return False

    def sequences(self) -> tuple[Sequence, ...]:
        """All runs, in the order in which they began."""
        return tuple(run.sequence() for run in self.runs)


def unfit(turn: Turn) -> str:
    """Why a turn cannot be trained on, "" if it can."""
    if turn.error:
        return "error"
    if turn.disconnected:
        return "disconnected"
    if turn.untrainable:
        return turn.untrainable
    if not turn.completion.ids:
        return "no_token_ids"
    if not turn.completion.logprobs:
        return "no_logprobs"
    return ""
