"""Any program as an agent: its variables say where its model is, and where its task is."""

import asyncio
import contextlib
import logging
import os
import shlex
import shutil
import signal
import tempfile
from codecs import BOM_UTF8
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from a2a.server.agent_execution import AgentExecutor

from odradek.agents.attempt.attempt import Ending
from odradek.agents.attempt.outcome import RunnerEnded, judge_exit
from odradek.agents.binding.requests import LARGEST
from odradek.agents.errors import RunnerError
from odradek.agents.rollout import Rollout
from odradek.agents.runners.door import open_door
from odradek.agents.runners.executor import complete, rollout_of
from odradek.agents.runners.variables import PRIVATE, episode_variables
from odradek.infra.runtime.environment import direct
from odradek.schemas.events import Outcome

logger = logging.getLogger("odradek.agents")

TASK_FILE: Final = "task.json"
REWARD_FILE: Final = "reward.json"
REPLY_FILE: Final = "reply.json"
TAIL: Final = 400
"""How much of a failed program's stderr is reported, in characters."""
LARGEST_REWARDS: Final = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How a program is started for one run."""

    words: Sequence[str]
    cwd: Path
    variables: dict[str, str] = field(default_factory=dict)
    """Set on top of what the program inherits from the host."""
    stdin: Path = Path(os.devnull)
    speaks: bool = False
    """Whether what it prints counts as what it writes to stderr: some tell of errors there."""
    rewards: Path | None = None
    """Where it may leave rewards; None: it is not asked for any."""
    reply: Path | None = None
    """Where it may leave its answer; None: it gives none, and asks no other agent."""


class ProgramRunner(AgentExecutor):
    """Starts the program in a session and a folder of its own, and leaves nothing of it behind.

    Args:
        command: Split like a shell would, but no shell runs. `{task_file}` is replaced, and words
            that name files here become absolute, since the program runs in another folder.
    """

    def __init__(self, command: str) -> None:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise RunnerError(f"the command cannot be split into words: {error}") from None
        if not words:
            raise RunnerError("the command is empty")
        program = shutil.which(words[0])
        if program is None:
            raise RunnerError(f"there is no program {words[0]!r}")
        here = Path.cwd()
        self._words = [str(Path(program).absolute())] + [
            str(here / word) if (here / word).is_file() else word for word in words[1:]
        ]
        self._environment = inherited()

    async def execute(self, context: Any, event_queue: Any) -> None:
        """See the SDK. Raises RunnerEnded with what the exit code says."""
        rollout = rollout_of(context)
        folder = Path(tempfile.mkdtemp(prefix="odradek-"))
        errors = folder.with_suffix(".err")
        try:
            launch = self.launch(rollout, folder)
            async with AsyncExitStack() as stack:
                if launch.reply is not None:
                    launch.variables["ODRADEK_ASK_URL"] = await stack.enter_async_context(
                        open_door(rollout)
                    )
                code = await self._run(launch, errors)
            if code == 0 and launch.rewards is not None:
                _collect(rollout, launch.rewards)
            if code == 0 and launch.reply is not None and launch.reply.is_file():
                await complete(context, event_queue, _answer(launch.reply))
            verdict = judge_exit(code, _tail(errors) if code else "")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            errors.unlink(missing_ok=True)
        if verdict.outcome is not Outcome.COMPLETED:
            raise RunnerEnded(verdict)

    async def cancel(self, context: Any, event_queue: Any) -> None:
        """See the SDK. The host cancels what `execute` awaits, which kills the process group."""

    def launch(self, rollout: Rollout, folder: Path) -> Launch:
        """How the program is started for this run, in a folder of its own that lies empty."""
        task_file, reward_file = folder / TASK_FILE, folder / REWARD_FILE
        reply_file = folder / REPLY_FILE
        task_file.write_bytes(msgspec.json.encode(rollout.task.input))
        return Launch(
            words=[word.replace("{task_file}", str(task_file)) for word in self._words],
            cwd=folder,
            variables=variables(rollout)
            | self._past(rollout)
            | {
                "ODRADEK_TASK_FILE": str(task_file),
                "ODRADEK_REWARD_FILE": str(reward_file),
                "ODRADEK_REPLY_FILE": str(reply_file),
                "TMPDIR": str(folder),
            },
            rewards=reward_file,
            reply=reply_file,
        )

    def _past(self, rollout: Rollout) -> dict[str, str]:
        """Variables that lead a program straight to our proxy, past any HTTP proxy of its host."""
        return direct(self._environment, rollout.base_url)

    async def _run(self, launch: Launch, errors: Path) -> int:
        with errors.open("wb") as stderr, launch.stdin.open("rb") as stdin:
            process = await asyncio.create_subprocess_exec(
                *launch.words,
                stdin=stdin,
                stdout=stderr if launch.speaks else asyncio.subprocess.DEVNULL,
                stderr=stderr,
                cwd=launch.cwd,
                env={**self._environment, **launch.variables},
                start_new_session=True,
            )
        try:
            return await process.wait()
        finally:
            # The group is killed however the program ended: what it started may still run.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            if process.returncode is None:
                await process.wait()


def inherited(without: Iterable[str] = ()) -> dict[str, str]:
    """The host's environment, without secrets and without names that begin with `without`."""
    hidden = (*PRIVATE, *without)
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden)}


def variables(rollout: Rollout) -> dict[str, str]:
    """The variables from which a program knows its model and its episode."""
    environment = episode_variables(
        rollout.episode_id, rollout.base_url.removesuffix("/v1"), rollout.api_key, rollout.model
    )
    if rollout.traceparent:
        environment["TRACEPARENT"] = rollout.traceparent
    return environment


def _collect(rollout: Rollout, path: Path) -> None:
    """Take rewards from the file in which a program may have left them, by component."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_REWARDS:
            return
        text = path.read_bytes().removeprefix(BOM_UTF8)
        rewards = msgspec.json.decode(text, type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        kind = type(error).__name__
        logger.warning("run %s: %s cannot be read: %s", rollout.episode_id, REWARD_FILE, kind)
        rollout.reward(REWARD_FILE, _unreadable(str(error)))
        return
    for component, value in rewards.items():
        try:
            rollout.reward(component, value)
        except (TypeError, ValueError) as error:
            rollout.reward(component or REWARD_FILE, _unreadable(str(error)))


def _answer(path: Path) -> Any:
    """What a program left as its answer, as JSON. Raises RunnerEnded where it is none."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(LARGEST).removeprefix(BOM_UTF8))
    except (OSError, ValueError) as error:
        why = f"{REPLY_FILE} cannot be read: {error}"
        raise RunnerEnded(Ending(outcome=Outcome.FAILED, error=why)) from None


def _unreadable(text: str) -> Any:
    """A reward function that raises: its error says what is wrong with the file."""

    def value() -> float:
        raise ValueError(text)

    return value


def _tail(path: Path) -> str:
    """The end of what a program wrote to stderr."""
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - 4 * TAIL, 0))
            return file.read().decode(errors="replace").strip()[-TAIL:]
    except OSError:
        return ""
