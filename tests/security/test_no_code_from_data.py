"""Nothing that comes from outside is ever run: no pickle, no eval, no remote code (S10)."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNPICKLERS = frozenset(
    {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
)
CALLS = frozenset({"eval", "exec", "__import__"})
METHODS = frozenset({"torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system",
                     "np.load", "numpy.load", "torch.jit.load", "torch.hub.load"})  # fmt: skip
"""`compile` and `importlib.import_module` stay: names of modules come from the command line."""

ALLOWED = {
    "tests/agents/test_deliveries.py": ["exec"],
    "tests/agents/test_docs.py": ["exec"],
    "tests/trainer/test_one_step.py": ["exec"],
    "tests/trainer/test_rollout_func.py": ["exec"],
}
"""The docs' own examples are run as they stand there."""


def sources() -> list[Path]:
    """Every Python file that git tracks, tests included; without git, what is installed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        capture_output=True, text=True, cwd=ROOT, check=True,
    ).stdout.split()  # fmt: skip
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def faults(tree: ast.AST) -> list[str]:
    """What a module does that it must not."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [one.name for one in node.names if one.name.split(".")[0] in UNPICKLERS]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if (node.module or "").split(".")[0] in UNPICKLERS else []
        elif isinstance(node, ast.Call):
            found += _of_call(node)
    return found


def _of_call(node: ast.Call) -> list[str]:
    name = ast.unparse(node.func)
    found = [name] if name in METHODS or name in CALLS else []
    for word in node.keywords:
        on = not (isinstance(word.value, ast.Constant) and word.value.value is False)
        if word.arg in {"trust_remote_code", "allow_pickle", "shell"} and on:
            found.append(f"{name}({word.arg}=…)")
    if name.endswith("AutoModelForCausalLM.from_pretrained"):
        safe = any(
            word.arg == "use_safetensors" and getattr(word.value, "value", None) is True
            for word in node.keywords
        )
        found += [] if safe else [f"{name} without use_safetensors=True"]
    return found


def test_no_module_runs_what_it_reads():
    """Checked on the syntax tree of every file of the repository."""
    files = sources()
    assert 150 < len(files)
    found = {str(file.relative_to(ROOT)): faults(ast.parse(file.read_bytes())) for file in files}
    assert ALLOWED == {name: what for name, what in found.items() if what}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from cloudpickle import loads",
        "import a, dill as b",
        "torch.load(path)",
        "eval(text)",
        "exec(code, {})",
        "yaml.load(text)",
        "numpy.load(path)",
        "model(trust_remote_code=True)",
        "model(trust_remote_code=setting)",
        "subprocess.run(words, shell=True)",
        "AutoModelForCausalLM.from_pretrained(folder)",
    ],
)
def test_the_check_sees_what_it_must_see(code):
    """A check that finds nothing anywhere proves nothing."""
    assert [] != faults(ast.parse(code))


@pytest.mark.torch
def test_no_library_unpickles_while_a_checkpoint_is_written_or_read(tmp_path, monkeypatch):
    """CVE-2026-4137: a file that somebody put beside our own is not even opened."""
    import importlib

    forbidden = importlib.import_module("pickle")

    import torch

    from odradek.trainer.commit import checkpoint
    from odradek.trainer.errors import BrokenCheckpoint

    def refuse(*_, **__):
        raise AssertionError("something was unpickled")

    for holder, name in ((torch, "load"), (forbidden, "load"), (forbidden, "loads")):
        monkeypatch.setattr(holder, name, refuse)
    checkpoint.write(tmp_path, 1, {"a.json": [b"1"]}, keep=1, position={})
    folder = checkpoint.newest(tmp_path)
    assert folder is not None
    (folder / "optimizer.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(BrokenCheckpoint, match="not named by the manifest"):
        checkpoint.verify(folder)
    assert None is checkpoint.newest(tmp_path)
