"""Settings of the agent host, of the dispatcher and of the gateway."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, Field, model_validator
from pydantic_settings import BaseSettings

from odradek.agents.webhook_hosts import WebhookHosts
from odradek.infra.runtime.addresses import Root
from odradek.infra.runtime.settings import CheckedSettings, KafkaName, Name, from_environment
from odradek.schemas.topics import NAME


def _agent(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError(f"{value!r} is no agent's name: use up to 63 letters, digits, - and _")
    return value


class AgentSettings(CheckedSettings, BaseSettings):
    """Settings of an agent host, from `ODRADEK_AGENT_*`."""

    model_config = from_environment("ODRADEK_AGENT_")

    name: Annotated[str, AfterValidator(_agent)] = "agent"
    """Tasks ask for the agent by this name; it is part of its topics' names."""
    training: bool = True
    """Whether runs are episodes. Without, the agent serves A2A alone: no proxy, no topics of the
    training, no rewards."""
    idempotent: bool = True
    """Whether a plain message that comes again, by its id, is the same task. Without, each request
    is a task of its own, as with the A2A SDK's own server."""
    push: bool = False
    """Whether the agent takes push notification configs, and says so on its card. `odradek push`
    posts to them."""
    webhook_hosts: WebhookHosts = Field(
        default="", validation_alias=AliasChoices("webhook_hosts", "ODRADEK_WEBHOOK_HOSTS")
    )
    """Names, addresses and networks, comma separated, where webhooks may be although they are
    loopback or private, such as `127.0.0.1` or `10.1.0.0/16`."""
    orphans: Literal["fail", "restart"] = "fail"
    """What becomes of a plain message's task that its host was working at when it died: it fails,
    or it is begun again, in `max_attempts` attempts at most. Tasks that wait for their client wait
    on, and samples of tasks get another attempt, whatever stands here."""
    concurrency: int = Field(default=8, ge=1)
    """How many runs go on at once."""
    max_calls: int = Field(default=0, ge=0)
    """Model calls that the token of one run is good for; 0: as many as the proxy allows."""
    max_tokens: int = Field(default=0, ge=0)
    """Tokens of prompts and replies that the token is good for; 0: as many as the proxy allows."""
    instance: KafkaName | None = Field(default=None, validation_alias="ODRADEK_INSTANCE")
    """A name of this process that outlives restarts and that no other replica has: a restarted
    process comes back to its partitions at once, not after the session timeout."""
    proxy_url: Root = Field(
        default="http://127.0.0.1:8400",
        validation_alias=AliasChoices("proxy_url", "ODRADEK_PROXY_URL"),
    )
    """Where agents and hosts reach the proxy."""
    policy: Name = Field(
        default="policy", validation_alias=AliasChoices("policy", "ODRADEK_POLICY")
    )
    """The model name that agents get where the task names none."""
    max_attempts: int = Field(default=2, ge=1, validation_alias="ODRADEK_MAX_ATTEMPTS")
    """Attempts at a sample whose host or engine was lost through no fault of the agent."""
    grace_s: float = Field(default=5.0, ge=0)
    """How long runs may go on after SIGTERM before they are given up for another attempt."""
    card: Path | None = None
    """A file (JSON, or TOML) with fields of the agent's A2A card: name, description, version,
    provider, skills, defaultInputModes, defaultOutputModes, documentationUrl, iconUrl."""
    extended_card: Path | None = None
    """A file of the same form whose fields authenticated callers see in place of the public ones
    (GetExtendedAgentCard)."""
    card_key: Path | None = None
    """File with the private key that signs the card, a JSON Web Key of Ed25519 or P-256."""


class DispatchSettings(CheckedSettings, BaseSettings):
    """Settings of the dispatcher, from `ODRADEK_DISPATCH_*`."""

    model_config = from_environment("ODRADEK_DISPATCH_")

    open_groups: int = Field(default=32, ge=1, le=2048)
    """Training groups that may be open at once: handed out, and not passed by a training step."""
    open_evals: int = Field(default=64, ge=1, le=2048)
    """Evaluation groups that may be open at once: handed out, and not closed."""
    repeat_share: float = Field(default=0.0, ge=0, le=1)
    """Share of the hard training tasks that are published again, for fresh rollouts; 0: none."""
    repeat_below: float = 0.5
    """A task is hard if the mean reward of its group is below this."""
    repeat_most: int = Field(default=2, ge=1, le=1000)
    """How often a task is published again at most."""
    max_attempts: int = Field(default=2, ge=1, validation_alias="ODRADEK_MAX_ATTEMPTS")
    """Attempts at a sample whose host or engine was lost through no fault of the agent."""
    instance: KafkaName | None = Field(default=None, validation_alias="ODRADEK_INSTANCE")
    """A name of this process that outlives restarts and that no other replica has: a restarted
    process comes back to its partitions at once, not after the session timeout."""


class GatewaySettings(CheckedSettings, BaseSettings):
    """Settings of the gateway, from `ODRADEK_GATEWAY_*`."""

    model_config = from_environment("ODRADEK_GATEWAY_")

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = Field(default=8500, ge=0, le=65535)
    """The port to listen on; 0 for a free one."""
    public_url: Root | None = None
    """Where clients reach it, as agents' cards say; `http://host:port` if not given."""
    group: KafkaName = "gateway"
    """Names the topic of its replies, `a2a.replies.<group>`; all gateways may share one."""
    call_s: float = Field(default=600.0, gt=0)
    """How long a call waits for its agent."""
    max_body_bytes: int = Field(default=1024 * 1024, ge=1)
    """Largest body of a request; a message on the bus may be no larger."""
    card_age_s: float = Field(default=60.0, ge=0)
    """How long clients may keep a card without asking again."""
    card_key: Path | None = None
    """File with the private key that signs cards, as the gateway shows them with its addresses.
    Not given: it shows them unsigned."""
    shutdown_s: float = Field(default=5.0, ge=0)
    """How long calls and streams may go on after SIGTERM."""
    stream_s: float = Field(default=3600.0, gt=0)
    """How long a stream goes on; then it ends, and its client goes on by Last-Event-ID."""
    rate: str = ""
    """How often each principal may ask at this gateway, such as `600/minute`; without, as often as
    it likes. Where nobody is asked for credentials, each client's address counts."""
    bearer_keys: Path | None = None
    """File with the hashes of clients' keys. `odradek keys bearer` writes it."""
    jwks: str = ""
    """File or https URL of the JWK Set by which JSON Web Tokens are verified."""
    jwt_issuer: str = ""
    """The `iss` that tokens must have."""
    jwt_audience: str = ""
    """The `aud` that tokens must have."""
    a2a_03: bool = False
    """Whether clients of A2A 0.3 are served, too. Cards then say where: below `/v0.3` of an agent's
    address, and by gRPC where the gateway has one agent alone."""
    grpc_port: int | None = Field(default=None, ge=0, le=65535)
    """The port to serve gRPC on, at the same host; 0 for a free one. Not given: no gRPC."""
    grpc_address: str | None = None
    """Where clients reach gRPC, as agents' cards say; `host:grpc_port` if not given."""
    grpc_certificate: Path | None = None
    """The chain of certificates for gRPC over TLS, a PEM file. Not given: without TLS."""
    grpc_key: Path | None = None
    """The certificate's private key, a PEM file."""

    @model_validator(mode="after")
    def _both_or_neither(self) -> "GatewaySettings":
        if (self.grpc_certificate is None) != (self.grpc_key is None):
            raise ValueError("give both grpc_certificate and grpc_key, or neither")
        return self
