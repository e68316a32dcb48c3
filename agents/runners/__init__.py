"""Runners: a function, any program, a coding agent, an A2A agent behind HTTP or an AgentExecutor.

All become the last. `relay` passes on what an agent behind HTTP says.
"""

from odradek.agents.runners.executor import rollout_of
from odradek.agents.runners.function import FunctionRunner
from odradek.agents.runners.harness import HarnessRunner
from odradek.agents.runners.load import load
from odradek.agents.runners.program import ProgramRunner

__all__ = ["FunctionRunner", "HarnessRunner", "ProgramRunner", "load", "rollout_of"]
