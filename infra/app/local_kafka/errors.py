"""Errors of the local broker.

LocalKafkaError        an InfraError
├── JarsUnavailable    a jar could not be fetched: the network, mostly
├── JarDiffers         a jar is not the one that was pinned: never run it
├── JavaMissing        no Java runtime of version 17 or later
├── PortInUse          something else listens where the broker should
├── NoDisk             the data folder cannot be written, or is full
├── BrokerDied         the process ended before it answered
├── BrokerSilent       the process lives and does not answer
└── NotOurBroker       the recorded process id belongs to something else
"""

from odradek.infra.errors import InfraError


class LocalKafkaError(InfraError):
    """The local broker cannot do what the command asks."""


class JarsUnavailable(LocalKafkaError):
    """A jar could not be fetched, after several tries."""

    retriable = True


class JarDiffers(LocalKafkaError):
    """A jar's SHA-256 is not the pinned one."""


class JavaMissing(LocalKafkaError):
    """There is no Java runtime that Kafka can use."""


class PortInUse(LocalKafkaError):
    """Another process listens on the port."""


class NoDisk(LocalKafkaError):
    """The data folder cannot be written, or too little space is left."""


class BrokerDied(LocalKafkaError):
    """The broker ended while we waited for its first answer."""


class BrokerSilent(LocalKafkaError):
    """The broker did not answer in time."""

    retriable = True


class NotOurBroker(LocalKafkaError):
    """A process id in a state file belongs to a process that we did not start."""
