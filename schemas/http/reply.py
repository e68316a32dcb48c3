"""What the proxy reads of an engine's reply, of a chunk of one, and of its other answers.

The engine sends it, the proxy reads it. Fields that are not named here pass through to the agent
unread. The shapes are OpenAI's chat and text completions; ids and versions are those of vLLM 0.30.
"""

from typing import Any, Final

from msgspec import Raw, Struct

NULL: Final = Raw(b"null")
"""What an absent field becomes: this very object."""


class Logprob(Struct, gc=False):
    """One sampled token's log probability, in nats; None where the engine has no number for it."""

    logprob: float | None = None


class Logprobs(Struct):
    """The engine's list of them, one for each id of `token_ids`."""

    content: list[Logprob | None] | None = None


class WeightVersions(Struct, gc=False):
    """The engine's word on which policy sampled the reply's tokens [start, end)."""

    version: int | str | None
    start: int
    end: int


class Choice(Struct):
    """One choice of a chat's reply, or of a chunk."""

    index: int = 0
    message: Raw = NULL
    delta: dict[str, Any] = {}
    finish_reason: str | None = None
    stop_reason: Any = None
    """The stop string that ended the reply; no text where an end token did."""
    token_ids: list[int] | None = None
    """Ids of all sampled tokens, the end token among them; of a chunk, those of the chunk."""
    prompt_token_ids: list[int] | None = None
    """Of text completions, where each choice has a prompt of its own; of chats the body has it."""
    logprobs: Logprobs | None = None
    weight_versions: list[WeightVersions] | None = None
    error: Raw = NULL
    """Where gateways put what went wrong with this choice."""


class CachedTokens(Struct, gc=False):
    """How much of the prompt the engine had computed before, in tokens."""

    cached_tokens: int | None = None


class EngineUsage(Struct):
    """Tokens as the engine counts them; None where it does not."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """Of all choices together. Held against the ids: a reply that lacks some is not trained on."""
    prompt_tokens_details: CachedTokens | None = None

    @property
    def counts(self) -> bool:
        """Whether it says anything."""
        return self.prompt_tokens is not None or self.completion_tokens is not None

    @property
    def prompt(self) -> int:
        """Tokens of the prompt, no fewer than none."""
        return max(0, self.prompt_tokens or 0)

    @property
    def completion(self) -> int:
        """Tokens of the reply, no fewer than none."""
        return max(0, self.completion_tokens or 0)

    @property
    def cached(self) -> int:
        """Tokens of the prompt that the engine had computed before."""
        details = self.prompt_tokens_details
        return max(0, (details.cached_tokens or 0) if details else 0)


class ReplyBody(Struct):
    """A chat's reply, or a chunk of its stream."""

    id: str = ""
    created: Any = None
    choices: list[Choice] = []
    usage: EngineUsage | None = None
    prompt_token_ids: list[int] | None = None
    """Ids of the prompt; of a stream, in its first chunk."""
    error: Raw = NULL


class TextLogprobs(Struct):
    """A text completion's log probabilities, in nats; null stands where a token has none."""

    token_logprobs: list[float | None] | None = None


class TextChoice(Struct):
    """One choice of a text completion, or of a chunk."""

    text: str
    index: int = 0
    finish_reason: str | None = None
    stop_reason: Any = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    logprobs: TextLogprobs | None = None
    weight_versions: list[WeightVersions] | None = None
    error: Raw = NULL


class TextBody(Struct):
    """A text completion, or a chunk of its stream."""

    id: str = ""
    choices: list[TextChoice] = []
    usage: EngineUsage | None = None
    error: Raw = NULL


class RenderedPrompt(Struct):
    """A conversation as the engine's chat template makes it."""

    token_ids: list[int]


class TokenCount(Struct):
    """How many tokens a prompt has."""

    count: int


class ServedModel(Struct):
    """A model by its name."""

    id: str = ""


class ServedModels(Struct):
    """The models that an engine lists."""

    data: list[ServedModel] = []


class ServedVersion(Struct):
    """Which weights an engine serves."""

    weight_version: Any = None
    """The policy version, as a number or its digits. Any other text: weights that no trainer
    named, which count as version 0."""
