"""A report of how an agent plays. Pure."""

from collections.abc import Iterable

from msgspec import Struct

from odradek.infra.app.introspection.suggestions import Suggestion


class Distribution(Struct, frozen=True, kw_only=True):
    """Numbers, in few of them; all but `n` are None where there are none."""

    n: int = 0
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    most: float | None = None

    @classmethod
    def of(cls, values: Iterable[float]) -> "Distribution":
        """Of numbers; percentiles by nearest rank."""
        ranked = sorted(values)
        n = len(ranked)
        if not n:
            return cls()
        at = [ranked[max(0, -(-n * share // 100) - 1)] for share in (50, 90)]
        return cls(n=n, mean=sum(ranked) / n, p50=at[0], p90=at[1], most=ranked[-1])


class SuccessRate(Struct, frozen=True, kw_only=True):
    """The share of episodes whose reward reaches a threshold, among those that count."""

    threshold: float
    component: str = ""
    """Whose value is meant; empty: the reward."""
    of: int = 0
    """Episodes that count and have such a reward."""
    value: float | None = None
    low: float = 0.0
    """95 % interval (Wilson), with the number of tasks as n: samples of a task depend on each
    other."""
    high: float = 1.0


class ErrorRow(Struct, frozen=True, kw_only=True):
    """Errors of one kind."""

    kind: str
    n: int
    places: tuple[str, ...] = ()
    """Of the first of them: of episodes, or of turns."""


class ToolRow(Struct, frozen=True, kw_only=True):
    """A tool, and how it went."""

    name: str
    episodes: int = 0
    calls: int = 0
    failed: int = 0
    failures: dict[str, int] = {}
    """By kind."""
    repeated: int = 0
    """Calls that failed and were made again just so, while they failed."""
    unanswered: int = 0
    wait_s: Distribution = Distribution()
    """From the reply that asked to the call that brought the result."""
    result_chars: int = 0


class PromptRow(Struct, frozen=True):
    """The prompts of one turn of a conversation, over episodes."""

    turn: int
    """Counted from 1."""
    episodes: int
    tokens: Distribution


class AgentReport(Struct, frozen=True, kw_only=True):
    """How an agent plays."""

    agent: str
    episodes: int
    """Attempts among them that others followed."""
    since: float = 0.0
    """When the first was opened and the last closed, Unix seconds."""
    until: float = 0.0
    without_turns: int = 0
    """Of which the turns are not on the log (any more): no times, calls, tools nor tokens."""
    tasks: int = 0
    outcomes: dict[str, int] = {}
    """Of samples."""
    attempts: int = 0
    """Those that others followed."""
    success: SuccessRate
    reward: Distribution = Distribution()
    components: dict[str, Distribution] = {}
    errors: tuple[ErrorRow, ...] = ()
    """Of episodes."""
    run_s: Distribution = Distribution()
    """Seconds from opening to seal."""
    model_share: float | None = None
    """Of that time, in which a model call was under way."""
    turns: Distribution = Distribution()
    """Calls of an episode."""
    calls: int = 0
    call_s: Distribution = Distribution()
    ttft_s: Distribution = Distribution()
    call_errors: tuple[ErrorRow, ...] = ()
    retried: int = 0
    """Calls that the client said it sent again."""
    gone: int = 0
    """Calls whose client left."""
    beside: int = 0
    """Side calls."""
    finish_reasons: dict[str, int] = {}
    prompt_tokens: Distribution = Distribution()
    """Of an episode."""
    completion_tokens: Distribution = Distribution()
    cached_share: float | None = None
    """Of all tokens of prompts, as engines count them."""
    prompts: tuple[PromptRow, ...] = ()
    tools: tuple[ToolRow, ...] = ()
    versions: dict[int, int] = {}
    """Tokens that each policy version sampled."""
    suggestions: tuple[Suggestion, ...] = ()
