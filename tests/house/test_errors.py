"""Errors: the tree that a folder's errors.py draws is the tree that it has."""

import ast
import re

import pytest

from tests.support.suite import house

BRANCH = re.compile(r"^(?P<stem>[│├└─ ]*)(?P<name>[A-Z]\w+)(  |$)")
DIALECTS = "proxy/dialects/errors.py"
"""Errors in the words of vendors: it has no classes of ours."""
FILES = [
    path for path in house.modules() if path.name == "errors.py" and path != house.ROOT / DIALECTS
]


def drawn(text):
    """Each class that a tree names, and the one above it."""
    above, found = [], {}
    for line in text.splitlines():
        if branch := BRANCH.match(line):
            depth = len(branch["stem"]) // 4
            del above[depth:]
            found[branch["name"]] = above[-1] if above else None
            above.append(branch["name"])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_a_drawn_tree_has_every_class_below_its_own_base(path):
    """So nobody reads of an error that has another name, or another parent, by now."""
    tree = ast.parse(path.read_text())
    found = drawn(ast.get_docstring(tree) or "")
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    assert set(classes) == set(found)
    for name, parent in found.items():
        bases = {ast.unparse(base) for base in classes[name].bases}
        assert parent is None or parent in bases, name
