"""The sections of odradek.toml: what each may hold, and whose settings it becomes."""

import importlib
import shlex
from dataclasses import dataclass
from typing import Any, Final

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings

from odradek.agents.harnesses import HARNESSES
from odradek.infra.errors import NoSuchName
from odradek.infra.runtime.addresses import root
from odradek.infra.runtime.imports import parts
from odradek.infra.runtime.settings import CheckedSettings
from odradek.schemas.topics import NAME


class Section(CheckedSettings):
    """Keys of a section that the project itself reads."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class EngineSection(Section):
    """`[engine]`: what answers the model calls."""

    model: str = ""
    """A folder or a Hugging Face name; or `tiny`: a model of 150,000 weights made on the spot."""
    url: str = ""
    """An engine that runs already, such as http://gpu-box:8000/v1; none is started then."""
    vllm: str = ""
    """Python of an environment that has vLLM, which serves the model then; else the small engine
    does."""
    vllm_flags: str = ""
    """Flags that vLLM gets as they are, such as "--max-model-len 4096"."""
    warm_up: str = ""
    """`module:function` that returns conversations to teach `tiny` the form of the task."""
    warm_up_steps: int = Field(default=40, ge=0)
    """Supervised steps of 32 conversations."""

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        return root(value) if value else value

    @field_validator("vllm_flags")
    @classmethod
    def _words(cls, value: str) -> str:
        try:
            shlex.split(value)
        except ValueError as error:
            raise ValueError(f"cannot be split into words: {error}") from None
        return value


class AgentSection(Section):
    """`[[agents]]`: a function, an A2A executor, a program, a coding agent or an agent at a URL."""

    name: str
    """Tasks ask for it by this name."""
    run: str = ""
    """`module:function` or `module:Executor`."""
    command: str = ""
    """A program, with `{task_file}` where it wants the task."""
    harness: str = ""
    """A coding agent: `claude-code`, `codex`, `opencode`, `qwen-code`, `pi` or `gemini-cli`."""
    a2a_url: str = ""
    """An A2A agent behind HTTP: where its card is."""
    replicas: int = Field(default=1, ge=1, le=64)
    """Host processes."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(
                f"{value!r} cannot name an agent: use up to 63 letters, digits, - and _"
            )
        return value

    @model_validator(mode="after")
    def _one_of_four(self) -> "AgentSection":
        if [self.run, self.command, self.harness, self.a2a_url].count("") != 3:
            raise ValueError("an agent has either `run`, `command`, `harness` or `a2a_url`")
        if self.harness and self.harness not in HARNESSES:
            raise ValueError(f"there is no harness {self.harness!r}: {', '.join(HARNESSES)}")
        return self


class RewardSection(Section):
    """`[[rewards]]`: a function over conversations."""

    component: str
    """The reward component that it judges."""
    run: str
    """`module:function`."""

    @field_validator("component")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(
                f"{value!r} cannot name a component: use up to 63 letters, digits, - and _"
            )
        return value

    @field_validator("run")
    @classmethod
    def _form(cls, value: str) -> str:
        try:
            parts(value)
        except NoSuchName as error:
            raise ValueError(str(error)) from None
        return value


class FollowerSection(Section):
    """`[[trainers]]`: a trainer beside the one of `[trainer]`, on the same batches."""

    name: str
    """Name of its run; its weights go by the policy's name, a dot and this one."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(
                f"{value!r} cannot name a trainer: use up to 63 letters, digits, - and _"
            )
        return value


class EvaluationSection(Section):
    """`[evaluation]`: tasks with `purpose: eval`, published again and again while it trains."""

    tasks: str = ""
    """A file of JSON lines; empty: no evaluation."""
    every: int = Field(default=10, ge=1)
    """Policy versions between two evaluations."""
    component: str = ""
    """The reward component that decides success; empty: the whole reward."""
    success: float = 1.0
    """The least value of a success."""


