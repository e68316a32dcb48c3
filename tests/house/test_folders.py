"""Folders: narrow, and without circles."""

import ast

import pytest

from tests.support.suite import house


def test_no_folder_has_more_than_twelve_modules():
    """A folder is a stretch of the data's way that one can look over."""
    assert {} == {name: n for name, n in house.widths().items() if n > house.WIDEST}


def test_no_circle_of_imports():
    """Neither between modules, imports for annotations among them, nor between folders."""
    imports = house.graph()
    assert [] == house.circles(imports)
    assert [] == house.circles(house.folder_graph(imports))


@pytest.mark.parametrize(
    ("arrows", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a"}}, [["a", "b"]]),
        ({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}, [["a", "b", "c"]]),
    ],
)
def test_circles_are_found(arrows, expected):
    """The check itself: a line has none, a ring is found whole."""
    assert expected == house.circles(arrows)


def test_every_folder_says_what_its_parts_are():
    """A folder's `__init__` opens with a sentence, and no dot stands in for one."""
    for path in house.modules():
        if path.name == "__init__.py":
            words = (ast.get_docstring(ast.parse(path.read_text())) or "").split()
            assert len(words) > 5, path
