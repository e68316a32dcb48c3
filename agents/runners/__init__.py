"""Runners: an async function, any program, or an A2A AgentExecutor. All become AgentExecutors."""

from odradek.agents.runners.executor import rollout_of
from odradek.agents.runners.function import FunctionRunner
from odradek.agents.runners.load import load
from odradek.agents.runners.program import ProgramRunner

__all__ = ["FunctionRunner", "ProgramRunner", "load", "rollout_of"]
