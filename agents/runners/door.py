"""A program's door to other agents: an address on loopback that is open while the program runs.

    POST $ODRADEK_ASK_URL   {"agent": "answerer", "message": …, "timeout_s": 30}
    200                     {"value": …, "task_id": "…"}
    4xx, 5xx                {"error": "AskFailed", "detail": "…"}

The path holds a secret of this run, so no other program of the machine can ask in its name.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from aiohttp import web

from odradek.agents.binding.requests import LARGEST
from odradek.agents.errors import AskError, AskLost, AskRefused, AskTimeout
from odradek.agents.rollout import Rollout

HOST: Final = "127.0.0.1"
STATUS: Final[dict[type[AskError], int]] = {AskRefused: 400, AskTimeout: 504, AskLost: 503}
"""Of errors; of any other one it is 502."""


class _Question(msgspec.Struct, frozen=True):
    agent: str
    message: Any = None
    timeout_s: float | None = None


@asynccontextmanager
async def open_door(rollout: Rollout) -> AsyncIterator[str]:
    """The address at which a run's program asks other agents, as long as the block lasts."""
    path = f"/{secrets.token_urlsafe(24)}/ask"

    async def ask(request: web.Request) -> web.Response:
        return await _ask(rollout, await request.read())

    app = web.Application(client_max_size=LARGEST)
    app.router.add_post(path, ask)
    # A program that goes away calls off what it asked.
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield f"http://{HOST}:{runner.addresses[0][1]}{path}"
    finally:
        await runner.cleanup()


async def _ask(rollout: Rollout, body: bytes) -> web.Response:
    try:
        question = msgspec.json.decode(body, type=_Question)
        answer = await rollout.ask(question.agent, question.message, timeout_s=question.timeout_s)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return _reply({"error": "BadQuestion", "detail": str(error)}, 400)
    except AskError as error:
        status = STATUS.get(type(error), 502)
        return _reply({"error": type(error).__name__, "detail": str(error)}, status)
    return _reply({"value": answer.value, "task_id": answer.task_id}, 200)


def _reply(value: dict[str, Any], status: int) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json"
    )
