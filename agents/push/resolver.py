"""Names become addresses, and each address is held against the rules before it is used.

aiohttp asks this resolver once for each connection that it opens, and connects to what it is
given. So nobody resolves a name a second time between the check and the connection.
"""

import asyncio
import socket
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from odradek.agents.push.addresses import Webhook, WebhookRules, parsed_address

LOOK_S: Final = 2.0
"""How long a name may take to resolve while its webhook is registered."""


class VettedResolver(AbstractResolver):
    """A resolver that gives addresses only where the rules permit all of a name's addresses.

    Args:
        rules: Which addresses may be called.
        inner: Resolves names; the system's resolver if not given.
    """

    def __init__(self, rules: WebhookRules, inner: AbstractResolver | None = None) -> None:
        self._rules = rules
        self._inner = inner or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """See aiohttp. Raises WebhookRefused if one address of the name may not be called."""
        results = await self._inner.resolve(host, port, family)
        for result in results:
            self._rules.check_address(host, parsed_address(result["host"]))
        return results

    async def close(self) -> None:
        """See aiohttp."""
        await self._inner.close()

    async def check(self, url: str) -> Webhook:
        """Where a URL points, held against the rules. Raises WebhookRefused.

        A name that nobody can resolve now passes: it is looked at again when it is called.
        """
        webhook = self._rules.check(url)
        try:
            async with asyncio.timeout(LOOK_S):
                await self.resolve(webhook.host, webhook.port)
        except (OSError, TimeoutError):
            return webhook
        return webhook
