"""Agents: the host that runs them over A2A on Kafka, and the dispatcher that feeds it.

What people write against is `Rollout`; importing it costs nothing of A2A or Kafka.
"""

from odradek.agents.rollout import Rollout, UpstreamUnavailable

__all__ = ["Rollout", "UpstreamUnavailable"]
