"""Every event that crosses a topic, as msgspec types.

Rules of evolution: readers ignore unknown fields, new fields have defaults, a breaking change is
a new topic version. Times are seconds; `*_at` is Unix time, `*_s` a duration, `*_ms` milliseconds.
Fields of type `bytes` are arrays (see `odradek.schemas.arrays`). Fields of type `Raw` are JSON
that passes through without being parsed.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

Name = Annotated[str, Meta(min_length=1, max_length=256)]
"""An id or a name: it becomes a key, so it is never empty and never long."""

Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]
Purpose = Literal["train", "eval"]


def _null() -> Raw:
    """The default of a Raw field; a factory, since a JSON Schema cannot show a Raw default."""
    return Raw(b"null")


class Event(Struct, frozen=True, omit_defaults=True):
    """What all events share: they are immutable, and defaults are not written."""


class Outcome(StrEnum):
    """How an episode ended, and so what it counts as."""

    COMPLETED = "completed"
    """By the agent: counts with its reward."""
    FAILED = "failed"
    """By the agent: counts with the task's failure reward."""
    TIMED_OUT = "timed_out"
    """By the agent: counts with the task's failure reward."""
    HOST_LOST = "host_lost"
    """By us: retried, then excluded."""
    UPSTREAM_FAILED = "upstream_failed"
    """By us: retried, then excluded."""
    INCOMPLETE = "incomplete"
    """By us (a gap in the log, or a turn that was not captured): excluded."""
    UNREWARDED = "unrewarded"
    """Nobody's doing: a wanted reward never came. Excluded."""
    CANCELLED = "cancelled"
    """Nobody's doing: excluded."""

    @property
    def counts(self) -> bool:
        """Whether the episode counts as a sample of its group."""
        return self in {Outcome.COMPLETED, Outcome.FAILED, Outcome.TIMED_OUT}


class Timeouts(Event, frozen=True, kw_only=True):
    """Deadlines of a task, in seconds."""

    call_s: Seconds = 120.0
    """One model call."""
    run_s: Seconds = 600.0
    """One run of the agent."""
    seal_s: Seconds = 30.0
    """From the end of the run until the proxy has written Sealed."""
    reward_s: Seconds = 300.0
    """From Sealed until every wanted reward is there."""
    group_s: Seconds = 1800.0
    """From Expected until the group is closed with what it has."""


class Task(Event, frozen=True, tag="task", kw_only=True):
    """One task is one group: its samples are compared with each other."""

    task_id: Name
    agent: Name
    input: Raw = msgspec.field(default_factory=_null)
    """Whatever the agent needs to know, as JSON."""
    item: str = ""
    """What the task was made from; the same in every epoch."""
    group_size: Annotated[int, Meta(ge=1, le=4096)] = 8
    purpose: Purpose = "train"
    rewards: dict[str, float] = {}
    """Wanted components and their weights. Empty: any reward named "reward", weight 1."""
    failure_reward: float = 0.0
    """What a failed or timed-out episode counts as."""
    timeouts: Timeouts = Timeouts()
    sampling: dict[str, Any] = {}
    """Request fields that the proxy sets on each call, such as {"temperature": 0}."""
    model: str = ""
    """The model name that agents are told; empty: what the proxy serves."""


class Reward(Event, frozen=True, tag="reward", kw_only=True):
    """One component's verdict on an episode. The first of a component wins."""

    episode_id: Name
    component: Name
    value: float
    source: Name
    explanation: str = ""


class Opened(Event, frozen=True, tag="opened", kw_only=True):
    """An attempt begins. The only event that makes the assembler keep state."""

    episode_id: Name
    task_id: Name
    agent: Name
    sample: Count
    group_size: Count
    attempt: Annotated[int, Meta(ge=1)] = 1
    final: bool = True
    """Whether no further attempt would follow this one."""
    purpose: Purpose = "train"
    rewards: dict[str, float] = {}
    failure_reward: float = 0.0
    timeouts: Timeouts = Timeouts()
    item: str = ""
    input: Raw = msgspec.field(default_factory=_null)
    unattributed: bool = False
    """A call came for an episode that no host had opened: recorded, never grouped."""


