"""The card of a trained model: what the hub reads of it, and what a person does."""

from dataclasses import replace

import pytest
import yaml

from odradek.trainer.saving.model_card import CardFacts, facts_of, model_card

FACTS = CardFacts(
    name="hilo",
    base="models/Qwen3-0.6B",
    run="main",
    steps=40,
    batches=320,
    topic="rl.batches.v1",
    settings={"loss": "grpo", "baseline": "mine:a|b\n# head"},
    metrics={"success": 0.875, "wait_s": 3.0},
    command=("odradek", "export", "model", "runs/a b"),
    libraries={"torch": "2.15.0", "odradek": "0.1.0"},
    digest="ab" * 32,
)


def head_of(card):
    """The YAML head, as the hub reads it, and the rest."""
    empty, head, rest = card.split("---\n", 2)
    assert "" == empty
    return yaml.safe_load(head), rest


@pytest.mark.parametrize("hub_base", ["", "Qwen/Qwen3-0.6B", 'a"b: [c'])
@pytest.mark.parametrize("adapter", [False, True])
def test_the_head_is_yaml_and_names_a_base_only_by_its_id(hub_base, adapter):
    """A folder of somebody's disk is no id."""
    head, _ = head_of(model_card(replace(FACTS, hub_base=hub_base, adapter=adapter)))
    expected = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["odradek", "reinforcement-learning", "trl"],
    }
    if hub_base:
        relation = "adapter" if adapter else "finetune"
        expected |= {"base_model": hub_base, "base_model_relation": relation}
    assert expected == head


def test_the_card_says_where_the_model_is_from():
    """Base, data, steps, settings, metrics, libraries and the command; each in one line."""
    _, text = head_of(model_card(FACTS))
    for line in (
        "# hilo",
        "Trained from `Qwen3-0.6B` with Odradek: reinforcement learning on agents' episodes.",
        "| optimizer steps | 40 |",
        "| batches passed | 320 of `rl.batches.v1` |",
        f"| checkpoint | `{'ab' * 32}` |",
        "| `loss` | `grpo` |",
        "| `baseline` | `mine:a\\|b # head` |",
        "| `success` | 0.875 |",
        "| torch | 2.15.0 |",
        "odradek export model 'runs/a b'",
    ):
        assert line in text.splitlines(), line
    assert "wait_s" not in text


def test_what_nobody_knows_has_no_place_on_a_card():
    """No empty table, no empty command."""
    card = model_card(CardFacts(name="m", base="m", run="r", steps=1))
    assert ["## The run"] == [line for line in card.splitlines() if line.startswith("## ")]
    assert "```" not in card


def test_a_checkpoint_says_what_its_card_needs():
    """Old ones know no settings."""
    position = {
        "run": "main", "step": 3, "offset": 9, "topic": "rl.batches.v1", "model": "m/b",
        "entry": {"metrics": {"success": 1.0}},
    }  # fmt: skip
    facts = facts_of(position, "name", digest="d", hub_base="a/b")
    assert (3, 9, "m/b", "a/b", {}) == (
        facts.steps, facts.batches, facts.base, facts.hub_base, facts.settings
    )  # fmt: skip
    assert {"odradek", "torch"} <= facts.libraries.keys()
