"""What a LoRA adapter is, and how its folder says so. Pure: no torch, no files.

Each adapted linear layer W gets two small matrices: W x becomes W x + s B A x, with A of the shape
(rank, inputs) and B of (outputs, rank). s is alpha / rank (arXiv 2106.09685, section 4.1), or
alpha / sqrt(rank) with rsLoRA (arXiv 2312.03732, section 4). Names and fields of the folder are
those of peft, which vLLM and SGLang read as well.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from math import sqrt
from typing import Any, Final, Self

from msgspec import Struct

from odradek.trainer.errors import BadAdapter

ADAPTER: Final = "adapter_model"
"""How the name of its weights' file begins."""
ADAPTER_WEIGHTS: Final = f"{ADAPTER}.safetensors"
ADAPTER_CONFIG: Final = "adapter_config.json"
INSTANCE: Final = "default"
"""What peft calls the only adapter of a model, within its parameters' names."""
PREFIX: Final = "base_model.model."
"""What peft puts before each name in a file."""
CONFIG_DIGEST: Final = "config_sha256"
"""Where the weights' file holds the sha256 of its configuration, so that one digest covers both."""
SIDES: Final = ("lora_A", "lora_B")
PLAIN: Final = {
    "use_dora": False,
    "bias": "none",
    "modules_to_save": None,
    "fan_in_fan_out": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "target_parameters": None,
}
"""Fields of peft's configuration that would make another thing of an adapter, and what they are in
a plain one."""
_NAME: Final = re.compile(rf"(.+)\.({'|'.join(SIDES)})(?:\.{INSTANCE})?\.weight")


class AdapterShape(Struct, frozen=True):
    """What an adapter's matrices mean.

    Attributes:
        rank: Inner size of each pair.
        alpha: Numerator of the scale.
        rslora: Whether the scale's denominator is the root of the rank.
        targets: Last words of the names of the adapted layers, sorted.
    """

    rank: int
    alpha: int
    rslora: bool = False
    targets: tuple[str, ...] = ()

    @property
    def scale(self) -> float:
        """By what the product of a pair is multiplied."""
        return self.alpha / (sqrt(self.rank) if self.rslora else self.rank)

    def config(self, base: str) -> bytes:
        """The folder's `adapter_config.json`, over the base model of a folder."""
        fields = {
            **PLAIN,
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "inference_mode": True,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "use_rslora": self.rslora,
            "target_modules": list(self.targets),
        }
        return (json.dumps(fields, indent=2, sort_keys=True) + "\n").encode()

    @classmethod
    def of_config(cls, config: bytes, place: str) -> Self:
        """Read an `adapter_config.json`. Raises BadAdapter for one of another kind."""
        try:
            fields: dict[str, Any] = json.loads(config)
            kind, rank, alpha = fields["peft_type"], fields["r"], fields["lora_alpha"]
            targets = fields.get("target_modules") or ()
            shape = cls(int(rank), int(alpha), bool(fields.get("use_rslora")), tuple(targets))
        except (ValueError, KeyError, TypeError) as error:
            raise BadAdapter(f"{place} describes no LoRA adapter ({error})") from None
        odd = next((key for key, plain in PLAIN.items() if fields.get(key, plain) != plain), "")
        odd = odd if kind == "LORA" else "peft_type"
        if odd:
            raise BadAdapter(f"{place} describes no plain LoRA adapter: {odd} is {fields[odd]!r}")
        return shape


def digest_of(config: bytes) -> str:
    """The sha256 of a configuration's bytes."""
    return hashlib.sha256(config).hexdigest()


def file_name(parameter: str) -> str:
    """A parameter's name in a file, of its name in the model."""
    return PREFIX + parameter.replace(f".{INSTANCE}.", ".")


def model_name(name: str) -> str:
    """A parameter's name in the model, of its name in a file."""
    module, side = parts_of(name)
    return f"{module}.{side}.{INSTANCE}.weight"


def parts_of(name: str) -> tuple[str, str]:
    """The adapted module and the side (`lora_A` or `lora_B`) of a name. Raises BadAdapter."""
    match = _NAME.fullmatch(name.removeprefix(PREFIX))
    if match is None:
        raise BadAdapter(f"{name!r} is no part of a LoRA adapter")
    return match[1], match[2]


def targets_of(names: Iterable[str]) -> tuple[str, ...]:
    """Last words of the modules that parameters of these names belong to, sorted."""
    return tuple(sorted({parts_of(name)[0].rpartition(".")[2] for name in names}))
