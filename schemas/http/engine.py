"""The engine's surface: the routes, the fields that are written into requests, and capabilities.

An engine that answers these routes in these shapes needs no adapter of its own. The spelling is
vLLM's, whose words they were first; another engine's words stand in its adapters alone
(`proxy/engines`, `trainer/weights`).
"""

from enum import StrEnum
from typing import Any, Final, Literal

from msgspec import Struct

from odradek.schemas.http import reply, weights


class Capability(StrEnum):
    """What an engine can do for the loop."""

    SAMPLING = "sampling"
    TOKEN_IDS = "token_ids"  # noqa: S105 - no password
    LOGPROBS = "logprobs"
    VERSION_SPANS = "version_spans"
    STREAMS = "streams"
    CACHE_SALT = "cache_salt"
    RENDERING = "rendering"
    COUNTING = "counting"
    VERSION = "version"
    WEIGHTS = "weights"
    ADAPTERS = "adapters"
    IN_FLIGHT = "in_flight"


class CapabilityTerms(Struct, frozen=True):
    """What a capability is, and what its lack costs."""

    about: str
    cost: str


CAPABILITIES: Final = {
    Capability.SAMPLING: CapabilityTerms(
        "answers chat completions, or text completions", "no agent can be served"
    ),
    Capability.TOKEN_IDS: CapabilityTerms(
        "gives the ids of the prompt and of what it sampled",
        "its replies are recorded, and none can be trained on",
    ),
    Capability.LOGPROBS: CapabilityTerms(
        "gives the log probabilities, in nats, of the distribution that it samples from",
        "its replies are recorded, and none can be trained on",
    ),
    Capability.VERSION_SPANS: CapabilityTerms(
        "says which version of the weights sampled which token",
        "a reply over a swap counts as sampled by the older version",
    ),
    Capability.STREAMS: CapabilityTerms(
        "streams a reply token by token, ids and log probabilities with it",
        "an agent that streams gets its reply in one piece, once the last token is sampled",
    ),
    Capability.CACHE_SALT: CapabilityTerms(
        "keeps prefixes of calls with different salts apart",
        "only the reset at a swap keeps new weights from reading what older ones computed",
    ),
    Capability.RENDERING: CapabilityTerms(
        "renders messages as ids, and takes ids in place of messages",
        "a conversation's next prompt is rendered anew, so its turns may break into sequences",
    ),
    Capability.COUNTING: CapabilityTerms(
        "counts the tokens of a chat's prompt",
        "agents that ask for a count get an error",
    ),
    Capability.VERSION: CapabilityTerms(
        "says which version of the weights it serves",
        "an engine that was started anew is not found out by asking",
    ),
    Capability.WEIGHTS: CapabilityTerms(
        "loads new weights from a folder while it runs", "no trainer can send it weights"
    ),
    Capability.ADAPTERS: CapabilityTerms(
        "loads LoRA adapters beside its model, lists them, and serves each to calls that name it",
        "no trainer of an adapter (`lora_rank`) can send it one",
    ),
    Capability.IN_FLIGHT: CapabilityTerms(
        "keeps requests under way over a swap",
        "replies under way at a swap are lost or hold it up",
    ),
}
"""Each capability, with what it costs to be without."""


class MissingCapability(Struct, frozen=True):
    """A capability that a kind of engine lacks."""

    capability: Capability
    remedy: str
    """What to do about it."""

    def __str__(self) -> str:
        """One line: what is lacking, what it costs, what to do."""
        terms = CAPABILITIES[self.capability]
        return f"no {self.capability}: {terms.cost}; {self.remedy}"


class CarriedPrompt(Struct):
    """A prompt that is sent as ids."""

    prompt_token_ids: list[int]


class SampledRequest(Struct, kw_only=True):
    """What the proxy writes into a call, beside what the agent sent and the neutral sampling."""

    model: str | None = None
    """Where an adapter is trained, the adapter's name; else what the agent asked for."""
    logprobs: bool | int = True
    """Of chats true, of text completions 0: those of the sampled tokens."""
    return_token_ids: bool = True
    return_weight_versions: bool = True
    cache_salt: str | None = None
    """The policy version, and a digest of the agent's own salt: `7` or `7.DIGEST`."""
    kv_transfer_params: CarriedPrompt | None = None
    """The prompt's ids, under `continuation = "bridge"`, in place of the messages' rendering."""


class ConversationFields(Struct, kw_only=True):
    """What of a chat's request a rendering or a count is made of."""

    model: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    """Whether the beginning of an answer follows the messages."""


