"""Any program as an agent: it is told where its model is, and where its task is."""

import asyncio
import contextlib
import logging
import os
import shlex
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec
from a2a.server.agent_execution import AgentExecutor

from odradek.agents.errors import RunnerError
from odradek.agents.rollout import Rollout
from odradek.agents.runners.executor import rollout_of
from odradek.agents.verdict import Ended, judge_exit
from odradek.schemas.events import Outcome

logger = logging.getLogger("odradek.agents")

TASK_FILE: Final = "task.json"
REWARD_FILE: Final = "reward.json"
TAIL: Final = 400
"""How much of what a program wrote to stderr is told when it fails, in characters."""
LARGEST_REWARDS: Final = 64 * 1024
SECRET: Final = ("ODRADEK_", "OPENAI_", "ANTHROPIC_")
"""Variables of the host that programs do not inherit: its keys would open every episode."""


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
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith(SECRET)
        }

    async def execute(self, context: Any, event_queue: Any) -> None:
        """See the SDK. Raises Ended with what the exit code says."""
        del event_queue
        rollout = rollout_of(context)
        folder = Path(tempfile.mkdtemp(prefix="odradek-"))
        try:
            code = await self._run(rollout, folder)
            if code == 0:
                _collect(rollout, folder / REWARD_FILE)
            verdict = judge_exit(code, _tail(folder.with_suffix(".err")) if code else "")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            folder.with_suffix(".err").unlink(missing_ok=True)
        if verdict.outcome is not Outcome.COMPLETED:
            raise Ended(verdict)

    async def cancel(self, context: Any, event_queue: Any) -> None:
        """See the SDK. The host cancels what `execute` awaits, which kills the process group."""

    async def _run(self, rollout: Rollout, folder: Path) -> int:
        task_file = folder / TASK_FILE
        task_file.write_bytes(msgspec.json.encode(rollout.task.input))
        with folder.with_suffix(".err").open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *(word.replace("{task_file}", str(task_file)) for word in self._words),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=errors,
                cwd=folder,
                env=self._environment | _told(rollout, folder),
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


def _told(rollout: Rollout, folder: Path) -> dict[str, str]:
    """The variables from which a program knows its model and its task."""
    told = {
        "OPENAI_BASE_URL": rollout.base_url,
        "OPENAI_API_BASE": rollout.base_url,
        "OPENAI_API_KEY": rollout.api_key,
        "OPENAI_MODEL": rollout.model,
        "ANTHROPIC_BASE_URL": rollout.base_url.removesuffix("/v1"),
        "ANTHROPIC_API_KEY": rollout.api_key,
        "ODRADEK_EPISODE_ID": rollout.episode_id,
        "ODRADEK_MODEL": rollout.model,
        "ODRADEK_TASK_FILE": str(folder / TASK_FILE),
        "ODRADEK_REWARD_FILE": str(folder / REWARD_FILE),
        "TMPDIR": str(folder),
    }
    if rollout.traceparent:
        told["TRACEPARENT"] = rollout.traceparent
    return told


def _collect(rollout: Rollout, path: Path) -> None:
    """Take rewards from the file in which a program may have left them, by component."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_REWARDS:
            return
        given = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        kind = type(error).__name__
        logger.warning("run %s: %s cannot be read: %s", rollout.episode_id, REWARD_FILE, kind)
        rollout.reward(REWARD_FILE, _unreadable(str(error)))
        return
    for component, value in given.items():
        try:
            rollout.reward(component, value)
        except (TypeError, ValueError) as error:
            rollout.reward(component or REWARD_FILE, _unreadable(str(error)))


def _unreadable(told: str) -> Any:
    """A reward that is none: asked for its value, it says what is wrong with it."""

    def value() -> float:
        raise ValueError(told)

    return value


def _tail(path: Path) -> str:
    """The end of what a program wrote to stderr."""
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - 4 * TAIL, 0))
            return file.read().decode(errors="replace").strip()[-TAIL:]
    except OSError:
        return ""
