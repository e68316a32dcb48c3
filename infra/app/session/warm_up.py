"""Making the `tiny` model: a process of its own, because it is the only part here with torch.

Run as `python -m odradek.infra.app.session.warm_up module:function FOLDER STEPS SEED` in the
project's folder.
"""

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from odradek.infra.errors import ProjectError

USAGE = 2


def function(name: str) -> Callable[[], Sequence[Any]]:
    """The function that `module:function` names. Raises ProjectError."""
    module, _, attribute = name.partition(":")
    try:
        warm_up: Callable[[], Sequence[Any]] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ProjectError(f"engine.warm_up: cannot import {name!r}: {error}") from error
    return warm_up


def main(name: str, folder: str, steps: str, seed: str) -> None:
    """Make the model, unless the folder holds one."""
    conversations = function(name)() if name else []
    from odradek.trainer.engine.tiny import make_tiny

    about = make_tiny(Path(folder), conversations, steps=int(steps), seed=int(seed))
    print(json.dumps(about))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ProjectError as error:
        print(error, file=sys.stderr)
        sys.exit(USAGE)