MODEL: Final = "model"
LOGPROBS: Final = "logprobs"
TOKEN_IDS: Final = "return_token_ids"  # noqa: S105 - no password
WEIGHT_VERSIONS: Final = "return_weight_versions"
CACHE_SALT: Final = "cache_salt"
CARRIED: Final = "kv_transfer_params"
"""Names of the fields of `SampledRequest`."""


class SurfaceRoute(Struct, frozen=True, kw_only=True):
    """A route that an engine answers."""

    method: Literal["GET", "POST"]
    path: str
    by: str
    """Who asks."""
    capability: Capability
    about: str
    query: type[Struct] | None = None
    request: type[Struct] | None = None
    reply: type[Struct] | None = None


CHAT: Final = SurfaceRoute(
    method="POST", path="/v1/chat/completions", by="proxy", capability=Capability.SAMPLING,
    about="A chat completion, whole or as a stream of server-sent events.",
    request=SampledRequest, reply=reply.ReplyBody,
)  # fmt: skip
COMPLETIONS: Final = SurfaceRoute(
    method="POST", path="/v1/completions", by="proxy", capability=Capability.SAMPLING,
    about="A text completion, whole or as a stream.",
    request=SampledRequest, reply=reply.TextBody,
)  # fmt: skip
MODELS: Final = SurfaceRoute(
    method="GET", path="/v1/models", by="proxy and trainer", capability=Capability.SAMPLING,
    about="The models that it serves, and the adapters.", reply=reply.ServedModels,
)  # fmt: skip
HEALTH: Final = SurfaceRoute(
    method="GET", path="/health", by="proxy and trainer", capability=Capability.SAMPLING,
    about="Whether it can answer: a status below 400.",
)  # fmt: skip
RENDER: Final = SurfaceRoute(
    method="POST", path="/v1/chat/completions/render", by="proxy",
    capability=Capability.RENDERING, about="A conversation as ids; nothing is sampled.",
    request=ConversationFields, reply=reply.RenderedPrompt,
)  # fmt: skip
COUNT: Final = SurfaceRoute(
    method="POST", path="/tokenize", by="proxy", capability=Capability.COUNTING,
    about="How many tokens a conversation's prompt has.",
    request=ConversationFields, reply=reply.TokenCount,
)  # fmt: skip
VERSION: Final = SurfaceRoute(
    method="GET", path="/weight_info", by="proxy and trainer", capability=Capability.VERSION,
    about="Which weights it serves.", reply=reply.ServedVersion,
)  # fmt: skip
PAUSE: Final = SurfaceRoute(
    method="POST", path="/pause", by="trainer", capability=Capability.IN_FLIGHT,
    about="Sample no more until `/resume`.",
    query=weights.PauseTerms, reply=weights.Acknowledgement,
)  # fmt: skip
LOAD: Final = SurfaceRoute(
    method="POST", path="/collective_rpc", by="trainer", capability=Capability.WEIGHTS,
    about="Load weights from a folder.",
    request=weights.WeightReload, reply=weights.Acknowledgement,
)  # fmt: skip
NAME: Final = SurfaceRoute(
    method="POST", path="/update_weight_version", by="trainer",
    capability=Capability.VERSION_SPANS, about="Name the weights that were loaded.",
    request=weights.VersionName, reply=weights.Acknowledgement,
)  # fmt: skip
RESET: Final = SurfaceRoute(
    method="POST", path="/reset_prefix_cache", by="trainer", capability=Capability.WEIGHTS,
    about="Forget the keys and values of older weights.",
    query=weights.ResetTerms, reply=weights.CacheReset,
)  # fmt: skip
RESUME: Final = SurfaceRoute(
    method="POST", path="/resume", by="trainer", capability=Capability.IN_FLIGHT,
    about="Sample again.", reply=weights.Acknowledgement,
)  # fmt: skip
LOAD_ADAPTER: Final = SurfaceRoute(
    method="POST", path="/v1/load_lora_adapter", by="trainer", capability=Capability.ADAPTERS,
    about="Load an adapter under a new name, while calls go on.",
    request=weights.AdapterLoad,
)  # fmt: skip
UNLOAD_ADAPTER: Final = SurfaceRoute(
    method="POST", path="/v1/unload_lora_adapter", by="trainer", capability=Capability.ADAPTERS,
    about="Forget an adapter that no new call will name; 404 where it is not there.",
    request=weights.AdapterUnload,
)  # fmt: skip

ROUTES: Final = (
    CHAT, COMPLETIONS, MODELS, HEALTH, RENDER, COUNT, VERSION, PAUSE, LOAD, NAME, RESET, RESUME,
    LOAD_ADAPTER, UNLOAD_ADAPTER,
)  # fmt: skip
"""All of them. The trainer asks `PAUSE` to `RESUME` in this order; adapters need no pause."""
