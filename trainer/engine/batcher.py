"""Requests that come one by one are sampled together: the micro-batches of the small engine.

torch runs in one worker thread, so the event loop stays free. Weights change only between two
micro-batches, in that same thread: every reply is of one version, and its single span says which.
Pausing keeps requests (vLLM's `mode=keep`): those being sampled are finished, the others wait.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load_file

from odradek.trainer.engine import adapters
from odradek.trainer.engine.adapters import LoadedAdapter
from odradek.trainer.engine.decode import Sampler, SampleRequest, SampleResult
from odradek.trainer.errors import EngineDown, UnsupportedRequest

MAX_BATCH: Final = 64
"""Requests sampled together."""
GATHER_S: Final = 0.002
"""How long the first request of a batch waits for company."""
MAX_QUEUE: Final = 8192
"""Requests that may wait; more are answered with 503."""


@dataclass(frozen=True)
class Generation:
    """A request's completion, and the version of the weights that sampled it."""

    sampled: SampleResult
    version: int


@dataclass(frozen=True)
class _Waiting:
    request: SampleRequest
    answer: "asyncio.Future[Generation]"


class Batcher:
    """Owns the sampler and the version of its weights."""

    def __init__(
        self,
        sampler: Sampler,
        *,
        max_batch: int = MAX_BATCH,
        gather_s: float = GATHER_S,
        max_queue: int = MAX_QUEUE,
    ) -> None:
        self.version = 0
        self.adapters: dict[str, LoadedAdapter] = {}
        """By name; a call under way keeps the one that it named."""
        self.batches = 0
        self._sampler = sampler
        self._max_batch = max_batch
        self._gather_s = gather_s
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(max_queue)
        self._going = asyncio.Event()
        self._going.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sampler")

    @property
    def paused(self) -> bool:
        """Whether requests are kept waiting."""
        return not self._going.is_set()

    async def sample(self, request: SampleRequest) -> Generation:
        """Sample one request. Raises EngineDown if too many wait."""
        answer: asyncio.Future[Generation] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(_Waiting(request, answer))
        except asyncio.QueueFull:
            raise EngineDown("too many requests wait: try again later") from None
        return await answer

    async def pause(self) -> None:
        """Start no more batches; return when the one under way is done."""
        self._going.clear()
        await self._idle.wait()

    def resume(self) -> None:
        """Go on."""
        self._going.set()

    async def load(self, folder: Path, version: int | None = None) -> None:
        """Take the weights of a folder. Raises UnsupportedRequest; the old weights stay then.

        Args:
            folder: Holds safetensors of the same architecture.
            version: What they are called from then on; None leaves that to `rename`.
        """
        await self._in_thread(self._load, folder, version)

    async def load_adapter(self, name: str, folder: Path) -> None:
        """Take the adapter of a folder, under a name that none has. Raises UnsupportedRequest."""
        adapter = await self._in_thread(adapters.load, self._sampler.model, name, folder)
        if name in self.adapters:
            raise UnsupportedRequest(f"the adapter {name!r} has been loaded already")
        self.adapters[name] = adapter

    def forget_behind(self, kept: int) -> None:
        """Forget all adapters but the newest ones."""
        names = sorted(self.adapters, key=lambda name: self.adapters[name].version)
        for name in names[:-kept]:
            del self.adapters[name]

    async def rename(self, version: int) -> None:
        """Call the weights in force `version`."""
        await self._in_thread(setattr, self, "version", version)

    async def run(self) -> None:
        """Sample for ever; ends when cancelled."""
        try:
            while True:
                batch = [await self._queue.get()]
                # Company saves more than the wait costs, unless enough wait already.
                if self._gather_s and self._queue.qsize() < self._max_batch - 1:
                    await asyncio.sleep(self._gather_s)
                await self._going.wait()
                while len(batch) < self._max_batch and not self._queue.empty():
                    batch.append(self._queue.get_nowait())
                # Callers that have gone away need no tokens.
                batch = [waiting for waiting in batch if not waiting.answer.done()]
                if batch:
                    await self._answer(batch)
        finally:
            self._thread.shutdown(wait=False)

    async def _answer(self, batch: list[_Waiting]) -> None:
        self._idle.clear()
        try:
            answers = await self._in_thread(self._sample, [waiting.request for waiting in batch])
        except (RuntimeError, ValueError, IndexError) as error:
            # A batch that torch refuses (memory, an id beyond the vocabulary) fails alone.
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(UnsupportedRequest(f"sampling failed: {error}"))
        else:
            for waiting, answer in zip(batch, answers, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)
        finally:
            self._idle.set()

    def _sample(self, rows: list[SampleRequest]) -> list[Generation]:
        """Results in the order of the rows; those of each adapter are sampled together."""
        self.batches += 1
        answers: dict[int, Generation] = {}
        for adapter in dict.fromkeys(row.adapter for row in rows):
            version = self.version if adapter is None else adapter.version
            places = [place for place, row in enumerate(rows) if row.adapter is adapter]
            results = self._sampler.sample([rows[place] for place in places])
            answers |= {
                place: Generation(result, version)
                for place, result in zip(places, results, strict=True)
            }
        return [answers[place] for place in range(len(rows))]

    def _load(self, folder: Path, version: int | None) -> None:
        files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        if not files:
            raise UnsupportedRequest(f"{folder} holds no safetensors")
        try:
            weights = {k: v for file in files for k, v in load_file(file).items()}
        except (OSError, SafetensorError) as error:
            raise UnsupportedRequest(f"the weights in {folder} cannot be read: {error}") from error
        model = self._sampler.model
        own = model.state_dict()
        tied = set(getattr(model, "_tied_weights_keys", None) or ())
        absent = [name for name in own if name not in weights and name not in tied]
        alien = [name for name in weights if name not in own]
        unequal = [n for n in weights if n in own and weights[n].shape != own[n].shape]
        if absent or alien or unequal:
            first = (absent + alien + unequal)[0]
            raise UnsupportedRequest(f"the weights in {folder} are of another model ({first})")
        model.load_state_dict(weights, strict=False)
        model.tie_weights()
        if version is not None:
            self.version = version

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
