"""A real Kafka on this machine: LocalBroker for a program's life, `daemon` for longer."""

from odradek.infra.app.local_kafka.broker import LocalBroker

__all__ = ["LocalBroker"]
