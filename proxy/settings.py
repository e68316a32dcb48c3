"""Settings of the proxy."""

import re
from collections.abc import Iterator
from typing import Final, Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from odradek.infra.runtime.addresses import Host, on_loopback, roots
from odradek.infra.runtime.settings import CheckedSettings, Name
from odradek.proxy.dialects.dialect import Limits
from odradek.proxy.dialects.model_routes import Mapped
from odradek.proxy.dialects.sampling import Training
from odradek.proxy.dialects.tools.hosted import Hosted
from odradek.proxy.errors import ProxyMisconfigured
from odradek.schemas.events import Timeouts
from odradek.schemas.sampling import COLDEST, HOTTEST

HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")
"""Names of headers (RFC 9110)."""
LOG_PATIENCE_S: Final = 120.0
"""How long brokers may answer and take nothing before the proxy ends, to start afresh; while they
are away it waits. A turn may not take longer."""
HOSTS_WAIT_S: Final = Timeouts().seal_s
"""How long agent hosts wait for a seal where the task does not say."""


class ProxySettings(CheckedSettings, BaseSettings):
    """Settings of the proxy, from `ODRADEK_PROXY_*`."""

    model_config = SettingsConfigDict(
        env_prefix="ODRADEK_PROXY_",
        env_ignore_empty=True,
        frozen=True,
        allow_inf_nan=False,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    host: Host = "127.0.0.1"
    """Where to listen."""
    port: int = Field(default=8400, ge=0, le=65535)
    """The port; 0 takes a free one."""
    engine_url: str = Field(
        default="http://127.0.0.1:8000",
        validation_alias=AliasChoices("engine_url", "ODRADEK_ENGINE_URL"),
    )
    """The inference engine, without /v1. Several: comma separated; an episode keeps to one."""
    engine_key: SecretStr = SecretStr("")
    """The engine's own key, where it wants one; agents never see it."""
    engine_wait_s: float = Field(default=10.0, ge=0)
    """How long a call waits for an engine that takes it, while all are busy (429, 503) or away."""
    policy: Name = Field(
        default="policy", validation_alias=AliasChoices("policy", "ODRADEK_POLICY")
    )
    """The policy whose versions on rl.policies.v1 hold for replies in which the engine names none.
    """
    auth: Literal["required", "none"] = "required"
    """Whether calls need a signed token; "none" is for one's own machine, on loopback only."""
    unattributed: bool = False
    """Whether calls without token and episode are let through and recorded (loopback only)."""
    continuation: Literal["render", "bridge"] = "render"
    """How a conversation's next prompt is made: `render`, the engine renders all messages anew;
    `bridge`, earlier turns keep the ids that were sampled, and only new messages are rendered."""
    sampling: Literal["refuse", "force"] = "refuse"
    """What becomes of calls whose client alters the distribution (top_p, penalties, forms of
    reply, forced tools, ...): `refuse`, they are served as asked, and the trainer refuses their
    replies; `force`, the client's fields give way to the distribution that is trained on."""
    temperature: float = Field(default=1.0, ge=COLDEST, le=HOTTEST, allow_inf_nan=False)
    """The temperature of calls whose client names none; with `sampling = force`, of all calls. A
    task's own `sampling` takes precedence."""
    models: dict[str, Mapped] = {}
    """Further names that agents may use for a model. By name: `engine` (its address; without it the
    policy's own), `model` (its name there), `key_env` (the variable with its key), and `trained`,
    false unless set. With {"small": {}}, calls of `small` go to the policy, are recorded, and are
    never trained on."""
    side_calls_without_tools: bool = False
    """Whether calls without tools are beside the task where the episode's others have some:
    recorded, and never trained on."""
    side_call_header: str = ""
    """A request header that marks a call as beside the task, such as X-Side-Call."""
    hosted_tools: Hosted = "drop"
    """What becomes of tools that only a vendor's own servers have, such as a web search:
    `drop`, the engine does not get them, and the turn and the header X-Odradek-Dropped name them;
    `refuse`, a 400 that names the field."""
    durability: Literal["required", "best_effort"] = "required"
    """What happens if the log does not take a turn: `required`, the call gets a 503; `best_effort`,
    the agent gets its reply, with a gap in seq and a seal that calls the episode incomplete."""
    log_timeout_s: float = Field(default=10.0, gt=0, lt=LOG_PATIENCE_S)
    """How long to wait for the log's acknowledgement of one turn."""
    call_s: float = Field(default=120.0, gt=0)
    """A call's deadline, where its token sets no shorter one."""
    seal_wait_s: float = Field(default=20.0, ge=0)
    """How long a seal waits for calls in flight; shorter than hosts wait for the seal (30 s)."""
    max_history_bytes: int = Field(default=2 * 1024**3, ge=0, le=2**50)
    """Memory for what all episodes keep of their calls, together. Beyond it the episodes used
    longest ago lose their histories, so that their next turns are written whole. Then they lose the
    replies that a `previous_response_id` may name."""
    calls_per_episode: int = Field(default=256, ge=1)
    """Calls of one episode in flight at once; more are refused."""
    max_body_bytes: int = Field(default=8 * 1024 * 1024, ge=1024)
    """Largest request body, after decompression."""
    max_reply_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    """Largest reply of an engine, whole or streamed, after decompression."""
    max_tokens: int = Field(default=262_144, ge=1)
    """Most tokens that one call may ask for."""

    @field_validator("side_call_header")
    @classmethod
    def _header(cls, value: str) -> str:
        if value and not HEADER.fullmatch(value):
            raise ValueError("must be a header's name, such as X-Side-Call")
        return value

    @field_validator("models")
    @classmethod
    def _mapped(cls, value: dict[str, Mapped]) -> dict[str, Mapped]:
        for mapped in value.values():
            if "engine" in mapped:
                mapped["engine"] = cls._roots(mapped["engine"])
        return value

    @field_validator("engine_url")
    @classmethod
    def _roots(cls, value: str) -> str:
        urls = roots(value)
        if not urls:
            raise ValueError("names no engine: http://127.0.0.1:8000")
        return ",".join(urls)

    @property
    def engine_urls(self) -> list[str]:
        """The engines, one by one."""
        return self.engine_url.split(",")

    def limits(self) -> Limits:
        """The bounds on one request."""
        return Limits(max_tokens=self.max_tokens)

    def training(self) -> Training:
        """The distribution that is trained on."""
        return Training.at(self.temperature, force=self.sampling == "force")

    def check(self) -> None:
        """Hold the settings against each other. Raises ProxyMisconfigured."""
        for line in self._contradictions():
            raise ProxyMisconfigured(line)
        if on_loopback(self.host):
            return
        if self.auth == "none":
            raise ProxyMisconfigured(
                f"refusing to listen on {self.host} without tokens: set ODRADEK_TOKEN_KEYS and "
                "ODRADEK_PROXY_AUTH=required, or listen on 127.0.0.1"
            )
        if self.unattributed:
            raise ProxyMisconfigured(
                f"refusing unattributed calls on {self.host}: they carry no token, so they are "
                "for loopback only (ODRADEK_PROXY_UNATTRIBUTED=false)"
            )

    def _contradictions(self) -> Iterator[str]:
        """Each pair that cannot work, with its reason."""
        if self.seal_wait_s >= HOSTS_WAIT_S:
            yield (
                f"seal_wait_s ({self.seal_wait_s:g}) must be below the {HOSTS_WAIT_S:g} s that "
                "hosts wait for a seal (timeouts.seal_s): they would give up just before it comes"
            )
