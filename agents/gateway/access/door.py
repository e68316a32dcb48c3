"""The door of the HTTP application: who may come in, and how often."""

from collections.abc import Iterable

from starlette.authentication import BaseUser
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from odradek.agents.errors import KeysUnavailable, TooManyRequests, Unauthenticated
from odradek.agents.gateway.access.authenticator import ClientAuthenticator
from odradek.agents.gateway.access.rates import RequestRates

REALM = 'Bearer realm="odradek"'
PRINCIPAL = "odradek.principal"
"""Where the scope names who asks; "": nobody was asked for credentials."""
RETRY_S = 5
"""When to ask again while the keys of tokens cannot be fetched."""


class AdmittedUser(BaseUser):
    """The principal of a request, for the SDK.

    Args:
        name: Its name; "": nobody was asked for credentials.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def is_authenticated(self) -> bool:
        """Whether it gave credentials."""
        return bool(self._name)

    @property
    def display_name(self) -> str:
        """Its name."""
        return self._name


class Admission:
    """Decides about a request by its credentials and by how many there were; for every protocol.

    Args:
        authenticator: Knows clients; None: anybody may ask.
        rates: Counts requests; None: as many as they like.
    """

    def __init__(
        self, authenticator: ClientAuthenticator | None, rates: RequestRates | None
    ) -> None:
        self._authenticator = authenticator
        self._rates = rates

    async def admit(self, credentials: Iterable[str], peer: str) -> str:
        """The principal of a request; "" where nobody is asked for credentials.

        Args:
            credentials: Values of `authorization`.
            peer: Where it comes from: counted where there is no principal.

        Raises:
            Unauthenticated: Nobody is known by these credentials.
            KeysUnavailable: The keys that would tell cannot be fetched.
            TooManyRequests: The principal asks too often.
        """
        principal = ""
        if self._authenticator is not None:
            principal = await self._authenticator.principal(list(credentials))
        wait_s = self._rates.wait_s(principal or peer) if self._rates is not None else 0
        if wait_s:
            raise TooManyRequests(wait_s)
        return principal


class Door:
    """An ASGI application before another one: 401, 429 and 503 are its own.

    Args:
        app: What is behind it.
        admission: Decides.
    """

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it."""
        credentials = Headers(scope=scope).getlist("authorization")
        peer = (scope.get("client") or ("",))[0]
        try:
            principal = await self._admission.admit(credentials, peer)
        except Unauthenticated as error:
            challenge = REALM if error.missing else f'{REALM}, error="invalid_token"'
            answer = _error(401, str(error), {"WWW-Authenticate": challenge})
        except TooManyRequests as error:
            answer = _error(429, str(error), {"Retry-After": str(error.wait_s)})
        except KeysUnavailable as error:
            answer = _error(503, str(error), {"Retry-After": str(RETRY_S)})
        else:
            admitted = {**scope, "user": AdmittedUser(principal), PRINCIPAL: principal}
            await self._app(admitted, receive, send)
            return
        await answer(scope, receive, send)


def _error(status: int, message: str, headers: dict[str, str]) -> JSONResponse:
    """An error in the shape of A2A's HTTP+JSON binding."""
    body = {"error": {"code": status, "message": message}}
    return JSONResponse(body, status_code=status, headers=headers)
