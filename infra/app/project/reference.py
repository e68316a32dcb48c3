"""The reference page of all settings, made from the settings classes themselves."""

import importlib
from typing import Any, Final

from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from odradek.infra.app.project.sections import KINDS, secret, variable

CLASSES: Final = {
    "[kafka]": ("odradek.infra.bus", "BusSettings"),
    "[[agents]]": ("odradek.agents.settings", "AgentSettings"),
    "[dispatch]": ("odradek.agents.settings", "DispatchSettings"),
    "gateway": ("odradek.agents.settings", "GatewaySettings"),
    "trust": ("odradek.agents.trust.settings", "TrustSettings"),
    "push": ("odradek.agents.push.settings", "PushSettings"),
    "[streams]": ("odradek.streams.settings", "StreamsSettings"),
    "[sampler]": ("odradek.streams.sampler.settings", "SamplerSettings"),
    "[trainer]": ("odradek.trainer.settings", "TrainerSettings"),
    "[engine]": ("odradek.trainer.engine.settings", "EngineSettings"),
    "[proxy]": ("odradek.proxy.settings", "ProxySettings"),
    "console": ("odradek.infra.app.console.settings", "ConsoleSettings"),
    "archive": ("odradek.infra.archive", "ArchiveSettings"),
    "tokens": ("odradek.infra.runtime.episode_tokens", "TokenSettings"),
    "judges": ("odradek.infra.runtime.reward_signatures", "JudgeSettings"),
}
"""Where each setting comes from; names in brackets are sections of odradek.toml."""

TWELVE: Final = {
    "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": "your brokers; none: `odradek up` starts a local one",
    "ODRADEK_TOPIC_PREFIX": "one for each installation that shares a cluster",
    "ODRADEK_TOKEN_KEYS": "a secret that proxy and agent hosts share",
    "ODRADEK_PROXY_URL": "where agents reach the proxy",
    "ODRADEK_ENGINE_URL": "your engines, for the proxy and the trainer alike",
    "ODRADEK_TRAINER_MODEL": "the model to start from; in a project: `engine.model`",
    "ODRADEK_TRAINER_DEVICE": "which GPU trains",
    "ODRADEK_AGENT_CONCURRENCY": "how many runs a host plays at once",
    "ODRADEK_DISPATCH_OPEN_GROUPS": "how far rollouts may be ahead of training",
    "ODRADEK_TRAINER_LEARNING_RATE": "of AdamW",
    "ODRADEK_TRAINER_ROWS_PER_STEP": "how large a step is",
    "ODRADEK_TRAINER_MAX_STEPS": "how long a run goes on",
}
"""What most people set, and in a few words what for; nearly all else may stay as it is."""

SHARED: Final = {
    "ODRADEK_POLICY": "Name of the policy: what agents call it, what the engine lists it as, and "
    "where its weights are announced and followed (`rl.policies.v1`).",
    "ODRADEK_ENGINE_URL": "Addresses of the engines, without /v1, comma separated: the proxy asks "
    "them (an episode keeps to one), and the trainer reloads them. Without it the proxy asks "
    "http://127.0.0.1:8000, and the trainer reloads nobody.",
}
"""The meaning of variables that several processes read, each for a use of its own."""

LIMITS: Final = frozenset({
    "call_s", "calls_per_episode", "card_age_s", "concurrency", "engine_timeout_s",
    "engine_wait_s", "grace_s", "keep", "log_timeout_s", "max_attempts", "max_body_bytes",
    "max_calls", "max_history_bytes", "max_reply_bytes", "max_tokens", "open_evals", "rate",
    "open_groups", "ready_s", "replication_factor", "seal_wait_s", "session_timeout_ms",
    "retry_s", "shutdown_s", "stream_s", "timeout_s", "timeouts", "topic_partitions", "tries",
})  # fmt: skip
WHERE: Final = frozenset({
    "access_key", "batches_topic", "bearer_keys", "certificate", "device", "dtype",
    "endpoint_url", "engine_key", "engine_url", "engine_urls", "group", "host", "instance",
    "jwks", "jwt_audience", "jwt_issuer", "key", "keys", "location", "names", "output_dir",
    "port", "proxy_url", "public_url", "region", "secret_key", "signing_key", "token",
    "unsigned", "verification_keys", "webhook_hosts",
})  # fmt: skip
WHAT: Final = frozenset(
    {"begin_anew", "model", "policy", "replay_of", "run", "sampled_by", "until_end"}
)
LEARNING: Final = frozenset({
    "continuation", "repeat_below", "repeat_most", "repeat_share", "sampling", "seed",
    "temperature",
})  # fmt: skip
GROUPS: Final = {
    "What": "Names, models and what is taken from whom.",
    "Where": "Addresses, credentials, folders and devices.",
    "Limits": "Times, sizes and counts.",
    "Learning": "How replies are sampled and what a step does with them.",
}

HEAD: Final = """\
# Settings

Made by `odradek config --reference`; a test holds it against the code. A project sets them in
`odradek.toml`, which `odradek up` reads: the variable's last words in lower case, in the section
that reads it, such as `learning_rate` in `[trainer]`. `odradek config` prints what holds there and
where it came from. The environment wins over `odradek.toml`, and that over the defaults. An unknown
key is an error that names the nearest known one; a former one, an error that says what holds in its
place.

## The twelve that people set

| variable | default | what for |
|---|---|---|
"""


def page() -> str:
    """The page in Markdown."""
    rows = _rows()
    parts = [HEAD]
    parts += [f"| `{name}` | {rows[name][1]} | {why} |\n" for name, why in TWELVE.items()]
    for group, about in GROUPS.items():
        parts.append(
            f"\n## {group}\n\n{about}\n\n| variable | default | read in | meaning |\n"
            "|---|---|---|---|\n"
        )
        parts += [
            f"| `{name}` | {default} | {', '.join(places)} | {meaning} |\n"
            for name, (of, default, places, meaning) in rows.items()
            if of == group
        ]
    parts.append(
        "\n## Keys that only odradek.toml has\n\n| key | default | meaning |\n|---|---|---|\n"
    )
    for section, kind in KINDS.items():
        fields = kind.own.model_fields if kind.own else {}
        parts += [
            f"| `{section}.{key}` | {_shown(field.get_default(call_default_factory=True))} "
            f"| {_line(field.description)} |\n"
            for key, field in fields.items()
        ]
    return "".join(parts)


def group_of(place: str, key: str) -> str:
    """The group of a setting."""
    if key in LIMITS:
        return "Limits"
    if key in WHERE or (place in {"[kafka]", "tokens"} and key not in LIMITS):
        return "Where"
    if key in LEARNING or (place == "[trainer]" and key not in WHAT):
        return "Learning"
    return "What"


def _rows() -> dict[str, tuple[str, str, list[str], str]]:
    """By variable: its group, its default, its readers, and its meaning to the first of them."""
    rows: dict[str, tuple[str, str, list[str], str]] = {}
    for place, (module, attribute) in CLASSES.items():
        settings: type[BaseSettings] = getattr(importlib.import_module(module), attribute)
        for key, field in settings.model_fields.items():
            name = variable(settings, key)
            if name in rows:
                rows[name][2].append(place)
                continue
            value = field.get_default(call_default_factory=True)
            default = "" if secret(settings, key) else _shown(value)
            about = SHARED.get(name) or _line(field.description)
            rows[name] = (group_of(place, key), default, [place], about)
    return rows


def _shown(value: Any) -> str:
    return "" if value in (None, "", PydanticUndefined) else f"`{value}`"


def _line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
