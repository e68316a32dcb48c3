"""Pictures: the committed files are what the script draws, and the pages show them."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "pictures"
SVG = "{http://www.w3.org/2000/svg}"
NAMES = {
    "log",
    "call",
    "episode",
    "sequences",
    "commit",
    "weights",
    "crash",
    "learning",
    "losses",
    "pairs",
    "reuse",
}
FILES = sorted(FOLDER.glob("*.svg"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """What the script draws now; it fails where texts overlap or leave their picture."""
    folder = tmp_path_factory.mktemp("drawn")
    done = subprocess.run(
        [sys.executable, FOLDER / "draw", folder], capture_output=True, text=True, check=False
    )
    assert (0, "") == (done.returncode, done.stderr)
    return folder


def test_the_committed_pictures_are_what_the_script_draws(drawn):
    """Byte for byte: `scripts/pictures` brings them up to date."""
    made = {path.name: path.read_bytes() for path in drawn.iterdir()}
    assert {path.name: path.read_bytes() for path in FILES} == made


def test_each_picture_is_there_for_light_and_dark():
    """Seven of how it works, the learning curves of both demos, those of all losses, and of replay."""
    assert {f"{name}-{theme}.svg" for name in NAMES for theme in ("light", "dark")} == {
        path.name for path in FILES
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_picture_is_text_that_everybody_can_read(path):
    """Letters are text, none too small for a phone; it has a title, and fetches nothing."""
    root = ET.fromstring(path.read_text())
    assert 480 >= float(root.get("viewBox").split()[2])
    assert root.find(f"{SVG}title").text
    assert root.find(f"{SVG}desc").text
    sizes = [float(text.get("font-size")) for text in root.iter(f"{SVG}text")]
    assert sizes
    assert min(sizes) >= 12
    assert re.findall(r"https?://[^\"]+", path.read_text()) == ["http://www.w3.org/2000/svg"]
    assert not list(root.iter(f"{SVG}image"))


def test_every_picture_is_shown_in_both_themes():
    """In README or docs, by a `<picture>` that follows the reader's colour scheme."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = [
        match.groups()
        for page in pages
        for match in re.finditer(
            r"<picture><source media=\"\(prefers-color-scheme: dark\)\" srcset=\"\S*pictures/(\w+)-dark.svg\">"
            r"\s<img alt=\"[^\"]+\" src=\"\S*pictures/(\w+)-light.svg\" width=\"\d+\"></picture>",
            page.read_text(),
        )
    ]
    assert all(dark == light for dark, light in shown)
    assert {dark for dark, _ in shown} == NAMES


def test_the_learning_curve_is_of_a_run_that_learned():
    """Its figures are a demo's, as `--json` writes them: every sample is accounted for."""
    import json

    run = json.loads((ROOT / "docs" / "figures" / "learning.json").read_text())
    assert run["conservation"]["closed"]
    assert run["greedy_success"] >= run["target"]
    assert run["curve"]["greedy"][-1] == [run["steps"], run["greedy_success"]]


def test_every_loss_of_the_table_has_a_curve_that_rises():
    """Five seeds each, from the same recorded batches."""
    import json

    from odradek.trainer.loss_table import LOSSES

    run = json.loads((ROOT / "docs" / "figures" / "losses.json").read_text())
    assert (5, list(LOSSES)) == (run["seeds"], list(run["losses"]))
    for points in run["losses"].values():
        assert points[0]["mean"] < points[-1]["mean"]
        assert all(point["low"] <= point["mean"] <= point["high"] for point in points)
