"""A host's parts, put together: the SDK's handler, the store under it, and who serves requests."""

from typing import Any, Final, NamedTuple

from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandlerV2

from odradek.agents.attempt.attempt import Attempt, Fail
from odradek.agents.attempt.executor import EpisodeExecutor
from odradek.agents.attempt.seal import Sealer
from odradek.agents.attempt.task_store import HostTaskStore
from odradek.agents.host.attempt_runner import AttemptRunner
from odradek.agents.host.cards import OwnCards
from odradek.agents.host.children import AgentLine
from odradek.agents.host.recovery import Recovery
from odradek.agents.host.replies import ReplySender
from odradek.agents.host.server import RequestServer
from odradek.agents.host.tasks.ids import ContextBuilder
from odradek.agents.host.tasks.offsets import HostOffsets
from odradek.agents.host.tasks.queries import TaskQueries
from odradek.agents.push.operations import PushOperations
from odradek.agents.settings import AgentSettings
from odradek.agents.trust.settings import TrustSettings
from odradek.agents.trust.verifier import RequestVerifier
from odradek.infra.bus import Appender, BusSettings

REPLY_PREFIX: Final = "a2a.replies."
"""Reply addresses must be topics that begin so."""


class HostParts(NamedTuple):
    """What a host works with."""

    server: RequestServer
    recovery: Recovery
    push: PushOperations
    line: AgentLine


def assemble(
    settings: AgentSettings,
    bus: BusSettings,
    agent: AgentExecutor,
    *,
    appender: Appender,
    offsets: HostOffsets,
    sealer: Sealer | None,
    keys: list[str],
    verifier: RequestVerifier,
    cards: OwnCards,
    trust: TrustSettings | None,
    source: str,
    fail: Fail,
    ending: Any,
) -> HostParts:
    """The parts of a host.

    Args:
        settings: The host's.
        bus: Where Kafka is.
        agent: Whom requests are for.
        appender: Writes what needs no fence.
        offsets: Where topics begin and end.
        sealer: Ends episodes; None: runs are none.
        keys: Sign the agents' tokens.
        verifier: Says who asks.
        cards: The agent's.
        trust: Keys of signed requests; the environment's if not given.
        source: Of the events, for CloudEvents.
        fail: Called with an error of the log.
        ending: See EpisodeExecutor.
    """
    name = settings.name
    runs: dict[str, Attempt] = {}
    snapshots = HostTaskStore(appender, name, source=source, fail=fail)
    executor = EpisodeExecutor(
        agent,
        runs,
        snapshots=snapshots,
        appender=appender,
        sealer=sealer,
        agent=name,
        source=source,
        fail=fail,
        ending=ending,
    )
    recovery = Recovery(settings, snapshots, executor)
    handler = DefaultRequestHandlerV2(
        agent_executor=executor,
        task_store=snapshots,
        agent_card=cards.public,
        request_context_builder=ContextBuilder(),
        event_stream=snapshots,
    )
    queries = TaskQueries(snapshots, bus, name, events_end=offsets.end_of_events)
    replies = ReplySender(appender, bus, name, prefix=REPLY_PREFIX, partitions=offsets.partitions)
    push = PushOperations(name, bus, hosts=settings.webhook_hosts, served=settings.push)
    line = AgentLine(bus, trust)
    runner = AttemptRunner(
        settings,
        handler=handler,
        runs=runs,
        snapshots=snapshots,
        queries=queries,
        replies=replies,
        push=push,
        line=line,
        keys=keys,
        source=source,
    )
    server = RequestServer(
        settings,
        handler=handler,
        runner=runner,
        snapshots=snapshots,
        recovery=recovery,
        queries=queries,
        push=push,
        cards=cards,
        replies=replies,
        verifier=verifier,
        fail=fail,
    )
    return HostParts(server, recovery, push, line)
