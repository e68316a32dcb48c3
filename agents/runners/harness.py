"""A coding agent as an agent: set up anew for each run, with a home of its own."""

import shutil
from pathlib import Path
from typing import Final

from odradek.agents.errors import RunnerError
from odradek.agents.harnesses import HARNESSES, Model, prompt_of
from odradek.agents.rollout import Rollout
from odradek.agents.runners.program import Launch, ProgramRunner, inherited

XDG: Final = {
    "XDG_CONFIG_HOME": ".config",
    "XDG_CACHE_HOME": ".cache",
    "XDG_DATA_HOME": ".local/share",
    "XDG_STATE_HOME": ".local/state",
}


class HarnessRunner(ProgramRunner):
    """Starts a coding agent whose prompt is the task's input.

    It works in an empty folder; its home, with its configuration, lies beside it and goes with the
    run. Since its model holds a shell, it is given no task file, which may hold answers, and no
    place for rewards: those come from judges of the conversation.

    Args:
        name: One of HARNESSES.

    Raises:
        RunnerError: There is no such harness, or its program is not installed.
    """

    def __init__(self, name: str) -> None:
        if name not in HARNESSES:
            raise RunnerError(f"there is no harness {name!r}: there are {', '.join(HARNESSES)}")
        self._harness = harness = HARNESSES[name]
        program = shutil.which(harness.program)
        if program is None:
            raise RunnerError(
                f"harness {name} starts {harness.program!r}, which is not on the path: "
                f"{harness.install}"
            )
        self._program = str(Path(program).absolute())
        self._environment = inherited(harness.owns)

    def launch(self, rollout: Rollout, folder: Path) -> Launch:
        """See ProgramRunner. Raises RunnerError where the task gives no prompt."""
        text = prompt_of(rollout.task.input)
        root = rollout.base_url.removesuffix("/v1")
        model = Model(root=root, key=rollout.api_key, name=rollout.model)
        home, work, scratch = folder / "home", folder / "work", folder / "tmp"
        setup = self._harness.prepare(model, home)
        for directory in (home, work, scratch, *(home / path for path in XDG.values())):
            directory.mkdir(parents=True)
        for path, content in setup.files.items():
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            (home / path).write_text(content, encoding="utf-8")
        prompt = folder / "prompt"
        prompt.write_text(text, encoding="utf-8")
        trace = {"TRACEPARENT": rollout.traceparent} if rollout.traceparent else {}
        return Launch(
            words=(self._program, *setup.arguments),
            cwd=work,
            variables={
                **setup.variables,
                **{name: str(home / path) for name, path in XDG.items()},
                **trace,
                **self._past(rollout),
                "HOME": str(home),
                "TMPDIR": str(scratch),
            },
            stdin=prompt,
            speaks=True,
        )
