"""Settings of the engines, from `ODRADEK_ENGINE_*`."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from odradek.infra.runtime.addresses import Host
from odradek.infra.runtime.settings import CheckedSettings, Seed, from_environment


class EngineSettings(CheckedSettings, BaseSettings):
    """Settings of `odradek engine`."""

    model_config = from_environment("ODRADEK_ENGINE_")

    model: str = ""
    """Folder of the model to serve; vLLM also takes a name on the Hugging Face hub."""
    policy: str = Field(default="", validation_alias="ODRADEK_POLICY")
    """Policy whose newest weights (`rl.policies.v1`) are served, under this name; empty: those of
    the folder, listed as `policy`."""
    host: Host = "127.0.0.1"
    """Address to listen on. The engine has no authentication: the proxy stands before it."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    seed: Seed = 0
    """Seed of the sampling."""
    max_tokens: int = Field(default=256, ge=1)
    """Sampled tokens of a request that names no limit."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the small engine samples."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights."""
    lora_rank: int = Field(default=0, ge=0, le=512, validation_alias="ODRADEK_TRAINER_LORA_RANK")
    """Rank of the adapters that the trainer will send; 0: it sends whole weights."""
    max_staleness: int = Field(default=4, ge=0, validation_alias="ODRADEK_TRAINER_MAX_STALENESS")
    """The trainer's bound, which says how many adapters are held at once."""
    ready_s: float = Field(default=900.0, gt=0)
    """How long vLLM may take to start."""

    @property
    def name(self) -> str:
        """Name under which the model is listed."""
        return self.policy or "policy"
