"""Settings of the push dispatcher and of subscriptions by webhook."""

import logging
import secrets
from typing import Final

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings

from odradek.agents.push.deliveries import DeliveryLimits
from odradek.agents.webhook_hosts import WebhookHosts
from odradek.infra.errors import ProjectError
from odradek.infra.runtime.settings import CheckedSettings, KafkaName, from_environment

SHORTEST_KEY: Final = 32
log = logging.getLogger("odradek")


class PushSettings(CheckedSettings, BaseSettings):
    """Settings of `odradek push` and `odradek subscribe --to`, from `ODRADEK_PUSH_*`."""

    model_config = from_environment("ODRADEK_PUSH_")

    keys: SecretStr = SecretStr("")
    """Secrets of 32 characters or more, comma separated: each webhook's own secret is made of one,
    and each signs. Without, a key is made up that lasts until the process ends."""
    webhook_hosts: WebhookHosts = Field(
        default="", validation_alias=AliasChoices("webhook_hosts", "ODRADEK_WEBHOOK_HOSTS")
    )
    """Names, addresses and networks, comma separated, where webhooks may be although they are
    loopback or private, such as `127.0.0.1` or `10.1.0.0/16`."""
    tries: int = Field(default=8, ge=1)
    """How often an event is posted before it becomes a dead letter."""
    retry_s: float = Field(default=1.0, gt=0)
    """Pause after the first failure; each further one is four times as long, up to ten minutes."""
    timeout_s: float = Field(default=15.0, gt=0)
    """How long a webhook may take to answer."""
    concurrency: int = Field(default=8, ge=1)
    """Posts to one host at once."""
    instance: KafkaName | None = Field(default=None, validation_alias="ODRADEK_INSTANCE")
    """A name of this process that outlives restarts and that no other replica has: a restarted
    process comes back to its partitions at once, not after the session timeout."""

    @property
    def limits(self) -> DeliveryLimits:
        """How patient deliveries are."""
        return DeliveryLimits(tries=self.tries, first_s=self.retry_s, concurrency=self.concurrency)

    def signing_keys(self) -> list[str]:
        """The keys in order. Raises ProjectError if one is short."""
        keys = [key for key in self.keys.get_secret_value().split(",") if key]
        if any(len(key) < SHORTEST_KEY for key in keys):
            raise ProjectError(f"a key in ODRADEK_PUSH_KEYS has under {SHORTEST_KEY} characters")
        if not keys:
            log.warning("posts are signed with a key that nobody has: set ODRADEK_PUSH_KEYS")
        return keys or [secrets.token_hex(SHORTEST_KEY)]
