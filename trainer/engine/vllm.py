"""`odradek engine vllm`: the user's vLLM, in its own environment, started so that it can train."""

import asyncio
import contextlib
import itertools
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import requests

from odradek.infra.bus import BusSettings
from odradek.infra.runtime import process
from odradek.infra.runtime.environment import address
from odradek.schemas.events import Policy
from odradek.trainer.adapters.client import AdapterClient, AdapterTerms
from odradek.trainer.engine.policies import folder_of, is_adapter, newest_policy
from odradek.trainer.engine.settings import EngineSettings
from odradek.trainer.errors import BadSettings, EngineDown
from odradek.trainer.weights.engines import Engines
from odradek.trainer.weights.recognition import RecognizedEngine

log = logging.getLogger("odradek")

LOOK_S: Final = 1.0
TELL_S: Final = 10.0
LEAST: Final = (0, 30)
"""The first vLLM that has the flag --enable-scale-out."""
UNTAGGED: Final = "0.1.dev"
"""What setuptools-scm calls a build of a repository without tags."""
LOGPROBS: Final = "--logprobs-mode"
MAX_RANK: Final = "--max-lora-rank"
MAX_LORAS: Final = "--max-loras"
LORA_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for the highest rank."""
PROCESSED: Final = "processed_logprobs"
ASK: Final = "import vllm; print(getattr(vllm, '__version__', 'unknown'))"


def command_of(settings: EngineSettings, python: str, flags: Sequence[str]) -> list[str]:
    """The command line of vLLM's OpenAI server.

    `processed_logprobs`: log probabilities after the temperature, which are those of the
    distribution that was sampled from. `generation-config vllm`: no top_p or temperature of the
    model's own slips in. `enable-scale-out`: the token-exact routes.
    """
    defaults = {
        **_lora_flags(settings),
        "--model": settings.model,
        "--served-model-name": settings.name,
        "--host": settings.host,
        "--port": str(settings.port),
        "--dtype": settings.dtype,
        "--seed": str(settings.seed),
        LOGPROBS: PROCESSED,
        "--generation-config": "vllm",
    }
    named = {_name(flag) for flag in flags}
    pairs = [
        part for name, value in defaults.items() if name not in named for part in (name, value)
    ]
    return [
        python,
        "-m",
        "vllm.entrypoints.openai.api_server",
        *pairs,
        "--enable-scale-out",
        *(["--enable-lora"] if settings.lora_rank else []),
        *flags,
    ]


def _lora_flags(settings: EngineSettings) -> dict[str, str]:
    """What vLLM needs to be told of adapters, where the trainer sends some.

    While a new one is loaded, those of the last `max_staleness` + 1 versions are still asked for.
    """
    if not settings.lora_rank:
        return {}
    rank = next(rank for rank in LORA_RANKS if rank >= settings.lora_rank)
    return {MAX_RANK: str(rank), MAX_LORAS: str(settings.max_staleness + 2)}


def refuse_fewer_adapters(settings: EngineSettings, flags: Sequence[str]) -> None:
    """Raise BadSettings for flags of a person's that leave too little room for adapters."""
    needed = _lora_flags(settings)
    parts = [part for flag in flags for part in flag.split("=", maxsplit=1)]
    for flag, value in itertools.pairwise(parts):
        least = needed.get(_name(flag))
        if least is not None and value.isdecimal() and int(value) < int(least):
            raise BadSettings(
                f"{flag} {value} is below {least}, which lora_rank ({settings.lora_rank}) and "
                f"max_staleness ({settings.max_staleness}) of the trainer need: leave it out"
            )


def refuse_flags(flags: Sequence[str]) -> None:
    """Raise BadSettings for flags of a person's that training cannot live with."""
    parts = [part for flag in flags for part in flag.split("=", maxsplit=1)]
    for flag, value in itertools.zip_longest(parts, parts[1:]):
        if _name(flag) == LOGPROBS and value != PROCESSED:
            raise BadSettings(
                f"{flag} {value} tells log probabilities of another distribution than the one that "
                f"is sampled from: leave it out, and {PROCESSED} is given"
            )


def _name(flag: str) -> str:
    """A flag as vLLM knows it: it takes underscores for dashes, and a value behind `=`."""
    return flag.partition("=")[0].replace("_", "-")


def refuse_version(version: str, python: str) -> None:
    """Raise BadSettings for a vLLM that lacks what training needs.

    A build from source without tags has no version that says anything: it is tried.
    """
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None or version.startswith(UNTAGGED):
        log.warning("vLLM of %s does not say its version (%s): it is tried", python, version)
    elif (int(match[1]), int(match[2])) < LEAST:
        least = ".".join(str(part) for part in LEAST)
        raise BadSettings(
            f"{python} has vLLM {version}, and training needs {least} or later (its token-exact "
            f"routes): {python} -m pip install --upgrade 'vllm>={least}'"
        )