class VersionSpan(Struct, frozen=True, array_like=True):
    """Which policy version sampled tokens [start, end)."""

    version: Count
    start: Count
    end: Count


class Span(Struct, frozen=True, array_like=True):
    """Positions [start, end) of sampled tokens."""

    start: Count
    end: Count


class Request(Event, frozen=True, kw_only=True):
    """What the agent asked, as a delta on the turn `base`."""

    base: str = ""
    """turn_id of an acked turn of the same writer and episode whose messages come first."""
    kept: Count = 0
    """How many messages of the base's history (its messages and its reply) come first."""
    messages: tuple[Raw, ...] = ()
    """Messages after those, as the agent sent them."""
    tools: tuple[Raw, ...] = ()
    tools_digest: str = ""
    """sha256 of the tools; the tools themselves are written once per writer and episode."""
    sampling: dict[str, Any] = {}
    digest: str = ""
    """sha256 of the request as the agent sent it."""


class Reply(Event, frozen=True, kw_only=True):
    """What the model answered."""

    message: Raw = msgspec.field(default_factory=_null)
    finish_reason: str | None = None


class Prompt(Event, frozen=True, kw_only=True):
    """Token ids of the prompt, as a delta on the turn `base`."""

    base: str = ""
    prefix_len: Count = 0
    """How many ids of the base's prompt + completion come first."""
    ids: bytes = b""


class Completion(Event, frozen=True, kw_only=True):
    """Sampled ids and, for each, its log probability in nats."""

    ids: bytes = b""
    logprobs: bytes = b""


class Usage(Event, frozen=True, kw_only=True):
    """Tokens as the engine counts them."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    cached_tokens: Count = 0


class Timing(Event, frozen=True, kw_only=True):
    """When a call began and how long its parts took."""

    started_at: float = 0.0
    ttft_ms: Annotated[float, Meta(ge=0)] | None = None
    total_ms: Annotated[float, Meta(ge=0)] = 0.0


class Upstream(Event, frozen=True, kw_only=True):
    """How the engine answered."""

    status: Count = 0
    id: str = ""


class Turn(Event, frozen=True, tag="turn", kw_only=True):
    """One model call, durable before the agent sees its end."""

    episode_id: Name
    turn_id: Name
    writer: Name
    """The proxy's boot id."""
    seq: Count
    """Counts a writer's turns of an episode without gaps, given at send, from 0."""
    dialect: str = "chat"
    agent: str = ""
    model: str = ""
    request: Request = Request()
    reply: Reply = msgspec.field(default_factory=Reply)
    prompt: Prompt = Prompt()
    completion: Completion = Completion()
    versions: tuple[VersionSpan, ...] = ()
    """Over the completion's ids."""
    versions_from: Literal["", "engine", "inferred"] = ""
    usage: Usage = Usage()
    timing: Timing = Timing()
    upstream: Upstream = Upstream()
    retries: Count = 0
    """The client's own retry count."""
    streamed: bool = False
    cut: bool = False
    """The client left before the end; recorded, not trained."""
    supersedes: str = ""
    """turn_id of an equal call that was acked but never released to the client."""
    error: str = ""
    untrainable: str = ""
    """Why this turn cannot be trained on although it succeeded, such as `no_token_ids`."""


class Sealed(Event, frozen=True, tag="sealed", kw_only=True):
    """No turn of `writer` follows. Written behind the episode's last turn."""

    episode_id: Name
    writer: str = ""
    n_turns: Count = 0
    outcome: Outcome = Outcome.COMPLETED
    error: str = ""


class Aborted(Event, frozen=True, tag="aborted", kw_only=True):
    """The attempt is given up."""

    episode_id: Name
    reason: Outcome = Outcome.HOST_LOST
    retry: bool = False
    """Whether another attempt follows."""
    error: str = ""


class Tick(Event, frozen=True, tag="tick", kw_only=True):
    """Time, told through the log: something on this partition may be overdue."""

    writer: str = ""


