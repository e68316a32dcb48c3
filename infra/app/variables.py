"""Variables and keys that are gone or renamed, and what to do about one that is given. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final

RENAMED: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("ODRADEK_TRAINER_POLICY", "ODRADEK_ENGINE_POLICY", "ODRADEK_ENGINE_NAME"),
        "ODRADEK_POLICY",
    ),
    "ODRADEK_TRAINER_ENGINE_URLS": "ODRADEK_ENGINE_URL",
    **dict.fromkeys(
        (
            "ODRADEK_AGENT_MAX_ATTEMPTS",
            "ODRADEK_DISPATCH_MAX_ATTEMPTS",
            "ODRADEK_STREAMS_MAX_ATTEMPTS",
        ),
        "ODRADEK_MAX_ATTEMPTS",
    ),
    **dict.fromkeys(
        ("ODRADEK_AGENT_INSTANCE", "ODRADEK_DISPATCH_INSTANCE", "ODRADEK_STREAMS_INSTANCE"),
        "ODRADEK_INSTANCE",
    ),
    "ODRADEK_STREAMS_CONCURRENCY": "ODRADEK_REWARD_CONCURRENCY",
    "ODRADEK_STREAMS_SOURCES": "ODRADEK_INTAKE_SOURCES",
    "ODRADEK_STREAMS_TIMEOUTS": "ODRADEK_TASK_TIMEOUTS",
}
"""Former variables, and the one that says the same to every process."""

CONSTANT: Final = "no setting any more: what it was by default holds"
REMOVED: Final[dict[str, str]] = {
    "ODRADEK_DISPATCH_TRAINER": "no setting any more: give `odradek dispatch --no-trainer`",
    "ODRADEK_AGENT_FENCED": "no setting any more: runs always begin in transactions",
    "ODRADEK_TRAINER_MICRO_ROWS": (
        "no setting any more: ODRADEK_TRAINER_MICRO_TOKENS bounds the tokens of a forward pass"
    ),
    "ODRADEK_TRAINER_DTYPE": (
        "no setting any more: weights are float32, and ODRADEK_TRAINER_PRECISION says what matrix "
        "products are taken in"
    ),
    "ODRADEK_TRAINER_THREADS": "no setting any more: OMP_NUM_THREADS says it to torch",
    "ODRADEK_PROXY_ENGINE_READ_S": "no setting any more: ODRADEK_PROXY_CALL_S bounds a call",
    "ODRADEK_PROXY_MAX_EPISODE_CALLS": "no setting any more: ODRADEK_AGENT_MAX_CALLS bounds a run",
    "ODRADEK_PROXY_MAX_EPISODE_TOKENS": (
        "no setting any more: ODRADEK_AGENT_MAX_TOKENS bounds a run"
    ),
    **dict.fromkeys(
        (
            "ODRADEK_PROXY_ENGINE_CONNECT_S",
            "ODRADEK_PROXY_ENGINE_HEALTH_S",
            "ODRADEK_PROXY_LOG_PATIENCE_S",
            "ODRADEK_PROXY_ORPHAN_S",
            "ODRADEK_PROXY_IDLE_S",
            "ODRADEK_PROXY_SEALED_S",
            "ODRADEK_PROXY_MAX_HEADER_BYTES",
            "ODRADEK_PROXY_MAX_DEPTH",
            "ODRADEK_PROXY_MAX_CHOICES",
            "ODRADEK_PROXY_MAX_TOOLS",
            "ODRADEK_PROXY_STREAMS_PER_TOKEN",
            "ODRADEK_PROXY_SHUTDOWN_S",
            "ODRADEK_AGENT_QUEUE",
            "ODRADEK_AGENT_REPLY_PREFIX",
            "ODRADEK_ENGINE_GATHER_MS",
            "ODRADEK_ENGINE_MAX_QUEUE",
            "ODRADEK_ENGINE_MAX_BATCH",
            "ODRADEK_TRAINER_KEEP_WEIGHTS",
            "ODRADEK_TRAINER_FIXED_LENGTH",
        ),
        CONSTANT,
    ),
}
"""Former variables that nothing reads, and what holds in their place."""

KEYS: Final[dict[str, str]] = {
    "agents.max_attempts": "dispatch.max_attempts says it to every process",
    "streams.max_attempts": "dispatch.max_attempts says it to every process",
    "trainer.success_reward": "evaluation.success says it to the trainer, too",
}
"""Former keys of odradek.toml whose fact stands elsewhere in the file."""


def renamed(environ: Mapping[str, str]) -> Iterator[str]:
    """Each variable that is set under a former name, in a line that gives its name of today."""
    for name, now in RENAMED.items():
        if environ.get(name):
            yield f"{name} is called {now} now: rename the variable"


def removed(environ: Mapping[str, str]) -> Iterator[str]:
    """Each variable that is set and that nothing reads any more, in a line."""
    for name, instead in REMOVED.items():
        if environ.get(name):
            yield f"{name} is {instead}; unset it"


def former_key(section: str, key: str) -> str:
    """Why a key of odradek.toml is none any more, "" if it never was one."""
    if instead := KEYS.get(f"{section}.{key}"):
        return f"is no key any more: {instead}"
    prefix = {"agents": "AGENT"}.get(section, section.upper())
    instead = REMOVED.get(f"ODRADEK_{prefix}_{key.upper()}", "")
    return f"is {instead}: take it out" if instead else ""
