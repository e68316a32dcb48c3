"""The proxy: its parts put together, and its routes."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from string import ascii_letters, digits
from typing import Final

import msgspec
from aiohttp import web

from odradek.infra.bus import Appender
from odradek.infra.errors import BusError
from odradek.infra.runtime import metrics
from odradek.infra.runtime.foreign_code import error_site
from odradek.proxy.auth import Authenticator, Permit
from odradek.proxy.calls.agent_replies import JSON, error_answer, of_http
from odradek.proxy.calls.call import LEFT
from odradek.proxy.calls.handler import CallHandler
from odradek.proxy.dialects import SURFACES, keys_in_query, models, surface_of
from odradek.proxy.dialects.dialect import Dialect
from odradek.proxy.dialects.surface import MODEL, ROOTS, Surface
from odradek.proxy.engines.policy_version import PolicyVersions
from odradek.proxy.engines.pool import Pool, others
from odradek.proxy.engines.versions import ServedVersions
from odradek.proxy.episodes.episode import EpisodePhase
from odradek.proxy.episodes.registry import EpisodeRegistry
from odradek.proxy.errors import (
    EngineError,
    HeadersTooLarge,
    LogLost,
    LogRefused,
    NoSuchRoute,
    ProxyError,
)
from odradek.proxy.log.writer import TurnWriter
from odradek.proxy.seal import Seals, read
from odradek.proxy.settings import LOG_PATIENCE_S, ProxySettings
from odradek.schemas.http.engine import HEALTH, MODELS
from odradek.schemas.http.seal import SEAL

log = logging.getLogger("odradek")
SWEEP_S: Final = 1.0
ORPHAN_S: Final = 15.0
"""How long a call goes on whose client has left, for a retry to join it."""
IDLE_S: Final = 900.0
"""An episode's history leaves the memory after so long without a call."""
SEALED_S: Final = 7200.0
"""How long sealed episodes are remembered, and how long unsealed ones at least."""
MAX_HEADER_BYTES: Final = 32 * 1024
"""Largest headers of a request, all together."""
PROBE_S: Final = 3.0
WRITER: Final = ascii_letters + digits
"""The characters of a boot id. It has seven, 41 bits, since each turn holds it five times."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Probe = Callable[[], Awaitable[None]]


class Proxy:
    """All parts of a proxy, put together over a log.

    Args:
        settings: Checked already.
        appender: The log.
        keys: What tokens are signed with.
        versions: What is known of the policy in force.
        log_probe: Raises BusError while the log cannot be reached.
        proves: Whether engines are asked what their log probabilities are of (`logprobs`).
    """

    def __init__(
        self,
        settings: ProxySettings,
        appender: Appender,
        *,
        keys: Sequence[str] = (),
        versions: ServedVersions | None = None,
        log_probe: Probe | None = None,
        proves: bool = False,
    ) -> None:
        clock = time.monotonic
        self.settings = settings
        self.writer = "".join(secrets.choice(WRITER) for _ in range(7))
        self.engine = Pool.of(
            settings, versions or PolicyVersions(settings.policy), clock, proves=proves
        )
        self.others = others(settings, clock, proves=proves)
        self.pools = (self.engine, *self.others.values())
        self.turn_writer = TurnWriter(appender, self.writer, clock, wait_s=settings.log_timeout_s)
        self.episodes = EpisodeRegistry(
            clock,
            idle_s=IDLE_S,
            keep_s=SEALED_S,
            max_bytes=settings.max_history_bytes,
        )
        self.authenticator = Authenticator(keys, unattributed=settings.unattributed)
        self.calls = CallHandler(
            settings,
            self.engine,
            self.turn_writer,
            self.episodes,
            clock,
            self.others,
        )
        self.seals = Seals(
            self.turn_writer,
            self.episodes,
            wait_s=settings.seal_wait_s,
            log_s=settings.log_timeout_s,
        )
        self.refused: Counter[str] = Counter()
        """Requests that were answered with a 4xx of ours, by its code."""
        self._clock = clock
        self._log_probe = log_probe

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=self.settings.max_body_bytes)
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "/healthz", self.healthz),
            ("GET", "/readyz", self.readyz),
            ("POST", SEAL, self.seal),
            ("*", "/{rest:.*}", self.missing),
        ]
        for root in ROOTS:
            for surface in SURFACES:
                self._serve(app.router, root, surface, model_in_path=False)
            app.router.add_get(f"{root}/models", self.guarded(self.models))
            app.router.add_get(root + MODEL, self.guarded(self.models))
        for surface in SURFACES:
            for root in (*ROOTS, *surface.roots):
                self._serve(app.router, root, surface, model_in_path=True)
            listing = self.guarded(self.models, surface.dialect)
            for root in surface.roots:
                self._serve(app.router, root, surface, model_in_path=False)
                app.router.add_get(f"{root}/models", listing)
                app.router.add_get(root + MODEL, listing)
        for method, path, handler in routes:
            app.router.add_route(method, path, self.guarded(handler))
        app.cleanup_ctx.append(self._lifespan)
        return app

    def _serve(
        self, router: web.UrlDispatcher, root: str, surface: Surface, *, model_in_path: bool
    ) -> None:
        """Add a dialect's routes below a root: those that name the model, or the others."""
        for path, dialect in surface.calls.items():
            if path.startswith(":") is model_in_path:
                handler = self.guarded(self._call_handler(surface, dialect), dialect)
                router.add_post(root + MODEL * model_in_path + path, handler)
        for path, count in surface.counts.items():
            if path.startswith(":") is model_in_path:
                handler = self.guarded(self._count_handler(surface, count.field), surface.dialect)
                router.add_post(root + MODEL * model_in_path + path, handler)
        for path in () if model_in_path else surface.sockets:
            router.add_get(root + path, self.guarded(self._refuse_socket(surface), surface.dialect))

    async def _lifespan(self, _: web.Application) -> AsyncIterator[None]:
        for pool in self.pools:
            await pool.start()
        chores = [
            asyncio.create_task(chore)
            for chore in (self._sweep(), self._settle_turns(), self._prove())
        ]
        yield
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
        for pool in self.pools:
            await pool.aclose()

    def _permit(self, request: web.Request) -> Permit:
        """The rights that an agent's token gives: none once its episode has ended."""
        episode = request.match_info.get("episode")
        # Nearly no address has a query, so nearly none is looked at.
        queries = bool(request.query_string) and keys_in_query(request)
        permit = self.authenticator.enter(request, episode, "call", queries=queries)
        self.episodes.check(permit.episode_id)
        return permit

    def _call_handler(self, surface: Surface, dialect: Dialect) -> Handler:
        """POST of a model call in one dialect."""
        at = surface.at

        async def call(request: web.Request) -> web.StreamResponse:
            permit = self._permit(request)
            return await self.calls.complete(request, permit, at(dialect, request))

        return call

    def _count_handler(self, surface: Surface, field: str) -> Handler:
        """POST of a count of tokens: nothing is sampled, so nothing is recorded."""

        async def count(request: web.Request) -> web.StreamResponse:
            permit = self._permit(request)
            dialect = surface.at(surface.dialect, request)
            return _json(200, {field: await self.calls.count(request, permit, dialect)})

        return count

    async def models(self, request: web.Request) -> web.StreamResponse:
        """GET models: the engine's answer, or one of them, as the caller's dialect lists them."""
        self._permit(request)
        status, headers, body = await self.engine.get(MODELS.path)
        name = request.match_info.get("model")
        surface = surface_of(request)
        if status == 200:
            body = models.added(body, self.settings.models)
            if name is not None or surface.models is not None:
                body = models.listed(body, name, surface.models or models.OPENAI)
        elif status >= 400:
            headers, body = headers | JSON, surface.dialect.refusal(body, status)
        return web.Response(status=status, headers=headers, body=body)

    def _refuse_socket(self, surface: Surface) -> Handler:
        """GET that asks for a WebSocket: without this answer Codex tries for 6 s."""

        async def refuse(request: web.Request) -> web.StreamResponse:
            self._permit(request)
            if request.headers.get("Upgrade", "").lower() != "websocket":
                raise NoSuchRoute("the proxy has no such GET: POST a response's request")
            error = NoSuchRoute("responses come over HTTP here, not over a WebSocket")
            body = surface.dialect.error(error)
            return web.Response(status=426, headers=JSON | {"Upgrade": "HTTP/1.1"}, body=body)

        return refuse

    async def seal(self, request: web.Request) -> web.StreamResponse:
        """POST seal, with a host's token."""
        permit = self.authenticator.enter(request, request.match_info["episode"], "host")
        sealing = await self.seals.seal(permit.episode_id, read(await request.read()))
        return _json(200, msgspec.to_builtins(sealing))

    async def healthz(self, _: web.Request) -> web.StreamResponse:
        """GET healthz: the process lives."""
        health = {
            "status": "ok", "writer": self.writer, "turns": self.turn_writer.turns,
            "episodes": len(self.episodes), "lost": self.calls.lost, "refused": self.refused,
            "failed": self.calls.failed, "side_calls": self.calls.side_calls.count,
            "engines": {"up": self.engine.up, "all": len(self.engine)},
        }  # fmt: skip
        return _json(200, health)

    async def readyz(self, _: web.Request) -> web.StreamResponse:
        """GET readyz: the log and the engine answer."""
        problems: dict[str, str] = {}
        if self.turn_writer.health.failing_since is not None:
            problems["log"] = "the log takes no turns now"
        elif problem := await self._ask_log():
            problems["log"] = problem
        try:
            status, _headers, _body = await self.engine.get(HEALTH.path, timeout_s=5.0)
            if status >= 400:
                problems["engine"] = f"the engine's /health answers {status}"
            elif faults := await self.engine.prove():
                problems["engine"] = "; ".join(faults)
        except EngineError as error:
            problems["engine"] = str(error)
        return _json(
            503 if problems else 200, {"status": "not ready" if problems else "ready", **problems}
        )

    async def missing(self, request: web.Request) -> web.StreamResponse:
        """Every other address."""
        # A token may stand in the path, so the path is not repeated in what somebody may log.
        raise NoSuchRoute(
            f"the proxy has no such {request.method}: base URLs look like /e/EPISODE/v1"
        )

    async def _ask_log(self) -> str:
        """The problem with the brokers; "" if they answer."""
        if self._log_probe is None:
            return ""
        try:
            async with asyncio.timeout(PROBE_S):
                await self._log_probe()
        except TimeoutError:
            return f"no Kafka answers within {PROBE_S:g} s"
        except BusError as error:
            return str(error)
        return ""

    def check_log(self) -> None:
        """Raise LogLost if the brokers answer, and have taken nothing from us for too long.

        While they are away no restart helps. Agents are then better off with a proxy that answers
        with Retry-After than with no proxy.
        """
        if self.turn_writer.health.lost(LOG_PATIENCE_S):
            raise LogLost(
                f"Kafka answers, and has taken nothing from us for {LOG_PATIENCE_S:g}"
                " s: beginning afresh"
            )

    async def _settle_turns(self) -> None:
        """While the log takes nothing, write again what it did not take, even without new calls."""
        health = self.turn_writer.health
        while True:
            await asyncio.sleep(SWEEP_S)
            if health.failing_since is None:
                continue
            answers = not await self._ask_log()
            health.answers(yes=answers)
            unsure = [episode for episode in self.episodes if episode.unsure]
            with contextlib.suppress(LogRefused):
                for episode in unsure if answers else ():
                    await self.turn_writer.settle(episode)
            if answers and not unsure:
                # Only a write that is not repeated here was refused, such as a seal: let the next
                # one try.
                health.took()

    async def _prove(self) -> None:
        """Ask engines about their log probabilities as soon as they are up, not at a first call."""
        while unproved := [pool for pool in self.pools if not pool.proved]:
            await asyncio.gather(*(pool.prove() for pool in unproved))
            await asyncio.sleep(SWEEP_S)

    async def _sweep(self) -> None:
        """Free memory, and end calls whose clients have left and sent no retry."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self.episodes.sweep()
            now = self._clock()
            for episode in self.episodes:
                for call in episode.calls:
                    if not call.gone or call.follows:
                        call.gone_since = None
                        continue
                    call.gone_since = call.gone_since or now
                    waited = now - call.gone_since
                    if episode.stage is not EpisodePhase.OPEN or waited >= ORPHAN_S:
                        call.stop(LEFT, in_s=0)

    def guarded(self, handler: Handler, dialect: Dialect | None = None) -> Handler:
        """A handler whose errors become answers in the words of its dialect, or the caller's."""

        async def answer(request: web.Request) -> web.StreamResponse:
            outcome = await self._answer(handler, request)
            if isinstance(outcome, web.StreamResponse):
                return outcome
            if outcome.status < 500:
                self.refused[outcome.code] += 1
                metrics.moved(metrics.REFUSED, code=outcome.code)
            reply = error_answer(outcome, dialect or surface_of(request).dialect)
            response = web.Response(
                status=reply.status, headers=reply.headers, body=b"".join(reply.chunks)
            )
            if request.content.exception() is not None:
                # Nobody knows where the next request begins: say that the connection ends here.
                response.force_close()
            return response

        return answer

    async def _answer(
        self, handler: Handler, request: web.Request
    ) -> web.StreamResponse | ProxyError:
        limit = MAX_HEADER_BYTES
        size = sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
        if size > limit or len(request.raw_path) > limit:
            return HeadersTooLarge(f"the request's headers exceed {limit} bytes")
        try:
            return await handler(request)
        except ProxyError as error:
            return error
        except web.HTTPException as error:
            return of_http(error)
        except ConnectionError:
            raise  # the client has left: nobody reads an answer
        # The one place: a bug in one call must not end the calls of all other episodes. The type
        # is logged and no text, since that may hold what an agent said.
        except Exception as error:  # noqa: BLE001 - see above
            log.error("a bug answered 500: %s", error_site(error))  # noqa: TRY400 - no content in logs
            return ProxyError("the proxy failed on this call")


def _json(status: int, value: object) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(value), content_type="application/json"
    )
