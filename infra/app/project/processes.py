"""A project's processes: commands, environments, and their order of start."""

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from odradek.infra.app.project.project import Project
from odradek.infra.app.supervisor import Spec
from odradek.schemas.topics import MIXED
from odradek.streams.stages import STAGES

HOST: Final = "127.0.0.1"
POLICY: Final = "policy"
BATCHES_TOPIC: Final = "ODRADEK_TRAINER_BATCHES_TOPIC"
SIGNING_KEY: Final = "ODRADEK_TRUST_SIGNING_KEY"
LEAST_GRACE_S: Final = 10.0
MARGIN_S: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class RunAddresses:
    """Where things are in this run."""

    bootstrap_servers: str
    token_keys: str
    proxy_port: int
    engine_port: int
    model: str
    """Folder or name of the model to begin with."""
    request_keys: Mapping[str, str] = field(default_factory=dict)
    """Variables of the keys by which requests to agents are signed, where they are."""

    @property
    def proxy_url(self) -> str:
        """Where agents reach the proxy."""
        return f"http://{HOST}:{self.proxy_port}"


def odradek(*arguments: str) -> tuple[str, ...]:
    """The command line of a verb, in this very environment."""
    return (sys.executable, "-m", "odradek.infra.app.cli", *arguments)


def grace_of(project: Project) -> float:
    """Seconds that processes get to end, above what any of them may take by its own settings."""
    own = [value.value for _, entry in project.agents for value in entry.values
           if value.key == "grace_s"]  # fmt: skip
    longest: float = max(own, default=0.0)
    return max(LEAST_GRACE_S, longest + MARGIN_S)


def engine_url(project: Project, places: RunAddresses) -> str:
    """Where the engine is: the project's own, or the one that we start."""
    own_url = project.engine.url.rstrip("/").removesuffix("/v1")
    return own_url or f"http://{HOST}:{places.engine_port}"


