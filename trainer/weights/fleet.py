"""Several engines that serve one policy: all are loaded at once, and none holds up the others.

Each engine has a task of its own that brings it to the newest weights, and back to them whenever it
was away. So a swap waits for those that are well, goes on without one that is dead or hangs, and
finds it loaded once it is back. What is waited for is decided in `verdict`, which is pure.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from enum import Enum
from pathlib import Path
from typing import Final

from msgspec import Struct

from odradek.trainer.errors import EngineDown, EngineFailure, EngineRefused
from odradek.trainer.weights.client import EngineClient

LOOK_S: Final = 5.0
"""How often an engine that has the weights is asked whether it still has them."""
PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0


class SwapStatus(Enum):
    """The state of a swap at one engine."""

    LOADING = "loading"
    """It is loading the weights, or answered when it was asked last."""
    HAS = "has"
    """It has the weights."""
    AWAY = "away"
    """It does not answer; it is asked again and again."""
    REFUSED = "refused"
    """It answered with an error; it is asked again and again."""


class SwapDecision(Enum):
    """The next action of a swap."""

    WAIT = "wait"
    GO = "go"
    GIVE_UP = "give_up"


def verdict(fates: Collection[SwapStatus], *, over: bool) -> SwapDecision:
    """Whether a swap is done.

    Whoever is away is waited for only while nobody has the weights: it is loaded when it is back.

    Args:
        fates: Of every engine.
        over: Whether the time is up.
    """
    if SwapStatus.LOADING in fates and not over:
        return SwapDecision.WAIT
    if SwapStatus.HAS in fates or not fates:
        return SwapDecision.GO
    return SwapDecision.WAIT if SwapStatus.AWAY in fates and not over else SwapDecision.GIVE_UP


class TargetWeights(Struct, frozen=True):
    """The weights that every engine should have."""

    folder: Path
    version: int


class FleetEngine:
    """An engine of the fleet, and how far it is."""

    def __init__(self, client: EngineClient) -> None:
        self.client = client
        self.version = 0
        """What it serves; 0 where nobody knows."""
        self.fate = SwapStatus.LOADING
        self.error: EngineFailure | None = None
        self.task: asyncio.Task[None] | None = None


class Fleet:
    """Loads weights into engines.

    Args:
        clients: One for each.
        timeout_s: How long one may say nothing before it counts as away.
        tell: Gets a line on what a person may want to know.
    """

    def __init__(
        self, clients: Sequence[EngineClient], *, timeout_s: float, tell: Callable[[str], None]
    ) -> None:
        self._members = [FleetEngine(client) for client in clients]
        self._timeout_s = timeout_s
        self._tell = tell
        self._target: TargetWeights | None = None
        self._news = asyncio.Event()
        """Something has become of a swap somewhere."""
        self._new_target = asyncio.Event()

    async def reach(self) -> None:
        """Return once one of the engines answers. Raises EngineDown after `timeout_s`."""
        if not self._members:
            return
        asking = [asyncio.create_task(self._reached(member)) for member in self._members]
        try:
            done, _ = await asyncio.wait(
                asking, timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        if not done:
            raise self._down()
        for task in done:
            task.result()

    async def _reached(self, member: FleetEngine) -> None:
        pause_s = PAUSE_S
        while True:
            try:
                return await member.client.answers()
            except EngineDown:
                self._say_away(member)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def swap(self, folder: Path, version: int) -> dict[str, int]:
        """Have the engines load `folder` and call it `version`, all at once.

        Returns:
            By address, the version that each of them serves now: `version`, of one at least; else
            what it had, 0 where nobody knows.

        Raises:
            EngineDown: None of them has the weights after `timeout_s`.
            EngineRefused: None of them has them, and one answered with an error.
        """
        self._target = TargetWeights(folder, version)
        for member in self._members:
            if member.fate is SwapStatus.HAS:
                member.fate = SwapStatus.LOADING
            if member.task is None:
                member.task = asyncio.create_task(self._tend(member))
                member.task.add_done_callback(lambda _: self._news.set())
        self._new_target.set()
        self._new_target.clear()
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout_s
        while True:
            self._news.clear()
            self._raise_what_broke()
            over = loop.time() >= until
            decision = verdict([member.fate for member in self._members], over=over)
            if decision is SwapDecision.WAIT:
                await _set_within(self._news, until - loop.time())
                continue
            for member in self._members if over else ():
                if member.fate is SwapStatus.LOADING:
                    self._away(member, self._down(member))
            if decision is SwapDecision.GIVE_UP:
                raise self._why()
            return {member.client.url: member.version for member in self._members}

    async def _tend(self, member: FleetEngine) -> None:
        """Bring an engine to the newest weights, for ever."""
        pause_s = PAUSE_S
        while True:
            target = self._target
            assert target is not None
            if member.version == target.version:
                await self._look(member, target)
                continue
            try:
                await member.client.load(target.folder, target.version, lambda: _well(member))
            except EngineDown as error:
                self._away(member, error)
            except EngineRefused as error:
                self._refused(member, error)
            else:
                self._has(member, target)
                pause_s = PAUSE_S
                continue
            if self._target is target:
                await _set_within(self._new_target, pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _look(self, member: FleetEngine, target: TargetWeights) -> None:
        """Return at the next target, or once an engine has lost this one.

        One that was started anew, by a supervisor who knows nothing of us, has its first weights.
        """
        while not await _set_within(self._new_target, LOOK_S):
            try:
                served = await member.client.serves()
            except EngineDown as error:
                if self._target is target:
                    self._away(member, error)
                return
            if self._target is not target:
                return
            if served not in {None, target.version}:
                member.version = served or 0
                self._tell(f"engine {member.client.url} serves other weights: loading it")
                return

    def _has(self, member: FleetEngine, target: TargetWeights) -> None:
        if member.error is not None:
            self._tell(f"engine {member.client.url} is back, and has version {target.version}")
        member.version, member.error = target.version, None
        if self._target is target:
            member.fate = SwapStatus.HAS
        self._news.set()

    def _away(self, member: FleetEngine, error: EngineFailure) -> None:
        self._say_away(member)
        self._lost(member, SwapStatus.AWAY, error)

    def _refused(self, member: FleetEngine, error: EngineFailure) -> None:
        if str(member.error) != str(error):
            self._tell(str(error))
        self._lost(member, SwapStatus.REFUSED, error)

    def _lost(self, member: FleetEngine, fate: SwapStatus, error: EngineFailure) -> None:
        # Between two weights, or none of those that it had: it may have been started anew.
        member.version, member.fate, member.error = 0, fate, error
        self._news.set()

    def _say_away(self, member: FleetEngine) -> None:
        if member.error is None:
            member.error = self._down(member)
            self._tell(f"engine {member.client.url} does not answer: waiting for it")

    def _down(self, member: FleetEngine | None = None) -> EngineDown:
        members = [member] if member is not None else self._members
        urls = ", ".join(member.client.url for member in members)
        return EngineDown(f"no engine answers at {urls}: start it, or correct its URL")

    def _why(self) -> EngineFailure:
        errors = [member.error for member in self._members if member.error is not None]
        refused = [error for error in errors if isinstance(error, EngineRefused)]
        return (refused or errors)[0]

    def _raise_what_broke(self) -> None:
        for member in self._members:
            if member.task is not None and member.task.done():
                member.task.result()

    async def aclose(self) -> None:
        """Look after the engines no longer, and leave them as they are."""
        tasks = [member.task for member in self._members if member.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for member in self._members:
            member.task, member.version = None, 0


def _well(member: FleetEngine) -> None:
    """It answers: from here on a swap waits for it."""
    member.fate = SwapStatus.LOADING


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether an event is set within a time."""
    try:
        async with asyncio.timeout(max(seconds, 0)):
            await event.wait()
    except TimeoutError:
        return False
    return True
