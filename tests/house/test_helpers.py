"""Helpers of the tests: in packages, under names that say where they come from."""

import sys
import tomllib
from collections import Counter

from tests.support.suite import house
from tests.support.suite.child_processes import ROOT

SUPPORT = ROOT / "tests/support"


def test_helpers_are_imported_by_their_whole_name():
    """`tests.support.engines.stub_engine`, so no helper hides a package of that name."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert ["."] == settings["tool"]["pytest"]["ini_options"]["pythonpath"]
    assert [] == [place for place in sys.path if place.startswith(f"{ROOT}/tests")]


def test_helpers_lie_in_folders_of_the_product_and_none_is_too_wide():
    """A helper is found by the folder that it belongs to; `engines` and `suite` belong to all."""
    widths = Counter(path.parent for path in SUPPORT.rglob("*.py") if path.stem != "__init__")
    folders = {str(path.relative_to(SUPPORT)) for path in widths}
    assert set() == folders - {*house.FOLDERS, "engines", "suite"}
    assert max(widths.values()) <= house.WIDEST
