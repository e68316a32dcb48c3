"""From `module:attribute`, a command or a harness to an AgentExecutor."""

import inspect
from typing import Any

from a2a.server.agent_execution import AgentExecutor

from odradek.agents.errors import RunnerError
from odradek.agents.runners.function import FunctionRunner
from odradek.agents.runners.harness import HarnessRunner
from odradek.agents.runners.http import HttpRunner
from odradek.agents.runners.program import ProgramRunner
from odradek.infra.runtime.imports import find


def load(
    target: str | None,
    command: str | None,
    harness: str | None = None,
    a2a_url: str | None = None,
) -> AgentExecutor:
    """The agent that a person named.

    Args:
        target: `module:function` or `module:Executor`; the module may stand in this folder.
        command: A program's command line, in place of a target.
        harness: A coding agent's name, in place of both.
        a2a_url: The address of an A2A agent behind HTTP, in place of all three.

    Raises:
        RunnerError: None or several are given, it is no agent, or its program is not there.
        NoSuchName: There is no such thing.
    """
    if [target, command, harness, a2a_url].count(None) != 3:
        raise RunnerError(
            "name either module:function, --command, --harness or --a2a-url, and only one"
        )
    if command is not None:
        return ProgramRunner(command)
    if harness is not None:
        return HarnessRunner(harness)
    if a2a_url is not None:
        return HttpRunner(a2a_url)
    assert target is not None
    return as_executor(find(target), target)


def as_executor(target: Any, name: str) -> AgentExecutor:
    """An AgentExecutor, its class, or an async function as an AgentExecutor."""
    if isinstance(target, AgentExecutor):
        return target
    if inspect.isclass(target) and issubclass(target, AgentExecutor):
        return target()
    call = target if inspect.isroutine(target) else getattr(target, "__call__", None)  # noqa: B004 - an object whose call is async
    if callable(target) and not inspect.isclass(target) and inspect.iscoroutinefunction(call):
        return FunctionRunner(target)
    raise RunnerError(
        f"{name} is neither an async function (async def play(rollout)) nor an A2A AgentExecutor"
    )
