"""An engine's words stand in its adapters; the rest of proxy and trainer knows the surface's only."""

import ast
import re
from pathlib import Path

from odradek.schemas.http import engine, weights

ROOT = Path(__file__).parents[2]
ADAPTERS = {
    "proxy/engines/vllm.py",
    "proxy/engines/sglang.py",
    "trainer/weights/vllm.py",
    "trainer/weights/sglang.py",
}
REGISTRIES = {"proxy/engines/recognition.py", "trainer/weights/recognition.py"}
"""Where an adapter has its one line."""
NAMES = re.compile("vllm|sglang", re.IGNORECASE)
OWN = re.compile(
    r"processed_logprobs|logprobs-mode|VLLM_SERVER_DEV_MODE|SGLANG_|sglext|output_token_logprobs"
    r"|update_weights_from_disk|pause_generation|continue_generation|flush_cache|model_info"
    r"|mode=retract|launch_server"
)
"""Words that no surface has."""


def modules():
    """Every module of the proxy, and of what sends weights."""
    paths = [*(ROOT / "proxy").rglob("*.py"), *(ROOT / "trainer" / "weights").rglob("*.py")]
    return sorted(str(path.relative_to(ROOT)) for path in paths)


def rest():
    return [path for path in modules() if path not in ADAPTERS]


def surface_words():
    """Paths and fields that are declared once, in `schemas/http`."""
    named = {route.path for route in engine.ROUTES}
    named |= {engine.TOKEN_IDS, engine.WEIGHT_VERSIONS, engine.CACHE_SALT, engine.CARRIED}
    kinds = (weights.WeightReload, weights.ReloadArguments, weights.VersionName, weights.ResetTerms)
    named |= {field for kind in kinds for field in kind.__struct_fields__}
    return named - {"method", "kwargs"}


def texts(source):
    """Every text of a module but its docstrings."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value.decode(errors="replace") if isinstance(node.value, bytes) else node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str | bytes)
        and id(node) not in prose
    ]


def test_the_adapters_are_there():
    """One on each side for each kind of engine."""
    assert set(modules()) >= ADAPTERS | REGISTRIES


def test_no_other_module_has_an_engines_words():
    """Neither in code nor in comments: not its name, and no word that the surface does not have."""
    allowed = re.compile(
        r"^from odradek\.|(?:engines|weights)\.\w+:KIND|sglang\.\w+|SglangEngine|VllmEngine|VLLM$"
    )
    found = [
        (path, line)
        for path in rest()
        for line in (ROOT / path).read_text().splitlines()
        if (NAMES.search(line) or OWN.search(line))
        and not (path in REGISTRIES and allowed.search(line))
    ]
    assert [] == found


def test_no_other_module_spells_the_surfaces_paths_and_fields():
    """They are constants and types of `schemas/http`."""
    words = surface_words()
    found = [(path, text) for path in rest() for text in texts((ROOT / path).read_text())]
    assert [] == [(path, text) for path, text in found if text in words]
