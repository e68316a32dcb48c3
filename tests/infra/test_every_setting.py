"""No setting of any process takes a value that nobody can mean; a new setting is in the table by itself."""

import math
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings import BaseSettings

from odradek.agents.push.settings import PushSettings
from odradek.agents.settings import GatewaySettings
from odradek.agents.trust.settings import TrustSettings
from odradek.infra.app.cli import explain
from odradek.infra.app.console.settings import ConsoleSettings
from odradek.infra.app.project import load
from odradek.infra.app.project.sections import KINDS, AgentSection, variable
from odradek.infra.archive import ArchiveSettings
from odradek.infra.errors import ProjectError
from odradek.infra.runtime.episode_tokens import TokenSettings
from odradek.infra.runtime.reward_signatures import JudgeSettings
from odradek.trainer.settings import TrainerSettings

NEEDED: dict[str, dict[str, Any]] = {
    "AgentSection": {"name": "a", "run": "a:b"},
    "RewardSection": {"component": "a", "run": "a:b"},
    "FollowerSection": {"name": "a"},
}
"""What a class wants to be given."""
ZERO = {
    "ConsoleSettings.port",
    "AgentSettings.max_calls", "AgentSettings.max_tokens", "AgentSettings.grace_s",
    "DispatchSettings.repeat_share", "DispatchSettings.repeat_below",
    "GatewaySettings.port", "GatewaySettings.grpc_port", "GatewaySettings.card_age_s", "GatewaySettings.shutdown_s",
    "EngineSection.warm_up_steps", "EngineSettings.port",
    "EngineSettings.seed", "EvaluationSection.success",
    "ProxySettings.engine_wait_s", "ProxySettings.max_history_bytes",
    "ProxySettings.port", "ProxySettings.seal_wait_s",
    "StreamsSettings.timeouts", "TrainerSettings.epsilon_high",
    "TrainerSettings.epsilon_low", "TrainerSettings.kl", "TrainerSettings.max_grad_norm",
    "TrainerSettings.max_row_tokens", "TrainerSettings.max_staleness", "TrainerSettings.seed",
    "TrainerSettings.gradient_checkpointing", "TrainerSettings.warmup_steps",
    "TrainerSettings.success_reward", "TrainerSettings.tis", "TrainerSettings.weight_decay",
    "TrainerSettings.dual_clip", "TrainerSettings.tis_low", "TrainerSettings.overlong_tokens",
    "TrainerSettings.overlong_buffer", "TrainerSettings.length_penalty",
    "TrainerSettings.entropy", "TrainerSettings.lora_rank", "TrainerSettings.lora_dropout",
    "EngineSettings.lora_rank", "EngineSettings.max_staleness",
    "TrainerSettings.max_staleness_replayed", "TrainerSettings.fresh_share",
    "SamplerSettings.replayed", "SamplerSettings.alpha", "SamplerSettings.beta",
    "SamplerSettings.half_life", "SamplerSettings.max_uses", "SamplerSettings.seed",
}  # fmt: skip
"""Of these 0 means something."""
NEGATIVE = {
    "DispatchSettings.repeat_below", "EvaluationSection.success", "TrainerSettings.success_reward",
}  # fmt: skip
"""Of these a number below 0 does."""
ENDLESS = [math.nan, math.inf, -math.inf]
HUGE = [10**30, 2**70, -(10**30), 1e308, -1e308, 1.7e38, 10**400]
TINY = [5e-324, -5e-324, 1e-310, 1e-307]
TEXTS = ["a\0b", "a\nb", "\x1b[31m", "\x7f", "\u0085", "\ud800", "\udcff"]
NO_URLS = [
    "no url", "127.0.0.1:8000", "ftp://a:1", "http://", "https://", "http:// ", "http://:8000",
    "http://a:99999", "http://a:0", "http://a:-1", "http://a:port", "http://a b:1", "http//a:1",
    "http://me:secret@a:1", "http://a?x=1", "http://a#x", "file:///a", "http://[::1", "http://a,b",
]  # fmt: skip


