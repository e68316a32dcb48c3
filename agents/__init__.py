"""Agents: the host that runs them over A2A on Kafka, and the dispatcher that feeds it.

`dispatch` turns tasks into A2A requests, `host` takes them and makes an `attempt` of each, which a
`runner` plays: a function, a program, a coding agent (`harnesses`) or an A2A executor. `binding`
says how A2A stands in records. What people write against is `Rollout`; importing it costs nothing
of A2A or Kafka.
"""

from odradek.agents.rollout import Rollout, UpstreamUnavailable

__all__ = ["Rollout", "UpstreamUnavailable"]
