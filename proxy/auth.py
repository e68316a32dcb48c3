"""Who may call what: the signed token decides, never a header or a path alone."""

import logging
import re
import time
import uuid
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web
from msgspec import Struct

from odradek.infra.errors import TokenError
from odradek.infra.runtime import episode_tokens
from odradek.infra.runtime.episode_tokens import Claims, Scope
from odradek.proxy.errors import BadRequest, Forbidden, Unauthorized

MAX_CACHED: Final = 8192
ELSEWHERE: Final = frozenset({"wrong_scope", "other_episode"})
"""Reasons to refuse a token that is good for another request."""
KEYS: Final = ("x-api-key", "x-goog-api-key")
"""Headers that hold a token and nothing else, as Anthropic's and Google's clients send it."""
_EPISODE: Final = re.compile(r"[^\x00-\x20/\x7f]{1,256}")

log = logging.getLogger("odradek.proxy")


class Permit(Struct, frozen=True, kw_only=True):
    """The rights of a caller."""

    episode_id: str
    agent: str = ""
    model: str = ""
    sampling: dict[str, Any] = {}
    max_calls: int = 0
    """The episode's budget of calls, by its token; 0 for none."""
    max_tokens: int = 0
    """The same of tokens."""
    call_s: float = 0.0
    """The token's deadline for a call; 0 for none."""
    lasts_s: float = 0.0
    """How long its token is still good."""
    holder: int = 0
    """Which token it was, among those of its episode."""
    unattributed: bool = False
    trace: str = ""
    """W3C traceparent of the run that the token was minted for."""


class Authenticator:
    """Checks credentials.

    Args:
        keys: What tokens are signed with; empty only where calls need none.
        unattributed: Whether a call without token and episode is let through.
    """

    def __init__(self, keys: Sequence[str], *, unattributed: bool = False) -> None:
        self._keys = list(keys)
        self._unattributed = unattributed
        self._cached: dict[str, Claims] = {}

    def enter(
        self,
        request: web.Request,
        episode_id: str | None,
        scope: Scope,
        *,
        queries: bool = False,
    ) -> Permit:
        """The rights of this request. Raises Unauthorized, Forbidden or BadRequest.

        Args:
            request: The request.
            episode_id: Of its address, if there is one in it.
            scope: What it asks for.
            queries: Whether the address may hold a token as `?key=`, as Google's may.
        """
        if episode_id is not None and not _EPISODE.fullmatch(episode_id):
            raise BadRequest("an episode's name has 1 to 256 characters, no blanks and no slash")
        # Clients send some key, even a made-up one: without keys of ours it means nothing.
        token = _token(request, queries=queries) if self._keys else None
        agent = request.headers.get("X-Agent-ID", "")
        if len(agent) > 256:
            raise BadRequest("X-Agent-ID has over 256 characters")
        if episode_id is None and token is None and self._unattributed:
            name = f"unattributed-{uuid.uuid4()}"
            return Permit(episode_id=name, agent=agent, unattributed=True)
        if not self._keys:
            if episode_id is None:
                raise Unauthorized("call /e/EPISODE/v1/..., or let unattributed calls in")
            return Permit(episode_id=episode_id, agent=agent)
        if token is None:
            raise Unauthorized(
                "no token: send the episode's token as `Authorization: Bearer TOKEN` or "
                "`x-api-key: TOKEN` (`x-goog-api-key`), or call /t/TOKEN/v1/..."
            )
        return self._permit(token, episode_id, scope, agent)

    def _permit(self, token: str, episode_id: str | None, scope: Scope, agent: str) -> Permit:
        now = time.time()
        try:
            claims = self._claims(token)
            episode = claims.sub if episode_id is None else episode_id
            episode_tokens.check(claims, episode_id=episode, scope=scope, now=now)
        except TokenError as error:
            kind = Forbidden if error.reason in ELSEWHERE else Unauthorized
            raise kind(str(error)) from None
        if agent and claims.agent and agent != claims.agent:
            log.warning("X-Agent-ID disagrees with the token, refused; episode %s", episode)
            raise Forbidden("X-Agent-ID names another agent than the token")
        return Permit(
            episode_id=episode,
            agent=claims.agent or agent,
            model=claims.model,
            sampling=claims.sampling,
            max_calls=claims.max_calls,
            max_tokens=claims.max_tokens,
            call_s=claims.call_s,
            lasts_s=max(0.0, claims.exp - now),
            holder=hash(token),
            trace=claims.trace,
        )

    def _claims(self, token: str) -> Claims:
        """A token's claims; the cache goes by the whole token, since a prefix is another token."""
        claims = self._cached.get(token)
        if claims is None:
            claims = episode_tokens.read(token, self._keys)
            if len(self._cached) >= MAX_CACHED:
                del self._cached[next(iter(self._cached))]
            self._cached[token] = claims
        return claims


def _token(request: web.Request, *, queries: bool) -> str | None:
    """The one token of a request, or None.

    If the path has a token, no other is looked at: such a client cannot set headers, and sends in
    them whatever its author has put there. Elsewhere, two tokens are an error: we do not guess.
    """
    if (in_path := request.match_info.get("token")) is not None:
        return in_path
    bearers = request.headers.getall("Authorization", [])
    kinds = [bearers, *(request.headers.getall(name, []) for name in KEYS)]
    if queries:
        kinds.append(request.query.getall("key", []))
    keys = [key.strip() for kind in kinds[1:] for key in kind]
    tokens = {_bearer(header) for header in bearers} | set(keys)
    if max(len(tokens), *map(len, kinds)) > 1:
        raise Unauthorized("send one token, and once: `Authorization: Bearer TOKEN`")
    return tokens.pop() if tokens else None


def _bearer(header: str) -> str:
    """The token of an Authorization header. Raises Unauthorized."""
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized("send one header `Authorization: Bearer TOKEN`")
    return token.strip()
