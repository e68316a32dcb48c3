"""Whether an engine's log probabilities are of the distribution that it samples from.

Some engines give log probabilities of before the temperature, by default or by an option. So the
probe asks an engine for the likeliest tokens behind one prompt at two temperatures. At half the
temperature, the distances between their log probabilities must double. No agent sees what the
engine samples for the probe, and no turn is recorded.
"""

import asyncio
import logging
from typing import Any, Final

import msgspec
from msgspec import Struct

from odradek.proxy.engines.client import BUSY, Engine
from odradek.proxy.engines.logprobs_mode import COOL, WARM, LogprobsMode, judge
from odradek.proxy.engines.refusal import lesser
from odradek.proxy.errors import EngineBusy, EngineError
from odradek.proxy.wire.body import UNREADABLE
from odradek.schemas.http.engine import CHAT, MODELS, TOKEN_IDS, Capability
from odradek.schemas.http.reply import ServedModels
from odradek.schemas.sampling import NEUTRAL

USER: Final = "odradek-probe"
"""The user of the probe's requests."""
ANY: Final = "policy"
"""The name of a model whose engine lists none."""
TOP: Final = 5
PROBE_S: Final = 10.0
TRIES: Final = 3
"""After so many answers that prove nothing, the engine counts as unproved for good."""

log = logging.getLogger("odradek.proxy")


class LogprobsProbe:
    """The result for one engine; probed again if another may answer at its address.

    Args:
        engine: The engine.
        model: Which of its models; "" for the first that it lists.
    """

    def __init__(self, engine: Engine, model: str = "") -> None:
        self.mode: LogprobsMode | None = None
        """None until the engine has answered."""
        self._engine = engine
        self._model = model
        self._tries = 0
        self._idless = False
        """Whether a reply had no token ids, which is logged once."""
        self._asking = asyncio.Lock()

    def lost(self) -> None:
        """Whatever answers there next may be another."""
        self.mode, self._tries, self._idless = None, 0, False

    async def prove(self) -> LogprobsMode:
        """Ask, unless the mode is known; concurrent callers wait for the same answer."""
        async with self._asking:
            if self.mode is None and (mode := await self._ask()) is not None:
                self._tries += 1
                if mode is not LogprobsMode.UNPROVED or self._tries >= TRIES:
                    self._learn(mode)
            return self.mode or LogprobsMode.UNPROVED

    def _learn(self, mode: LogprobsMode) -> None:
        self.mode = mode
        if mode is LogprobsMode.RAW:
            log.error("%s", self.wrong)
        elif mode is LogprobsMode.UNPROVED:
            log.warning(
                "the engine at %s does not tell whether its log probabilities are of the "
                "distribution after the temperature: only what it samples at temperature 1 can be "
                "trained on",
                self._engine.url,
            )

    @property
    def wrong(self) -> str:
        """The engine's fault in words, "" for none."""
        if self.mode is not LogprobsMode.RAW:
            return ""
        return (
            f"the log probabilities of the engine at {self._engine.url} are not of the "
            "distribution that it samples from, so nothing of it can be trained on: "
            + self._engine.adapter.advice[Capability.LOGPROBS]
        )

    async def _ask(self) -> LogprobsMode | None:
        """None where it did not answer, or is busy."""
        try:
            async with asyncio.timeout(PROBE_S):
                await self._engine.recognize()
                name = self._model or await self._first()
                mode = await self._judged(name)
                # Asked twice, since much depends on it: a batch may have shaken one answer.
                return await self._judged(name) if mode is LogprobsMode.RAW else mode
        except (EngineError, TimeoutError):
            return None
        except UNREADABLE:
            return LogprobsMode.UNPROVED

    async def _judged(self, model: str) -> LogprobsMode:
        return judge(await self._top(model, WARM), await self._top(model, COOL))

    async def _first(self) -> str:
        """The name of its first model."""
        status, _, body = await self._engine.get(MODELS.path)
        names = msgspec.json.decode(body, type=ServedModels).data if status == 200 else []
        return names[0].id if names else ANY

    async def _top(self, model: str, temperature: float) -> dict[str, float]:
        """The likeliest first tokens of a reply, each with its log probability."""
        question = {
            "temperature": temperature, "model": model, "user": USER,
            "messages": [{"role": "user", "content": "Name a number."}], "max_tokens": 1,
            "logprobs": True, "top_logprobs": TOP,
        }  # fmt: skip
        # Older engines of another kind know no such field, and say nothing of it.
        ids = {} if self._engine.adapter.native else {TOKEN_IDS: True}
        written: dict[str, Any] | None = {**NEUTRAL, **ids}
        while written is not None:
            body = msgspec.json.encode({**written, **question})
            async with await self._engine.ask(CHAT.path, body, None) as answer:
                reply = await answer.read()
            if answer.status in BUSY:
                raise EngineBusy("the engine answers no question now")
            if answer.status == 200:
                return self._tops(reply)
            # An engine that does not know a field is asked again without it, as calls are.
            written = lesser(written, reply)
        return {}

    def _tops(self, reply: bytes) -> dict[str, float]:
        choices = msgspec.json.decode(reply, type=_Reply).choices
        expects_ids = not self._engine.adapter.native
        if expects_ids and choices and not choices[0].token_ids and not self._idless:
            self._idless = True
            log.error(
                "the engine at %s gives no token ids with its replies, so nothing of it can be "
                "trained on: %s",
                self._engine.url,
                self._engine.adapter.advice[Capability.TOKEN_IDS],
            )
        content = choices[0].logprobs.content if choices and choices[0].logprobs else None
        tops = content[0].top_logprobs if content else None
        return {top.token: top.logprob for top in tops or ()}


class _Top(Struct):
    token: str
    logprob: float


class _Token(Struct):
    top_logprobs: list[_Top] | None = None


class _Logprobs(Struct):
    content: list[_Token] | None = None


class _Choice(Struct):
    logprobs: _Logprobs | None = None
    token_ids: list[int] | None = None


class _Reply(Struct):
    choices: list[_Choice] = []