def environment(*, adapters: bool = False) -> dict[str, str]:
    """This process' variables without its Python's paths, plus what opens the weight routes."""
    opened = {"VLLM_SERVER_DEV_MODE": "1"}
    if adapters:
        opened["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return variables | opened


def run(settings: EngineSettings, bus: BusSettings, *, python: str, flags: Sequence[str]) -> None:
    """Start vLLM, wait until it serves, stay with it until SIGTERM.

    Raises:
        BadSettings: No model, no such Python, a Python without vLLM or with an old one, or a flag
            that training cannot live with.
        EngineDown: It ended by itself, or was not ready in time.
    """
    if not settings.model:
        raise BadSettings("no model is named: give --model")
    refuse_flags(flags)
    refuse_fewer_adapters(settings, flags)
    executable = shutil.which(python)
    if executable is None:
        raise BadSettings(f"there is no {python}: name the Python of vLLM's environment")
    probe = subprocess.run(
        [executable, "-c", ASK], capture_output=True, text=True, env=environment(), check=False
    )
    if probe.returncode:
        raise BadSettings(
            f"{python} has no vLLM: make an environment of its own (python -m venv vllm && "
            "vllm/bin/pip install 'vllm>=0.30') and name its Python with --python"
        )
    refuse_version(probe.stdout.strip().rpartition("\n")[2], python)
    if settings.policy and not bus.bootstrap_servers:
        log.warning(
            "no Kafka is named (ODRADEK_KAFKA_BOOTSTRAP_SERVERS): a restarted engine begins with "
            "the weights of its folder, not with the newest of policy %r",
            settings.policy,
        )
    child = subprocess.Popen(
        command_of(settings, executable, flags),
        env=environment(adapters=settings.lora_rank > 0),
        start_new_session=True,
    )
    process.on_signals(lambda: _end(child))
    url = address(settings.host, settings.port)
    try:
        wait(url, child, settings.ready_s)
        if settings.policy and bus.bootstrap_servers:
            _newest(settings, bus, url)
        process.say_ready(f"engine on {url}/v1 (vLLM)")
        code = child.wait()
    finally:
        _end(child)
    if code and code not in {-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM}:
        raise EngineDown(f"vLLM ended with exit code {code}: its own lines above say why")


def wait(url: str, child: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Wait until /health answers, with a line of progress. Raises EngineDown."""
    began = logged = time.monotonic()
    session = requests.Session()
    session.trust_env = False  # the engine is ours: no proxy of the environment between
    while True:
        if child.poll() is not None:
            raise EngineDown(
                f"vLLM ended with exit code {child.returncode} before it served: its own lines "
                "above say why"
            )
        with contextlib.suppress(requests.RequestException):
            if session.get(url + "/health", timeout=5).ok:
                return
        now = time.monotonic()
        if now - began > seconds:
            raise EngineDown(f"vLLM did not serve within {seconds:g} s (ODRADEK_ENGINE_READY_S)")
        if now - logged > TELL_S:
            logged = now
            log.info("waiting for vLLM: %.0f s", now - began)
        time.sleep(LOOK_S)


def _newest(settings: EngineSettings, bus: BusSettings, url: str) -> None:
    """Load what the policy's trainer announced last: a restarted engine begins where it was."""
    policy = asyncio.run(newest_policy(bus, settings.policy))
    if policy is not None:
        folder: Path = folder_of(policy)
        client = partial(RecognizedEngine, through=_through(settings, policy))
        engines = Engines([url], client=client)
        engines.swap(folder, policy.version)
        engines.close()
        log.info("serving version %d, from the log", policy.version)


def _through(settings: EngineSettings, policy: Policy) -> Callable[..., AdapterClient] | None:
    """What loads a policy's adapter; None where it is whole weights.

    Raises BadSettings where an adapter is to be loaded by an engine that was started for none.
    """
    if not is_adapter(policy):
        return None
    if not settings.lora_rank:
        raise BadSettings(
            f"policy {policy.name} is an adapter, and vLLM was started for none: set "
            "ODRADEK_TRAINER_LORA_RANK as the trainer has it"
        )
    terms = AdapterTerms(policy.name, settings.lora_rank, settings.max_staleness + 1)
    return partial(AdapterClient, terms=terms)


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End vLLM and its workers: the whole process group."""
    if child.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(timeout=20)
    except subprocess.TimeoutExpired:
        sys.stderr.write("vLLM does not end: killing it\n")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
