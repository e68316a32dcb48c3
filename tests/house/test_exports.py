"""Exports: what a folder offers is listed, and what a module keeps to itself has a dash before it."""

import ast
import importlib
import re
from functools import cache

import pytest

from tests.support.suite import house

FOLDERS = [path.parent for path in house.modules() if path.name == "__init__.py"]


@cache
def trees():
    """Every module of the package, read once."""
    return {path: ast.parse(path.read_text()) for path in house.modules()}


def bound(tree):
    """Public names that the top level of a module binds, those of modules left out."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("odradek"):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


@cache
def imports():
    """(path, node) of everything that modules import from others."""
    return [
        (path, node)
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("odradek")
    ]


def listed(tree):
    """The names in `__all__`, None where there is none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(house.ROOT)))
def test_a_folder_that_binds_names_lists_those_that_it_offers(folder):
    """In `__all__`, sorted as ruff sorts; a name that others import from the folder is in it."""
    tree = trees()[folder / "__init__.py"]
    names = [name for name in bound(tree) if not name.startswith("_")]
    offered = listed(tree)
    assert bool(offered) or not names
    wanted = imported_from("odradek." + ".".join(folder.relative_to(house.ROOT).parts))
    assert set() == wanted - set(offered or ())


def imported_from(package):
    """Names, no modules, that the package's other modules import from a folder."""
    folder = house.ROOT.joinpath(*package.split(".")[1:])
    return {
        alias.name
        for path, node in imports()
        if path.parent != folder and node.module == package
        for alias in node.names
        if not (folder / f"{alias.name}.py").exists() and not (folder / alias.name).is_dir()
    }


@pytest.mark.parametrize(
    "folder",
    [
        folder
        for folder in FOLDERS
        if listed(trees()[folder / "__init__.py"])
        and folder.name != "trainer"  # its names bring torch: tests/trainer import them
    ],
    ids=lambda path: str(path.relative_to(house.ROOT)),
)
def test_what_a_folder_lists_is_there(folder):
    """Each name of `__all__` can be imported."""
    module = importlib.import_module("odradek." + ".".join(folder.relative_to(house.ROOT).parts))
    assert [] == [name for name in module.__all__ if not hasattr(module, name)]


def test_the_trainers_names_are_those_that_it_finds():
    """They are imported when asked for, so that nobody pays for torch unasked."""
    from odradek import trainer

    assert trainer.__all__ == sorted(trainer._PLAIN)
    assert all(
        (house.ROOT / "trainer" / f"{place.replace('.', '/')}.py").exists()
        for place in trainer._PLAIN.values()
    )


def test_no_module_reads_a_private_name_of_another():
    """A name with a dash before it is its module's own."""
    private = []
    for path, node in imports():
        names = [alias.name for alias in node.names] + node.module.split(".")
        private += [
            f"{path.relative_to(house.ROOT)}: {name}" for name in names if re.match(r"_(?!_)", name)
        ]
    assert [] == private


def test_a_function_that_nobody_else_uses_is_private():
    """A public function is used in another module, a test or a script, or a page names it.

    What is decorated is called by what decorates it, as a verb is.
    """
    texts = {
        path: set(re.findall(r"\w+", path.read_text(errors="replace")))
        for folder in (*house.FOLDERS, "tests", "docs", "scripts")
        for path in (house.ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in {".py", ".md", ".toml", ".json", ""}
    }
    texts[house.ROOT / "pyproject.toml"] = set(
        re.findall(r"\w+", (house.ROOT / "pyproject.toml").read_text())
    )
    alone = [
        f"{path.relative_to(house.ROOT)}: {node.name}"
        for path, tree in trees().items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and not node.decorator_list
        and not any(node.name in words for other, words in texts.items() if other != path)
    ]
    assert [] == alone
