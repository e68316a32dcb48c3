"""A harness describes one coding agent: its program, and how a run is set up."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from odradek.agents.errors import RunnerError

PROMPT: Final = "prompt"
"""The key of a task's input that holds the prompt, where the input is an object."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """Where the model of a run is."""

    root: str
    """The episode's address at the proxy, without `/v1`."""
    key: str
    """The episode's token."""
    name: str


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One run of a coding agent; its prompt comes on stdin."""

    arguments: tuple[str, ...]
    variables: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    """Path below the home folder: text."""


@dataclass(frozen=True, kw_only=True)
class Harness:
    """One coding agent.

    Attributes:
        name: As `odradek agent --harness` has it.
        program: What is started.
        install: The command that installs it.
        owns: Beginnings of variables that it reads; it inherits none of them from the host.
        prepare: The model and the run's home folder to a Setup. No I/O.
    """

    name: str
    program: str
    install: str
    owns: tuple[str, ...]
    prepare: Callable[[Model, Path], Setup]


def prompt_of(task_input: Any) -> str:
    """A task's input as a prompt: text, an object's `prompt`, or anything else as JSON.

    Raises:
        RunnerError: There is nothing to prompt with.
    """
    content = task_input.get(PROMPT, task_input) if isinstance(task_input, dict) else task_input
    text = content if isinstance(content, str) else _json(content)
    if not text.strip():
        raise RunnerError(
            f"the task's input gives no prompt: let it be text, or an object with {PROMPT!r}"
        )
    return text


def _json(content: Any) -> str:
    return "" if content in (None, {}, []) else msgspec.json.encode(content).decode()


def as_json(configuration: Mapping[str, Any]) -> str:
    """A configuration file in JSON."""
    return msgspec.json.format(msgspec.json.encode(configuration)).decode() + "\n"