class Expected(Event, frozen=True, tag="expected", kw_only=True):
    """A group begins. The only event that makes the grouper keep state."""

    task_id: Name
    agent: str = ""
    group_size: Annotated[int, Meta(ge=1)]
    group_s: Seconds = 1800.0
    purpose: Purpose = "train"
    item: str = ""


class Sequence(Event, frozen=True, kw_only=True):
    """A linear run of tokens: prompts, sampled tokens and what came between them."""

    ids: bytes = b""
    spans: tuple[Span, ...] = ()
    """Where `ids` was sampled and is to be trained on."""
    logprobs: bytes = b""
    """Of the tokens in the spans only, in their order."""
    versions: tuple[VersionSpan, ...] = ()
    """Over positions of `ids`."""
    turn_ids: tuple[str, ...] = ()


class Break(Event, frozen=True, kw_only=True):
    """Where and why a turn did not continue an earlier one."""

    turn_id: str
    reason: Literal["branch", "rewritten", "retokenised", "no_tokens", "unknown_base"]
    index: Count = 0
    """The first position at which the prompts differ."""


class Episode(Event, frozen=True, tag="episode", kw_only=True):
    """One (task, sample, attempt) with its tokens and its reward."""

    episode_id: Name
    task_id: Name
    agent: str
    sample: Count
    group_size: Count
    attempt: Annotated[int, Meta(ge=1)] = 1
    retry: bool = False
    """Another attempt follows, so this is no end of the sample."""
    purpose: Purpose = "train"
    item: str = ""
    outcome: Outcome = Outcome.COMPLETED
    error: str = ""
    reward: float | None = None
    """Weighted sum of the components; the failure reward where the outcome says so."""
    components: dict[str, float] = {}
    sequences: tuple[Sequence, ...] = ()
    breaks: tuple[Break, ...] = ()
    n_turns: Count = 0
    left_out: dict[str, str] = {}
    """turn_id -> why it is not trained on (cut, superseded, error, no_token_ids, ...)."""
    usage: Usage = Usage()
    opened_at: float = 0.0
    """Append times of Opened and of the event that closed the episode."""
    closed_at: float = 0.0
    revision: Count = 0
    """0 is live; higher ones come from replay and re-scoring."""
    unattributed: bool = False


class EpisodeHead(Event, frozen=True, tag="episode", kw_only=True):
    """An Episode without its tokens, for readers that only count and compare."""

    episode_id: Name
    task_id: Name
    agent: str
    sample: Count
    group_size: Count
    attempt: Annotated[int, Meta(ge=1)] = 1
    retry: bool = False
    purpose: Purpose = "train"
    item: str = ""
    outcome: Outcome = Outcome.COMPLETED
    error: str = ""
    reward: float | None = None
    components: dict[str, float] = {}
    n_turns: Count = 0
    opened_at: float = 0.0
    closed_at: float = 0.0
    revision: Count = 0
    unattributed: bool = False


class Said(Event, frozen=True, kw_only=True):
    """One model call of a Conversation: what was new in the request, and the reply."""

    turn_id: str
    base: str = ""
    kept: Count = 0
    messages: list[Any] = []
    tools: Any = None
    reply: Any = None
    finish_reason: str | None = None
    error: str = ""

    @property
    def text(self) -> str:
        """The reply's text, "" where it has none."""
        content = self.reply.get("content") if isinstance(self.reply, dict) else None
        if isinstance(content, list):
            return "".join(part.get("text", "") for part in content if isinstance(part, dict))
        return content if isinstance(content, str) else ""

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The reply's tool calls, in the shape of the chat completions API."""
        calls = self.reply.get("tool_calls") if isinstance(self.reply, dict) else None
        return calls if isinstance(calls, list) else []


