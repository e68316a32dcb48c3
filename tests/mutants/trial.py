"""Runs tests against one changed module, in a fork of a process that has imported what is not ours."""

import importlib
import importlib.machinery
import importlib.util
import json
import math
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

OURS = {"odradek", "tests", "__main__"}
BROKEN = 77
"""Exit code where the changed module cannot be imported: no test had anything to find."""
FATES = {0: "survived", BROKEN: "broken", -signal.SIGXCPU: "timed out"}


class Result(NamedTuple):
    """The outcome of one run of the tests."""

    fate: str
    """`survived`, `killed`, `timed out` or `broken`."""
    seconds: float
    output: str


class Changed(importlib.machinery.SourceFileLoader):
    """Loads a module from other source than its file's."""

    def __init__(self, name: str, path: str, source: str) -> None:
        """Stand in for the loader of a module."""
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        """Compile what stands in for the file, and leave the bytecode on disk alone."""
        return compile(self._source, self.path, "exec", dont_inherit=True)


class Finder:
    """Finds one module, changed."""

    def __init__(self, name: str, path: str, source: str) -> None:
        """Stand before all other finders."""
        self._name, self._path, self._source = name, path, source

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        """The changed module's place, for its name alone."""
        if name != self._name:
            return None
        loader = Changed(name, self._path, self._source)
        return importlib.util.spec_from_file_location(name, self._path, loader=loader)


def module_of(path: str) -> str:
    """The name under which a file of the product is imported."""
    return "odradek." + path.removesuffix(".py").replace("/", ".")


def run(tests: tuple[str, ...], mutant: dict[str, Any] | None, limit_s: float) -> Result:
    """Run the tests in a fork, against a mutant or against the code as it is.

    A fork that computes for longer than the limit is killed with all that it started, and so is one
    that waits for ten times as long. Seconds are of computing: a busy machine changes no fate.
    """
    with tempfile.TemporaryDirectory(prefix="odradek-mutant-") as folder:
        deadline, output = time.monotonic() + 10 * limit_s, Path(folder) / "output"
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit_s), resource.RLIM_INFINITY))
            os._exit(_in_the_fork(tests, mutant, Path(folder), output))
        code, seconds = _wait(child, deadline)
        text = output.read_text(errors="replace") if output.exists() else ""
    return Result(FATES.get(code, "killed"), seconds, text)


def _wait(child: int, deadline: float) -> tuple[int, float]:
    """The exit code of a child and how long it computed."""
    pid = 0
    while not pid and time.monotonic() < deadline:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if not pid:
            time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not pid:
        os.waitpid(child, 0)
        return -signal.SIGXCPU, 0.0
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime


def _in_the_fork(
    tests: tuple[str, ...], mutant: dict[str, Any] | None, folder: Path, output: Path
) -> int:
    os.setpgid(0, 0)
    file = os.open(output, os.O_CREAT | os.O_WRONLY, 0o600)
    for number in (1, 2):
        os.dup2(file, number)
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(folder / "hypothesis")
    if mutant is not None:
        name = module_of(mutant["path"])
        path = str(Path(mutant["path"]).resolve())
        sys.meta_path.insert(0, Finder(name, path, mutant["source"]))  # type: ignore[arg-type]
        with warnings.catch_warnings(action="ignore"):
            try:
                importlib.import_module(name)
            except BaseException as error:  # whatever a changed module raises
                print(f"{type(error).__name__}: {error}", flush=True)
                return BROKEN
    import pytest
    from hypothesis import settings

    # Time tells nothing of a mutant, and the same examples are tried on each.
    settings.register_profile("mutants", deadline=None, derandomize=True, database=None)
    settings.load_profile("mutants")
    code = pytest.main(
        ["-x", "-q", "-n0", "-m", "not broker and not slow", "--hypothesis-profile=mutants",
         "-W", "ignore::pytest.PytestAssertRewriteWarning", *tests]
    )  # fmt: skip
    if mutant is None and code == 0:
        names = [name for name in sys.modules if name.partition(".")[0] not in OURS]
        (Path(folder).parent / f"odradek-mutants-{os.getppid()}.json").write_text(json.dumps(names))
    sys.stdout.flush()
    return int(code)


def warm_up(tests: tuple[str, ...]) -> Result:
    """Import here what the tests import that is not ours; the tests' result on the code as it is."""
    result = run(tests, None, 600)
    names = Path(tempfile.gettempdir()) / f"odradek-mutants-{os.getpid()}.json"
    if result.fate == "survived":
        with warnings.catch_warnings(action="ignore"):
            for name in json.loads(names.read_text()):
                with suppress(ImportError):
                    importlib.import_module(name)
        result = run(tests, None, 600)
    names.unlink(missing_ok=True)
    return result
