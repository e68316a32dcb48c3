"""The card of a trained model: the README.md that huggingface.co shows."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

README: Final = "README.md"
"""Where the hub looks for a card."""
TAGS: Final = ("odradek", "reinforcement-learning", "trl")
LIBRARIES: Final = ("odradek", "torch", "transformers", "trl", "peft", "safetensors")
SHOWN: Final = (
    "success",
    "reward_mean",
    "row_reward_mean",
    "kl",
    "mismatch_k3",
    "entropy",
    "staleness_mean",
    "learning_rate",
)
"""Metrics of the last step that a card has, in this order."""


@dataclass(frozen=True)
class CardFacts:
    """What a card says.

    Attributes:
        name: Of the model.
        base: The model that the run began with, as its settings name it.
        hub_base: Its id on huggingface.co, or "".
        run: Name of the run.
        steps: Optimizer steps.
        batches: Batches of the topic that were passed.
        topic: Of the batches.
        adapter: Whether the folder holds a LoRA adapter, not a whole model.
        settings: Those that are not the default, by name.
        metrics: Of the last step.
        command: What wrote the folder.
        libraries: Versions by library.
        digest: sha256 of the checkpoint's manifest.
    """

    name: str
    base: str
    run: str
    steps: int
    batches: int = 0
    topic: str = ""
    hub_base: str = ""
    adapter: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    command: Sequence[str] = ()
    libraries: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""


def facts_of(position: Mapping[str, Any], name: str, *, digest: str, **more: Any) -> CardFacts:
    """What a checkpoint says of itself.

    Args:
        position: Of the checkpoint.
        name: Of the model.
        digest: sha256 of its manifest.
        more: Other fields of `CardFacts`.
    """
    return CardFacts(
        name=name,
        base=str(position.get("model", "")),
        run=str(position["run"]),
        steps=int(position["step"]),
        batches=int(position["offset"]),
        topic=str(position["topic"]),
        settings=position.get("settings", {}),
        metrics=position["entry"].get("metrics", {}),
        digest=digest,
        libraries=dict(_versions()),
        **more,
    )


def _versions() -> Iterable[tuple[str, str]]:
    """Of the libraries that had a part in it, as far as they are installed."""
    for name in LIBRARIES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def model_card(facts: CardFacts) -> str:
    """The text of a README.md, with the YAML head that the hub reads."""
    what = "A LoRA adapter of" if facts.adapter else "Trained from"
    parts = [
        _head(facts),
        f"# {facts.name}",
        f"{what} {_code(_base(facts))} with Odradek: reinforcement learning on agents' episodes.",
        _table(
            "The run",
            "value",
            {
                "run": _code(facts.run),
                "optimizer steps": str(facts.steps),
                "batches passed": f"{facts.batches} of {_code(facts.topic)}",
                "checkpoint": _code(facts.digest) if facts.digest else "",
            },
        ),
        _table("Settings that are not the default", "value", _settings(facts.settings)),
        _table("Metrics of the last step", "value", _numbers(facts.metrics, SHOWN)),
        _table("Libraries", "version", {n: facts.libraries[n] for n in sorted(facts.libraries)}),
    ]
    if facts.command:
        parts.append(f"This folder was written by\n\n```sh\n{shlex.join(facts.command)}\n```")
    return "\n\n".join(part for part in parts if part) + "\n"


def _base(facts: CardFacts) -> str:
    """The base model's id, or the last part of its folder's name."""
    return facts.hub_base or facts.base.rstrip("/").rpartition("/")[2]


def _head(facts: CardFacts) -> str:
    """The YAML between two lines of dashes. JSON strings are YAML strings."""
    lines = [f"library_name: {'peft' if facts.adapter else 'transformers'}"]
    lines.append("pipeline_tag: text-generation")
    if facts.hub_base:
        lines.append(f"base_model: {json.dumps(facts.hub_base)}")
        lines.append(f"base_model_relation: {'adapter' if facts.adapter else 'finetune'}")
    lines += ["tags:", *(f"- {tag}" for tag in TAGS)]
    return "\n".join(["---", *lines, "---"])


def _settings(settings: Mapping[str, object]) -> dict[str, str]:
    return {f"`{name}`": _code(str(settings[name])) for name in sorted(settings)}


def _numbers(metrics: Mapping[str, float], names: Iterable[str]) -> dict[str, str]:
    return {f"`{name}`": f"{metrics[name]:.6g}" for name in names if name in metrics}


def _table(title: str, column: str, rows: Mapping[str, str]) -> str:
    """A section with a table; nothing where no row says anything."""
    lines = [f"| {name} | {value} |" for name, value in rows.items() if value]
    head = f"## {title}\n\n| | {column} |\n|---|---|\n"
    return head + "\n".join(lines) if lines else ""


def _code(text: str) -> str:
    """Text as it stands, in a cell of a table."""
    text = " ".join(text.split()).replace("|", "\\|")
    mark = "``" if "`" in text else "`"
    return f"{mark}{text}{mark}"
