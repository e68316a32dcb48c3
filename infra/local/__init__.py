"""A real Kafka on this machine: LocalBroker for a program's life, `daemon` for longer."""

from odradek.infra.local.broker import LocalBroker

__all__ = ["LocalBroker"]
