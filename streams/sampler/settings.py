"""Settings of the sampler, from `ODRADEK_SAMPLER_*`."""

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from odradek.infra.runtime.settings import CheckedSettings, Seed, from_environment
from odradek.streams.sampler.rules import DrawRules, MixRules, Order


class SamplerSettings(CheckedSettings, BaseSettings):
    """Settings of `odradek sample`."""

    model_config = from_environment("ODRADEK_SAMPLER_")

    fresh: int = Field(default=4, ge=1, le=4096)
    """Fresh batches that teach something, before old ones follow."""
    replayed: int = Field(default=4, ge=0, le=4096)
    """How many old batches follow then, all different; 0 for none."""
    order: Order = "proportional"
    """By what old batches are drawn: `uniform`, `recency` (the newest first), `reward`, or
    `proportional` to the advantages of their samples, as the trainer's steps have them."""
    capacity: int = Field(default=4096, ge=1, le=1_000_000)
    """Old batches that may be drawn; beyond that the oldest is forgotten. They are held in memory,
    some kilobytes each."""
    alpha: float = Field(default=0.6, ge=0, le=2)
    """Exponent of priorities: 0 draws uniformly, 1 in proportion."""
    beta: float = Field(default=0.4, ge=0, le=1)
    """Exponent of importance weights: 0 leaves all at 1, 1 undoes the bias of the draw."""
    half_life: float = Field(default=256.0, ge=0, le=1e6)
    """After so many newer batches a batch is drawn half as often; 0: age is nothing. No less than 1
    else: older batches would never be drawn."""
    max_uses: int = Field(default=4, ge=0, le=1_000_000)
    """How often a batch is drawn at most; 0 for no bound."""
    seed: Seed = 0
    """Seed of the draws."""

    @field_validator("half_life")
    @classmethod
    def _none_or_a_batch(cls, value: float) -> float:
        if 0 < value < 1:
            raise ValueError("half_life is 0 (age is nothing), or at least 1 batch")
        return value

    @property
    def rules(self) -> MixRules:
        """The rules of the mixer."""
        draws = DrawRules(
            order=self.order,
            capacity=self.capacity,
            alpha=self.alpha,
            beta=self.beta,
            half_life=self.half_life,
            max_uses=self.max_uses,
        )
        return MixRules(fresh=self.fresh, replayed=self.replayed, seed=self.seed, draws=draws)
