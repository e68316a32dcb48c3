"""docs/learning.md: its tables are those of the code, and the losses that it shows train."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from odradek.trainer.feed.advantages import BASELINES, advantages
from odradek.trainer.loss_table import LOSSES, Correction
from odradek.trainer.recipes import RECIPES, Recipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/learning.md").read_text()
HEAD = (
    "| who | `loss` | `baseline` | `scale_advantages` | `correction` | `kl_form` | also | formula |"
)


def names(values, none=""):
    """A cell of the table; "" is what leaves it out."""
    listed = ", ".join(f"`{value}`" for value in values if value)
    return f"{none}, {listed}" if "" in values and listed else listed or none


def line(recipe: Recipe) -> str:
    """A recipe as the page's table has it."""
    corrections = [name for name in ("", *Correction.__args__) if name in recipe.correction]
    cells = (
        recipe.source,
        names([name for name in LOSSES if name in recipe.loss]),
        names([name for name in BASELINES if name in recipe.baseline]),
        names([s for s in ("group", "batch", "none") if s in recipe.scale_advantages]),
        "any or none" if len(corrections) == 5 else names(corrections, "none"),
        names(sorted(recipe.kl_form), "none"),
        names(sorted(recipe.terms)),
        f"`{recipe.formula}`",
    )
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def test_the_table_of_what_goes_together_is_the_one_that_settings_read():
    """Every recipe, with its source and its formula."""
    table = PAGE.split("## What goes together")[1].split("\n## ")[0]
    lines = [text for text in table.splitlines() if text.startswith("| ")]
    assert [HEAD, *map(line, RECIPES)] == lines


@pytest.mark.parametrize(("heading", "expected"), [
    ("Losses", ["loss", *LOSSES]),
    ("Advantages", ["baseline", *BASELINES]),
    ("Corrections", ["correction", *Correction.__args__]),
])  # fmt: skip
def test_each_name_stands_in_its_table(heading, expected):
    """In the order of the code."""
    text = PAGE.split(f"## {heading}")[1].split("\n## ")[0]
    assert expected == re.findall(r"^\| `(\w+)`", text, re.MULTILINE)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The page's module in the working folder."""
    (code,) = re.findall(
        r"^`mine\.py`[^\n]*\n\n```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL
    )
    assert 15 >= len([text for text in code.splitlines() if text.strip()])
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)


@pytest.mark.torch
def test_the_pages_loss_is_its_formula_and_trains(own):
    """Loss and gradient of a step, as `loss = "mine:quiet"` computes them."""
    import torch

    from odradek.trainer.settings import TrainerSettings
    from odradek.trainer.step.losses import LossInputs, StepTotals, options_of, policy_loss

    settings = TrainerSettings(loss="mine:quiet", tis=2.0, correction="sequence_mask")
    new = torch.tensor([-0.5, -1.0, -0.2], requires_grad=True)
    old = torch.tensor([-0.6, -0.7, -0.2])
    terms = LossInputs(new, old, torch.tensor([1.0, 1.0, -1.0]), torch.tensor([0, 0, 1]), 2)
    options = options_of(TrainerSettings(loss="mine:quiet"))
    loss = policy_loss(settings.loss, terms, StepTotals(3, 2), options)
    ratio = (new - old).exp()
    expected = -(torch.tanh(ratio - 1) * terms.advantages).mean()
    assert expected.item() == pytest.approx(loss.item(), rel=1e-6)
    (wanted,), (found,) = torch.autograd.grad(expected, new), torch.autograd.grad(loss, new)
    assert torch.allclose(wanted, found, rtol=2e-6)


def test_the_pages_advantage_is_what_it_returns(own):
    """Of a group's rewards, as `baseline = "mine:above_worst"` compares them."""
    made = advantages(np.array([0.0, 0.5, 1.0]), baseline="mine:above_worst")
    assert [0.0, 0.5, 1.0] == made.tolist()