class Conversation(Event, frozen=True, tag="conversation", kw_only=True):
    """A sealed episode as people and judges read it: words, no token arrays."""

    episode_id: Name
    task_id: Name
    agent: str
    sample: Count
    attempt: Annotated[int, Meta(ge=1)] = 1
    purpose: Purpose = "train"
    item: str = ""
    input: Any = None
    outcome: Outcome = Outcome.COMPLETED
    error: str = ""
    wanted: tuple[str, ...] = ()
    """Reward components that the task asks for."""
    turns: tuple[Said, ...] = ()

    @property
    def replies(self) -> tuple[Said, ...]:
        """Every model call that was answered, in order."""
        return tuple(turn for turn in self.turns if turn.reply is not None)

    @property
    def messages(self) -> list[Any]:
        """The whole history that ends with the last reply."""
        histories: dict[str, list[Any]] = {}
        last: list[Any] = []
        for turn in self.turns:
            last = [*histories.get(turn.base, [])[: turn.kept], *turn.messages]
            if turn.reply is not None:
                last.append(turn.reply)
            histories[turn.turn_id] = last
        return last


class Pointer(Event, frozen=True, kw_only=True):
    """Where an episode of a batch stands, and how to know it again."""

    episode_id: str
    sample: Count
    topic: str
    """Without the prefix of the installation."""
    partition: Count
    offset: Count
    digest: str
    """sha256 of the record's value."""
    reward: float
    revision: Count = 0


class Exclusion(Event, frozen=True, kw_only=True):
    """A sample that did not make it into a batch, and why."""

    sample: Count
    reason: str
    episode_id: str = ""


class Batch(Event, frozen=True, tag="batch", kw_only=True):
    """One closed group: a list of pointers. Their order on the topic is the training order."""

    task_id: Name
    agent: str = ""
    purpose: Purpose = "train"
    item: str = ""
    group_size: Annotated[int, Meta(ge=1)]
    episodes: tuple[Pointer, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    empty: str = ""
    """Why there are no episodes, such as `too_few` or `duplicate_task`."""
    zero_variance: bool = False
    retries: Count = 0
    """Attempts that were followed by another one; counted apart from exclusions."""
    origin: str = ""
    """Of a replayed batch: topic/partition/offset of the batch it repeats."""


class Used(Event, frozen=True, kw_only=True):
    """How much of a batch a step used."""

    offset: Count
    rows: Count = 0
    digest: str = ""
    """sha256 of the pointers' digests, in order."""


class Refusal(Event, frozen=True, kw_only=True):
    """A batch or an episode that the trainer passed without using it."""

    offset: Count
    reason: str
    episode_id: str = ""


class Step(Event, frozen=True, tag="step", kw_only=True):
    """An entry of the trainer's ledger."""

    run: Name
    incarnation: Count
    """Counts the trainer's starts in this run."""
    step: Count
    position: Count
    """Offset of the first batch that has not been passed."""
    topic: str = "rl.batches.v1"
    optimized: bool = True
    """False where batches were passed without an optimizer step."""
    used: tuple[Used, ...] = ()
    refused: tuple[Refusal, ...] = ()
    version: Count = 0
    checkpoint: str = ""
    """sha256 of the checkpoint's manifest, where one was written."""
    weights: str = ""
    """sha256 of the weights' file."""
    metrics: dict[str, float] = {}


class Policy(Event, frozen=True, tag="policy", kw_only=True):
    """Weights that engines and proxies may use from now on."""

    name: Name
    version: Count
    uri: str
    format: str = "safetensors"
    digest: str = ""
    step: Count = 0
    run: str = ""
    checkpoint: str = ""


TurnsEvent = Opened | Turn | Reward | Sealed | Aborted | Tick
EpisodesEvent = Expected | Episode | Tick
GroupsEvent = Expected | EpisodeHead | Tick
"""What the grouper reads of `rl.episodes.v1`: the same records, without the tokens."""
AnyEvent = (
    Task
    | Reward
    | Opened
    | Turn
    | Sealed
    | Aborted
    | Tick
    | Expected
    | Episode
    | Conversation
    | Batch
    | Step
    | Policy
)


def raw(value: Any) -> Raw:
    """A JSON value as a Raw field."""
    return value if isinstance(value, Raw) else Raw(msgspec.json.encode(value))


def parsed(value: Raw) -> Any:
    """A Raw field as a Python value."""
    return msgspec.json.decode(value)
