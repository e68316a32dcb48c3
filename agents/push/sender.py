"""Posts events to webhooks: one request each, to a vetted address, with no redirect followed."""

import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, Self

import aiohttp
import msgspec

from odradek.agents.errors import WebhookRefused
from odradek.agents.push.addresses import WebhookRules
from odradek.agents.push.resolver import VettedResolver
from odradek.agents.push.signatures import secret_of, signature_headers

CONTENT_TYPE: Final = "application/a2a+json"
TOKEN: Final = "X-A2A-Notification-Token"  # noqa: S105 - the header's name
TOO_LARGE: Final = 413
GONE: Final = 410


class PostTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Whom an event is posted to."""

    id: str
    """Of the config or the subscription."""
    url: str
    token: str = ""
    """Sent along so that the receiver knows whom it listens to (A2A 4.3.1)."""
    authorization: str = ""
    """Scheme and credentials, if the receiver wants some."""

    @property
    def shown(self) -> str:
        """Its host, for people: path and query may hold secrets."""
        return "/".join(self.url.split("/", 3)[:3])


class PostResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a post."""

    status: int = 0
    """The answer's; 0: there was none."""
    error: str = ""
    """Why there was none."""
    retry_after: float = 0.0
    """Seconds for which the webhook asked to be left alone."""
    refused: str = ""
    """Why the webhook's address may not be called; nothing was sent then."""

    @property
    def delivered(self) -> bool:
        """Whether the webhook took it (A2A 4.3.3: any 2xx)."""
        return 200 <= self.status < 300

    @property
    def final(self) -> str:
        """The dead letter's reason if to try again is of no use; else ""."""
        if self.refused:
            return "webhook_refused"
        return {GONE: "webhook_gone", TOO_LARGE: "webhook_too_large"}.get(self.status, "")

    @property
    def shown(self) -> str:
        """For people."""
        return self.refused or (f"HTTP {self.status}" if self.status else self.error)


class WebhookSender:
    """Posts, as a context.

    Args:
        rules: Which addresses may be called.
        keys: Sign the posts; each one makes a signature.
        timeout_s: How long a post may take.
        resolver: Resolves names; the system's resolver, vetted, if not given.
    """

    def __init__(
        self,
        rules: WebhookRules,
        *,
        keys: list[str],
        timeout_s: float,
        resolver: VettedResolver | None = None,
    ) -> None:
        self._rules = rules
        self._keys = keys
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the pool of connections."""
        # Each new connection asks the resolver, which vets what it gives: no cache, no proxy.
        connector = aiohttp.TCPConnector(
            resolver=self._resolver or VettedResolver(self._rules), use_dns_cache=False, limit=0
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        assert self._session is not None
        await self._session.close()

    async def post(self, target: PostTarget, body: bytes, *, delivery_id: str) -> PostResult:
        """Post once. Never raises for what a webhook does."""
        assert self._session is not None
        secrets = [secret_of(key, target.url) for key in self._keys]
        headers = {
            "Content-Type": CONTENT_TYPE,
            "User-Agent": "odradek-push",
            **signature_headers(body, delivery_id=delivery_id, now=time.time(), secrets=secrets),
            **({TOKEN: target.token} if target.token else {}),
            **({"Authorization": target.authorization} if target.authorization else {}),
        }
        try:
            self._rules.check(target.url)  # aiohttp asks no resolver about a bare address
            async with self._session.post(
                target.url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                answer.close()  # nothing of its body is of use, however long it is
                text = answer.headers.get("Retry-After", "")
                return PostResult(status=answer.status, retry_after=wait_of(text, now=time.time()))
        except WebhookRefused as error:
            return PostResult(refused=error.reason)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            return PostResult(error=type(error).__name__)


def wait_of(text: str, *, now: float) -> float:
    """Seconds that a Retry-After asks for (RFC 9110, 10.2.3: a number, or a date); 0 for none."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    stamp = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, stamp.timestamp() - now)
