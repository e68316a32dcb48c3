"""The one path on which every agent runs: deadline, rewards, seal, terminal status."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from a2a.server.agent_execution import AgentExecutor

from odradek.agents.attempt import events
from odradek.agents.attempt.attempt import Attempt, AttemptState, Ending, Fail
from odradek.agents.attempt.event_queue import TerminalHold
from odradek.agents.attempt.outcome import judge
from odradek.agents.attempt.seal import Sealer
from odradek.agents.attempt.task_store import HostTaskStore
from odradek.agents.errors import SealError
from odradek.agents.rollout import PendingReward, finite
from odradek.infra.bus import Appender
from odradek.infra.errors import BusError
from odradek.infra.runtime.crash_points import crash_point
from odradek.infra.runtime.foreign_code import ForeignCode, error_site
from odradek.schemas.events import Outcome

logger = logging.getLogger("odradek.agents")

ROLLOUT: Final = "odradek.rollout"
"""Where an executor finds its Rollout in the state of its call context."""
KILL_S: Final = 5.0
"""How long an agent may take to end once it was cancelled."""


class EpisodeExecutor(AgentExecutor):
    """Runs any executor as an episode.

    Args:
        inner: The agent.
        runs: The runs that this host has opened, by task id.
        snapshots: Where a run's ending is written down.
        appender: Writes rewards.
        sealer: Ends episodes; None: runs are none, and have no rewards.
        agent: The agent's name.
        source: Of the events, for CloudEvents.
        fail: Called with an error of the log.
        ending: Whether the host ends; asked with True, it waits a moment for that.
    """

    def __init__(
        self,
        inner: AgentExecutor,
        runs: Mapping[str, Attempt],
        *,
        snapshots: HostTaskStore,
        appender: Appender,
        sealer: Sealer | None,
        agent: str,
        source: str,
        fail: Fail,
        ending: Callable[[bool], Awaitable[bool]],
    ) -> None:
        self._inner = inner
        self._runs = runs
        self._snapshots = snapshots
        self._appender = appender
        self._sealer = sealer
        self._agent = agent
        self._source = source
        self._fail = fail
        self._ending = ending

    async def execute(self, context: Any, event_queue: Any) -> None:
        """See the SDK: called once for each message to the task."""
        run = self._runs[context.task_id]
        if run.waits:
            _wait(run)
            return
        hold = TerminalHold(event_queue, run, self._snapshots)
        async with self._over(run, hold):
            verdict = await self._play(run, context, hold)
            run.asks = verdict is None
            if verdict is None:
                run.settled.set()
                if not run.lost:
                    run.go(AttemptState.ASKING)
            else:
                await self._conclude(run, hold, verdict)

    async def cancel(self, context: Any, event_queue: Any) -> None:
        """See the SDK. An agent that plays ends on the run's own path; here we wait until it has.

        One that asks has nothing under way, so its run ends here.
        """
        run = self._runs[context.task_id]
        asking, run.asks = run.asks, False
        run.stop(Outcome.CANCELLED)
        if asking:
            hold = TerminalHold(event_queue, run, self._snapshots)
            async with self._over(run, hold):
                assert run.stopped is not None
                await self._conclude(run, hold, run.stopped)
        await run.over.wait()

    @asynccontextmanager
    async def _over(self, run: Attempt, hold: TerminalHold) -> AsyncIterator[None]:
        """A block after which a run is over, unless its agent asks for a message."""
        try:
            yield
        except BusError as error:
            # Nothing can be written, so nothing is known: the next owner takes the run for lost.
            run.lose()
            self._fail(error, run.writer)
            await hold.finish(Ending(outcome=Outcome.HOST_LOST))
        except Exception as error:  # noqa: BLE001 - see below
            # Where exceptions end in a host: what has no name here is a mistake of ours, and what
            # the SDK would make of it, a failed task without a seal, would be a lie. The process
            # ends; its successor gives the attempt up, and the last attempt for good.
            run.lose()
            self._fail(error)
            await hold.finish(Ending(outcome=Outcome.HOST_LOST))
        finally:
            if not run.asks:
                run.over.set()

    async def _conclude(self, run: Attempt, hold: TerminalHold, verdict: Ending) -> None:
        """End a run and let its client know."""
        if verdict.outcome is Outcome.FAILED and await self._ending(verdict.signalled):
            # What ends us may have ended the agent: a crash would count against its policy.
            error = f"its host was told to end: {verdict.error}"
            verdict = Ending(outcome=Outcome.HOST_LOST, error=error)
        if run.asker is not None:
            children = await run.asker.aclose()
            verdict = msgspec.structs.replace(verdict, children=children)
        if not run.lost:
            run.go(AttemptState.ENDING)
            verdict = await self.end(run, verdict)
        run.verdict = verdict
        await hold.finish(verdict)

    async def _play(self, run: Attempt, context: Any, hold: TerminalHold) -> Ending | None:
        """Have the agent play on; how it ended, or None where it asks for a message."""
        run.asks = False
        run.settled.clear()
        if not run.lost:
            run.go(AttemptState.PLAYING)
        now = asyncio.get_running_loop().time()
        if run.ends_at is None:
            run.ends_at = now + run.sample.timeouts.attempt_s
        else:
            await hold.note("")  # from here on it works again, for its successor as well
        if run.stopped is not None:
            return run.stopped
        assert run.rollout is not None
        run.rollout._note = hold.note  # noqa: SLF001 - the two are one
        context.call_context.state[ROLLOUT] = run.rollout
        agent = asyncio.create_task(self._inner.execute(context, hold))
        run.agent = agent
        timed_out = False
        try:
            await asyncio.wait({agent}, timeout=max(0.0, run.ends_at - now))
            timed_out = not agent.done()
        finally:
            if not agent.done():
                agent.cancel()
                await asyncio.wait({agent}, timeout=KILL_S)
            run.agent = None
        return self._judge(run, agent, hold, timed_out=timed_out)

    def _judge(
        self, run: Attempt, agent: "asyncio.Task[None]", hold: TerminalHold, *, timed_out: bool
    ) -> Ending | None:
        if not agent.done():
            logger.error("run %s goes on although it was cancelled", run.episode_id)
            agent.add_done_callback(lambda task: task.cancelled() or task.exception())
        error = None if not agent.done() or agent.cancelled() else agent.exception()
        if run.stopped is not None:
            return run.stopped
        if timed_out:
            return late(run)
        if error is not None:
            return judge(error)
        if agent.cancelled():
            return Ending(outcome=Outcome.FAILED, error="the agent cancelled itself")
        return None if hold.asks and hold.terminal_status is None else hold.verdict

    async def end(self, run: Attempt, verdict: Ending) -> Ending:
        """End an episode: rewards, then the seal; or give the attempt up.

        The order makes every death harmless. Before `ending` is written the successor gives the
        attempt up and plays again. After it, the rewards are in the log and the successor seals
        with the same outcome, which changes nothing where it is sealed already.
        """
        if verdict.is_infrastructure:
            return await self._give_up(run, verdict)
        if self._sealer is None:
            return verdict  # nothing to seal: the terminal event alone says how it ended
        crash_point("run_before_rewards")
        problems = await self._publish_rewards(run)
        crash_point("rewards_before_ending")
        if problems:
            reasons = "; ".join(filter(None, [verdict.error, *problems]))
            verdict = msgspec.structs.replace(verdict, error=reasons)
        await self._snapshots.ending(run, verdict)
        crash_point("ending_before_seal")
        try:
            await self._sealer.seal(run.episode_id, verdict, wait_s=run.sample.timeouts.seal_s)
        except SealError as error:
            logger.warning("%s", error)
            return await self._give_up(run, Ending(outcome=Outcome.INCOMPLETE, error=str(error)))
        crash_point("sealed_before_status")
        return verdict

    async def _give_up(self, run: Attempt, verdict: Ending) -> Ending:
        run.retry = not run.last
        if self._sealer is not None:
            await run.writer.write(
                events.aborted(
                    run.episode_id,
                    verdict,
                    retry=run.retry,
                    source=self._source,
                    traceparent=run.called.traceparent,
                )
            )
        return verdict

    async def _publish_rewards(self, run: Attempt) -> list[str]:
        """Publish the run's rewards; return the problems of reward functions that raised.

        The seal's error names each of them. A function that raised never counts as a number.
        """
        rewards = run.rollout.rewards if run.rollout is not None else ()
        problems: list[str] = []
        sends = []
        for reward in rewards:
            with ForeignCode(asyncio.CancelledError, KeyboardInterrupt, SystemExit) as judging:
                value = await _value(reward)
            if (error := judging.error) is not None:
                problems.append(f"reward {reward.component}: {type(error).__name__}: {error}"[:300])
                # EpisodeSealed says what; a log of ours quotes nothing that an agent said.
                logger.warning("run %s: a reward raised %s", run.episode_id, error_site(error))
                continue
            entry = events.reward(
                run,
                reward.component,
                value,
                reward.explanation,
                agent=self._agent,
                source=self._source,
            )
            sends.append(
                self._appender.append(
                    entry.topic, key=entry.key, value=entry.value, headers=entry.headers
                )
            )
        await asyncio.gather(*sends)
        return problems


def _wait(run: Attempt) -> None:
    """Go on from where a run's host died as its agent asked: nothing is under way."""
    run.waits = False
    run.asks = True
    run.go(AttemptState.PLAYING)
    run.go(AttemptState.ASKING)
    run.settled.set()


def late(run: Attempt) -> Ending:
    """How a run ends whose time is over."""
    return Ending(
        outcome=Outcome.TIMED_OUT,
        error=f"the run took longer than {run.sample.timeouts.attempt_s:g} s",
    )


async def _value(reward: PendingReward) -> float:
    value = reward.value() if callable(reward.value) else reward.value
    return finite(reward.component, value)