@dataclass(frozen=True)
class SectionKind:
    """The keys of a section: the project's own, and settings of a process."""

    own: type[Section] | None = None
    module: str = ""
    name: str = ""
    many: bool = False
    """Written as `[[section]]`."""
    withheld: frozenset[str] = frozenset()
    """Settings that `odradek up` decides, so that the file cannot."""
    base: str = ""
    """Section whose keys hold where this one has none of its own."""

    def settings(self) -> type[BaseSettings] | None:
        """The settings class of the process; imported when asked for."""
        if not self.module:
            return None
        settings_class: type[BaseSettings] = getattr(
            importlib.import_module(self.module), self.name
        )
        return settings_class

    def own_keys(self) -> set[str]:
        """Keys that the project itself reads."""
        return set(self.own.model_fields) if self.own else set()

    def process_keys(self) -> set[str]:
        """Keys that become a process' settings."""
        settings = self.settings()
        return set(settings.model_fields) - self.withheld - self.own_keys() if settings else set()

    def keys(self) -> set[str]:
        """All keys."""
        return self.own_keys() | self.process_keys()


OF_A_RUN: Final = frozenset(
    {
        "model",
        "engine_urls",
        "batches_topic",
        "replay_of",
        "sampled_by",
        "until_end",
        "output_dir",
        "policy",
        "success_reward",
    }
)
"""Settings of a trainer that follow from the rest of a project."""

KINDS: Final[dict[str, SectionKind]] = {
    "kafka": SectionKind(module="odradek.infra.bus", name="BusSettings"),
    "engine": SectionKind(
        own=EngineSection,
        module="odradek.trainer.engine.settings",
        name="EngineSettings",
        withheld=frozenset({"host", "port", "policy", "lora_rank", "max_staleness"}),
    ),
    "proxy": SectionKind(
        module="odradek.proxy.settings",
        name="ProxySettings",
        withheld=frozenset({"host", "engine_url", "policy"}),
    ),
    "agents": SectionKind(
        own=AgentSection,
        module="odradek.agents.settings",
        name="AgentSettings",
        many=True,
        withheld=frozenset(
            {"instance", "proxy_url", "policy", "max_attempts", "training", "idempotent"}
        ),
    ),
    "rewards": SectionKind(own=RewardSection, many=True),
    "dispatch": SectionKind(
        module="odradek.agents.settings",
        name="DispatchSettings",
        withheld=frozenset({"instance"}),
    ),
    "streams": SectionKind(
        module="odradek.streams.settings",
        name="StreamsSettings",
        withheld=frozenset({"instance", "max_attempts"}),
    ),
    "sampler": SectionKind(module="odradek.streams.sampler.settings", name="SamplerSettings"),
    "trainer": SectionKind(
        module="odradek.trainer.settings",
        name="TrainerSettings",
        withheld=OF_A_RUN,
    ),
    "trainers": SectionKind(
        own=FollowerSection,
        module="odradek.trainer.settings",
        name="TrainerSettings",
        many=True,
        withheld=OF_A_RUN | {"run", "leads"},
        base="trainer",
    ),
    "evaluation": SectionKind(own=EvaluationSection),
}
"""The sections, in the order in which `odradek config` prints them."""


def variable(settings: type[BaseSettings], key: str) -> str:
    """The environment variable of a setting."""
    alias = settings.model_fields[key].validation_alias
    if isinstance(alias, AliasChoices):
        return next(str(choice) for choice in alias.choices if str(choice).isupper())
    if isinstance(alias, str):
        return alias
    return f"{settings.model_config.get('env_prefix', '')}{key}".upper()


def secret(settings: type[BaseModel], key: str) -> bool:
    """Whether a setting must not be printed."""
    return "SecretStr" in str(settings.model_fields[key].annotation)


def plain(value: Any) -> Any:
    """A setting's value with secrets masked."""
    return "********" if isinstance(value, SecretStr) and value.get_secret_value() else value
