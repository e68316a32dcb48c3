"""From `module:attribute`, or a command, to an AgentExecutor."""

import difflib
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

from a2a.server.agent_execution import AgentExecutor

from odradek.agents.errors import RunnerError
from odradek.agents.runners.function import FunctionRunner
from odradek.agents.runners.program import ProgramRunner


def load(target: str | None, command: str | None) -> AgentExecutor:
    """The agent that a person named.

    Args:
        target: `module:function` or `module:Executor`; the module may stand in this folder.
        command: A program's command line, in place of a target.

    Raises:
        RunnerError: There is no such thing, or it is no agent.
    """
    if (target is None) == (command is None):
        raise RunnerError("name either module:function or --command, not both")
    if command is not None:
        return ProgramRunner(command)
    assert target is not None
    return as_executor(_find(target), target)


def as_executor(found: Any, name: str) -> AgentExecutor:
    """An AgentExecutor, its class, or an async function as an AgentExecutor."""
    if isinstance(found, AgentExecutor):
        return found
    if inspect.isclass(found) and issubclass(found, AgentExecutor):
        return found()
    call = found if inspect.isroutine(found) else getattr(found, "__call__", None)  # noqa: B004
    if callable(found) and not inspect.isclass(found) and inspect.iscoroutinefunction(call):
        return FunctionRunner(found)
    raise RunnerError(
        f"{name} is neither an async function (async def play(rollout)) nor an A2A AgentExecutor"
    )


def _find(target: str) -> Any:
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise RunnerError(f"{target!r} is not of the form module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and module_name.split(".")[0] == error.name:
            raise RunnerError(f"there is no module {module_name!r} here ({here})") from None
        raise
    if not hasattr(module, attribute):
        near = difflib.get_close_matches(attribute, vars(module), n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise RunnerError(f"module {module_name} has no {attribute!r}{hint}")
    return getattr(module, attribute)
