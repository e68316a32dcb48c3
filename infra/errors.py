"""Errors between Odradek and the outside.

InfraError
├── BusError
│   ├── KafkaUnreachable     retriable: nobody answers at the bootstrap servers
│   ├── KafkaRefused         wrong credentials or rights: a person must act
│   ├── LogUnavailable       retriable: the broker did not acknowledge in time
│   ├── TopicMissing         a topic is not there: `odradek topics apply`
│   ├── TopicMismatch        a topic has other partitions than the table says
│   ├── FormatRefused        topics hold events of an unreleased earlier format
│   ├── PositionLost         retention has deleted what we had not read
│   ├── PartitionLost        another member owns the partition now: give it up
│   └── TakenTwice           an offset was handed out a second time: a mistake of ours
├── ArchiveError
│   ├── ArchiveUnreachable   retriable: the store does not answer
│   ├── ArchiveRefused       no such bucket, folder or right: a person must act
│   ├── ArchiveDamaged       an object is not what was written: it is named, and never used
│   ├── ArchiveMismatch      objects of another log, or of a later version
│   └── ArchiveHole          offsets that neither the log nor the archive holds
├── EndpointRefused          metrics cannot be served: the port or the host is wrong, or taken
├── NoSuchName               `module:function` names nothing that is there
├── TaskRefused              a task that would teach the wrong thing: not published
├── VerdictRefused           what a person says of an episode is no reward: not published
├── TokenError               a credential is missing, forged, expired or for something else
├── ExportRefused            an export lacks its tool, does not fit the ledger, or runs already
├── ImportRefused            files that cannot be imported as they are: nothing was written
├── BadRecording             one record of a file that makes no episode, and why
├── QueryRefused             a query that is no single select, or that DuckDB does not understand
├── ConsoleError
│   ├── ConsoleMisconfigured  it would be open to others, or cannot listen there
│   ├── VisitRefused          a request for another host, from another site, or without the token
│   └── PageRefused           an address of the console that names no page, and what it may be
├── NoRewind                 a sink holds steps that it cannot take back: the run goes to a new one
└── ProjectError             odradek.toml, a setting or an option cannot be used
    └── InvalidTime          a time that nobody can read
"""

from typing import ClassVar


class InfraError(Exception):
    """Base of what infra raises; its text is one line that says what to do."""

    retriable: ClassVar[bool] = False


class BusError(InfraError):
    """Kafka, or our way of using it."""


class KafkaUnreachable(BusError):
    """Nobody answers at the bootstrap servers."""

    retriable = True


class KafkaRefused(BusError):
    """Kafka answers, but does not let us in."""


class LogUnavailable(BusError):
    """The broker did not acknowledge a record in time; it may still land."""

    retriable = True


class TopicMissing(BusError):
    """A topic that a process needs does not exist."""


class TopicMismatch(BusError):
    """A topic exists with another number of partitions than ids were made for."""


class FormatRefused(BusError):
    """Topics hold events that were written before the names of release 0.1.0."""


class PositionLost(BusError):
    """The log no longer holds the offset at which a reader must go on."""


class PartitionLost(BusError):
    """Another member has taken a partition over, so what we would write for it is refused."""


class TakenTwice(BusError):
    """Kafka gave one offset to two records, so the order of records is not reliable."""


class ArchiveError(InfraError):
    """The archive, or its store."""


class ArchiveUnreachable(ArchiveError):
    """The store of the archive does not answer."""

    retriable = True


class ArchiveRefused(ArchiveError):
    """The store answers, but does not let us read or write there."""


class ArchiveDamaged(ArchiveError):
    """An object of the archive is not what was written."""


class ArchiveMismatch(ArchiveError):
    """The archive is of another log, or a later version wrote to it."""


class ArchiveHole(ArchiveError):
    """Offsets that neither the log nor the archive holds."""


class EndpointRefused(InfraError):
    """Metrics cannot be served where settings say."""


class NoSuchName(InfraError):
    """`module:function` does not exist."""


class TaskRefused(InfraError):
    """A task that the dispatcher would refuse, found out before it is published."""


class VerdictRefused(InfraError):
    """A person's verdict that cannot be a reward, or an episode that cannot be judged."""


class TokenError(InfraError):
    """The credential is not valid for this request."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"token refused: {reason}")
        self.reason = reason


class ExportRefused(InfraError):
    """An export cannot begin: its tool is missing, or its state is of another run or in use."""


class ImportRefused(InfraError):
    """Files that are of no known format, or hold records that make no episode."""


class BadRecording(InfraError):
    """A record of a file that makes no episode; its text says why."""


class QueryRefused(InfraError):
    """A query that cannot be asked: it is no select, names what is not there, or lacks its tool."""


class ConsoleError(InfraError):
    """The console, its settings or what a browser asks of it."""


class ConsoleMisconfigured(ConsoleError):
    """Settings with which the console does not start."""


class VisitRefused(ConsoleError):
    """A request that the console does not answer.

    Attributes:
        status: Of the HTTP answer.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class PageRefused(ConsoleError):
    """An address of the console that names nothing it could look up."""


class NoRewind(InfraError):
    """A sink cannot take back steps that it holds, so the run is written to a new one."""


class ProjectError(InfraError):
    """A project file or a setting that cannot be used."""


class InvalidTime(ProjectError):
    """A text that should be a time, and is none."""