def common(project: Project, places: RunAddresses) -> dict[str, str]:
    """The variables of every process."""
    return {
        **project.environment("kafka"),
        "ODRADEK_KAFKA_BOOTSTRAP_SERVERS": places.bootstrap_servers,
        "ODRADEK_TOKEN_KEYS": places.token_keys,
        "ODRADEK_PROXY_URL": places.proxy_url,
        "ODRADEK_ENGINE_URL": engine_url(project, places),
        "ODRADEK_POLICY": os.environ.get("ODRADEK_POLICY") or POLICY,
        "ODRADEK_MAX_ATTEMPTS": str(project.value("dispatch", "max_attempts")),
        # `python` in an agent's command is the one that runs us.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        # Agents' code may be anybody's: it verifies requests, and signs none.
        **{name: path for name, path in places.request_keys.items() if name != SIGNING_KEY},
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def specs(project: Project, places: RunAddresses) -> list[Spec]:
    """Every process that the project names."""
    base = common(project, places)
    processes = [] if project.engine.url else [_engine(project, places, base)]
    processes += [_proxy(project, places, base, after=tuple(spec.name for spec in processes))]
    processes += _streams(project, base)
    processes += _agents(project, base)
    processes += _rewards(project, base)
    trains = "trainer" in project.written
    if trains and "sampler" in project.written:
        processes.append(_sampler(project, base))
    if trains:
        processes.append(_trainer(project, places, base))
        processes += _followers(project, places, base)
    processes.append(
        Spec(
            name="dispatcher",
            command=odradek("dispatch", *([] if trains else ["--no-trainer"])),
            env={
                **base,
                **project.environment("dispatch"),
                **places.request_keys,
                "ODRADEK_INSTANCE": "dispatcher",
            },
            cwd=project.folder,
        )
    )
    return processes


def _engine(project: Project, places: RunAddresses, base: dict[str, str]) -> Spec:
    vllm = project.engine.vllm
    flags = shlex.split(project.engine.vllm_flags)
    arguments = ("vllm", "--python", vllm, *flags) if vllm else ("serve",)
    return Spec(
        name="engine",
        command=odradek("engine", *arguments),
        env={
            **base,
            **project.environment("engine"),
            "ODRADEK_TRAINER_LORA_RANK": str(project.value("trainer", "lora_rank")),
            "ODRADEK_TRAINER_MAX_STALENESS": str(project.value("trainer", "max_staleness")),
            "ODRADEK_ENGINE_MODEL": places.model,
            "ODRADEK_ENGINE_HOST": HOST,
            "ODRADEK_ENGINE_PORT": str(places.engine_port),
        },
        cwd=project.folder,
        health=f"http://{HOST}:{places.engine_port}/health",
        ready_s=float(project.value("engine", "ready_s")) if vllm else 120.0,
    )


def _proxy(
    project: Project, places: RunAddresses, base: dict[str, str], after: tuple[str, ...]
) -> Spec:
    return Spec(
        name="proxy",
        command=odradek("proxy"),
        env={
            **base,
            **project.environment("proxy"),
            "ODRADEK_PROXY_HOST": HOST,
            "ODRADEK_PROXY_PORT": str(places.proxy_port),
        },
        cwd=project.folder,
        after=after,
        health=f"{places.proxy_url}/healthz",
    )


def _streams(project: Project, base: dict[str, str]) -> list[Spec]:
    env = {**base, **project.environment("streams")}
    return [
        Spec(
            name=stage.process,
            command=odradek(verb),
            env={**env, "ODRADEK_INSTANCE": stage.process},
            cwd=project.folder,
        )
        for verb, stage in STAGES.items()
    ]


def _agents(project: Project, base: dict[str, str]) -> list[Spec]:
    hosts = []
    for agent, entry in project.agents:
        source: tuple[str, ...] = (agent.run,)
        if agent.command:
            source = ("--command", agent.command)
        elif agent.harness:
            source = ("--harness", agent.harness)
        elif agent.a2a_url:
            source = ("--a2a-url", agent.a2a_url)
        for number in range(agent.replicas):
            name = f"agent-{agent.name}" + (f"-{number}" if agent.replicas > 1 else "")
            hosts.append(
                Spec(
                    name=name,
                    command=odradek("agent", *source, "--name", agent.name),
                    env={**base, **entry.environment(), "ODRADEK_INSTANCE": name},
                    cwd=project.folder,
                    after=("proxy",),
                )
            )
    return hosts


def _rewards(project: Project, base: dict[str, str]) -> list[Spec]:
    return [
        Spec(
            name=f"reward-{reward.component}",
            command=odradek("reward", reward.run, "--component", reward.component),
            env={**base, **project.environment("streams"), **entry.environment()},
            cwd=project.folder,
        )
        for reward, entry in project.rewards
    ]


def _sampler(project: Project, base: dict[str, str]) -> Spec:
    return Spec(
        name="sampler",
        command=odradek("sample"),
        env={**base, **project.environment("sampler")},
        cwd=project.folder,
    )


def _trainer(project: Project, places: RunAddresses, base: dict[str, str]) -> Spec:
    own = {
        **project.environment("trainer"),
        "ODRADEK_TRAINER_OUTPUT_DIR": str(project.work / "runs" / "policy"),
    }
    return _training(project, places, "trainer", {**base, **own})


def _followers(project: Project, places: RunAddresses, base: dict[str, str]) -> list[Spec]:
    """The trainers of `[[trainers]]`, which read what the agents of the leader's weights play."""
    found = []
    for follower, entry in project.followers:
        name = f"trainer-{follower.name}"
        own = {
            **entry.environment(),
            "ODRADEK_TRAINER_RUN": follower.name,
            "ODRADEK_TRAINER_LEADS": "false",
            "ODRADEK_TRAINER_SAMPLED_BY": str(project.value("trainer", "run")),
            "ODRADEK_TRAINER_OUTPUT_DIR": str(project.work / "runs" / name),
        }
        found.append(_training(project, places, name, {**base, **own}))
    return found


def _training(project: Project, places: RunAddresses, name: str, own: dict[str, str]) -> Spec:
    return Spec(
        name=name,
        command=odradek("train"),
        env={
            **own,
            "ODRADEK_TRAINER_MODEL": places.model,
            **_success(project),
            **({BATCHES_TOPIC: MIXED.name} if "sampler" in project.written else {}),
        },
        cwd=project.folder,
        # By itself it waits for an engine for two minutes; vLLM may take longer to load a model.
        after=("engine",) if project.engine.vllm and not project.engine.url else (),
        finishes=True,
    )


def _success(project: Project) -> dict[str, str]:
    """The reward of a success, where the evaluation tells success by the whole reward, too."""
    if project.evaluation.component or "evaluation" not in project.written:
        return {}
    return {"ODRADEK_TRAINER_SUCCESS_REWARD": str(project.evaluation.success)}


def shown(spec: Spec) -> str:
    """A process' command line, for people."""
    return shlex.join(spec.command)
