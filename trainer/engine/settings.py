"""What the engines can be told, from `ODRADEK_ENGINE_*`."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from odradek.infra.runtime.addresses import Host
from odradek.infra.runtime.settings import CheckedSettings, Seed


class EngineSettings(CheckedSettings, BaseSettings):
    """Settings of `odradek engine`."""

    model_config = SettingsConfigDict(
        env_prefix="ODRADEK_ENGINE_",
        env_ignore_empty=True,
        frozen=True,
        allow_inf_nan=False,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    model: str = ""
    """Folder of the model to serve; vLLM also takes a name on the Hugging Face hub."""
    name: str = "policy"
    """Name under which the model is listed."""
    host: Host = "127.0.0.1"
    """Address to listen on. The engine has no authentication: the proxy stands before it."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    policy: str = ""
    """Policy whose newest weights (`rl.policies.v1`) are served; empty: those of the folder."""
    seed: Seed = 0
    """Of the sampling."""
    max_batch: int = Field(default=64, ge=1)
    """Requests sampled together."""
    gather_ms: float = Field(default=2.0, ge=0)
    """How long the first request of a batch waits for company."""
    max_tokens: int = Field(default=256, ge=1)
    """Sampled tokens of a request that names no limit."""
    max_queue: int = Field(default=8192, ge=1)
    """Requests that may wait; more are answered with 503."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the small engine samples."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights."""
    ready_s: float = Field(default=900.0, gt=0)
    """How long vLLM may take to start."""