def classes() -> Iterator[type[BaseModel]]:
    """Every class that settings or sections of a project are read into."""
    yield from dict.fromkeys(found for kind in KINDS.values() if (found := kind.settings()))
    yield from (GatewaySettings, PushSettings, TrustSettings, TokenSettings, JudgeSettings)
    yield from (ArchiveSettings, ConsoleSettings)
    yield from (kind.own for kind in KINDS.values() if kind.own)


def fields() -> list[Any]:
    """(class, key) of each of their fields."""
    return [
        pytest.param(kind, key, id=f"{kind.__name__}.{key}")
        for kind in classes()
        for key in kind.model_fields
    ]


def of(kind: type[BaseModel], key: str) -> set[Any]:
    """The types that a field may have, of a table those of its values."""
    annotation = kind.model_fields[key].annotation
    whole = typing.get_origin(annotation)
    if whole is typing.Union or whole is types.UnionType:
        return set(typing.get_args(annotation)) - {type(None)}
    if whole is dict:
        return {dict}
    return {annotation}


def bad(kind: type[BaseModel], key: str) -> Iterator[Any]:
    """Values of its type that nobody can mean, by what is said of the field alone."""
    name, its = f"{kind.__name__}.{key}", of(kind, key)
    if its & {int, float}:
        yield from (*ENDLESS, *HUGE, *TINY)
        yield from [] if name in NEGATIVE else [-1, -1e-9]
        yield from [] if name in ZERO else [0]
    if int in its:
        yield from (0.5, "many", True and "yes", "1e3")
    if bool in its:
        yield from ("maybe", 2, math.nan)
    if its & {str, SecretStr}:
        yield from TEXTS
    if Path in its:
        yield from (one for one in TEXTS if one[:1] < "\ud800")
    if "url" in key:
        yield from NO_URLS
    if dict in its:
        yield from ("no table", ["list"])
        values = typing.get_args(kind.model_fields[key].annotation)[1]
        if values is float:
            yield from ({"attempt_s": one} for one in (*ENDLESS, *HUGE, *TINY, -1, 1e-10, "soon"))
        yield from ({text: 1.0} for text in TEXTS)


def refused(kind: type[BaseModel], key: str, value: Any) -> str:
    """The line that a person reads; "" if the value is taken."""
    try:
        kind(**NEEDED.get(kind.__name__, {}) | {key: value})
    except ValidationError as error:
        return explain(error) or "nothing"
    return ""


@pytest.mark.parametrize(("kind", "key"), fields())
def test_no_setting_takes_what_nobody_can_mean(kind, key):
    """One line that names the setting and says what to write; it never quotes a secret."""
    taken = []
    for value in bad(kind, key):
        line = refused(kind, key, value)
        if not line:
            taken.append(value)
            continue
        assert key in line, line
        assert line.isprintable(), line
        assert "secret" not in line.replace(key, "") or "secret" in kind.__name__
        assert "Value error" not in line
    assert [] == taken


@pytest.mark.parametrize(("kind", "key"), fields())
def test_the_environment_is_held_to_the_same(kind, key, monkeypatch):
    """As text, which is all that a variable has."""
    if not issubclass(kind, BaseSettings):
        pytest.skip("has no variable of its own")
    taken = []
    for value in bad(kind, key):
        text = str(value)
        if isinstance(value, dict | list) or "\0" in text or "\ud800" in text:
            continue  # no variable can hold them
        monkeypatch.setenv(variable(kind, key), text)
        try:
            kind()
        except Exception as error:
            assert key.upper() in str(error).upper() or key in str(error)
        else:
            taken.append(value)
    assert [] == taken


