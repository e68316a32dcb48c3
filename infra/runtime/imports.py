"""Import what `module:name` names: in a person's module (`find`), or in ours (`import_entry`).

`large_imports` makes imports of torch and what stands on it a quarter cheaper.
"""

import difflib
import functools
import gc
import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from odradek.infra.errors import NoSuchName


def find(target: str) -> Any:
    """Import `module` and return its `name`; modules of the working folder are found.

    What the module itself raises as it is imported is passed on.

    Raises:
        NoSuchName: The text has another form, or there is no such module or name.
    """
    module_name, name = parts(target)
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and module_name.split(".")[0] == error.name:
            raise NoSuchName(f"there is no module {module_name!r} here ({folder})") from None
        raise
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, vars(module), n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise NoSuchName(f"module {module_name} has no {name!r}{hint}")
    return getattr(module, name)


def parts(target: str) -> tuple[str, str]:
    """The two names of `module:name`. Raises NoSuchName if it has another form."""
    module_name, _, name = target.partition(":")
    if not all((*module_name.split("."), name)) or not target.isprintable():
        raise NoSuchName(f"{target!r} is not of the form module:function")
    return module_name, name


def import_entry(place: str) -> Any:
    """Import what a table in this package names. The working folder plays no part.

    Raises ImportError or AttributeError where the table is wrong.
    """
    module_name, _, name = place.partition(":")
    return getattr(importlib.import_module(module_name), name)


@contextmanager
def large_imports() -> Iterator[None]:
    """A block that imports much. Nothing of it is garbage, so no collection looks at it.

    Neither now nor later: transformers asks for a full one at the start of each training. Which
    packages are installed is read from the disk once, whoever asks: transformers does, and so does
    TRL, 0.2 s of CPU each.
    """
    read = importlib.metadata.packages_distributions
    importlib.metadata.packages_distributions = functools.cache(read)
    gc.disable()
    try:
        yield
    finally:
        importlib.metadata.packages_distributions = read
        gc.freeze()
        gc.enable()