@pytest.mark.parametrize(("kind", "key"), fields())
def test_defaults_pass_their_own_checks(kind, key):
    """What a person writes out is the same as what is left out."""
    field = kind.model_fields[key]
    if field.is_required():
        return
    default = field.get_default(call_default_factory=True)
    given = {"command": "b"} if kind is AgentSection and key == "run" else {}
    made = kind(**NEEDED.get(kind.__name__, {}) | given | {key: default})
    assert default == getattr(made, key)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"learning_rate": 2}, "learning_rate"),
        ({"kl": 1e9}, "kl"),
        ({"weight_decay": 1e9}, "weight_decay"),
        ({"tis": 1e-9}, "tis"),
        ({"tis": 5e-324}, "tis"),
        ({"temperature": 1e308}, "temperature"),
        ({"temperature": 101}, "temperature"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**70}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"adam_beta2": 1e-300}, "adam_beta2"),
        ({"adam_beta2": math.nextafter(1, 0)}, "adam_beta2"),
        ({"learning_rate": 1, "weight_decay": 1}, "weight_decay"),
    ],
)
def test_numbers_that_ruin_a_run_are_refused_before_it(given, says):
    """Not after the model has been blamed for them."""
    with pytest.raises(ValidationError) as caught:
        TrainerSettings(**given)
    assert says in (explain(caught.value) or "")


@pytest.mark.parametrize(
    ("servers", "kept"),
    [
        ("a:9092", "a:9092"),
        ("a:9092, b:9093 ,a:9092", "a:9092,b:9093"),
        ("[::1]:9092", "[::1]:9092"),
        ("broker", "broker"),
    ],
)
def test_brokers_are_taken_as_people_write_them(servers, kept):
    """Each once."""
    kafka = KINDS["kafka"].settings()
    assert kept == kafka(bootstrap_servers=servers).bootstrap_servers


@pytest.mark.parametrize(
    "servers",
    ["http://a:9092", "PLAINTEXT://a:9092", "a:99999", "a:0", "a:port", "me:secret@a:1", ":9092",
     "a:9092/", "a b:9092", ",", "a:1:2"],
)  # fmt: skip
def test_brokers_that_are_none_are_one_line(servers):
    """It says how they are written."""
    line = refused(KINDS["kafka"].settings(), "bootstrap_servers", servers)
    assert "host:port" in line
    assert "secret" not in line


NAMES = [
    ("agents", "name", ["", "a b", "a.b", "ä", "-a", "a" * 64, "a/b"]),
    ("agents", "instance", ["a b", "ä", "a/b", "a" * 250, ".."]),
    ("dispatch", "instance", ["a b", "a/b"]),
    ("streams", "instance", ["a b", "a/b"]),
    ("kafka", "topic_prefix", ["a b", "ä.", "a/b", "a" * 150]),
    ("proxy", "side_call_header", ["X Side", "X:Side", "ä", "X-Side:", "a" * 300]),
    ("proxy", "policy", [" ", "p" * 300]),
    ("agents", "policy", [" ", "p" * 300]),
]


@pytest.mark.parametrize(
    ("section", "key", "value"), [(s, k, value) for s, k, values in NAMES for value in values]
)
def test_a_name_that_kafka_or_http_would_refuse_is_refused_at_start(section, key, value):
    """The line says what a name may be."""
    line = refused(KINDS[section].settings(), key, value)
    assert key in line


TOML = [
    ("[proxy]\ntemperature = 0.7\n[trainer]\ntemperature = 0.5\n", "proxy.temperature"),
    ("[trainer]\ntemperature = 0.5\n", "proxy.temperature"),
    ('[engine]\nvllm = "p"\nvllm_flags = "--a \'b"\n', "vllm_flags"),
    ('[engine]\nurl = "http://a:1,http://b:2,x"\n', "engine.url"),
]


@pytest.mark.parametrize(("text", "says"), TOML)
def test_a_projects_file_is_held_to_the_same(tmp_path, text, says):
    """`odradek config` says it, too."""
    (tmp_path / "odradek.toml").write_text(text)
    with pytest.raises(ProjectError, match=says):
        load(tmp_path, {})


@pytest.mark.parametrize(
    "text",
    [
        "[proxy]\ntemperature = 0.7\n",
        "[proxy]\ntemperature = 0.7\n[trainer]\ntemperature = 0.7\n",
        "[trainer]\ntemperature = 1.0\n",
    ],
)
def test_temperatures_that_agree_are_taken(tmp_path, text):
    """Or of which only the one is written that does something."""
    (tmp_path / "odradek.toml").write_text(text)
    load(tmp_path, {})
