"""Where Kafka is, how to log in, and how this installation names its topics."""

from functools import lru_cache
from typing import Annotated, Any, Literal

from aiokafka.helpers import create_ssl_context
from pydantic import AfterValidator, AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from odradek.infra.errors import ProjectError
from odradek.infra.runtime.addresses import brokers
from odradek.infra.runtime.settings import CheckedSettings
from odradek.schemas.topics import Topic


class BusSettings(CheckedSettings, BaseSettings):
    """Settings of every Kafka client, from `ODRADEK_KAFKA_*` (and `ODRADEK_TOPIC_*`)."""

    model_config = SettingsConfigDict(
        env_prefix="ODRADEK_KAFKA_",
        env_ignore_empty=True,
        frozen=True,
        allow_inf_nan=False,
        populate_by_name=True,
        extra="forbid",
        use_attribute_docstrings=True,
    )

    bootstrap_servers: Annotated[str, AfterValidator(brokers)] = ""
    """host:port of one or more brokers, comma separated."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to talk to the brokers."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """How to log in, with a SASL protocol."""
    sasl_username: str | None = None
    """The user who logs in."""
    sasl_password: SecretStr | None = None
    """The password of that user."""
    ssl_cafile: str | None = None
    """Certificates of the authority that signed the brokers' certificates."""
    ssl_certfile: str | None = None
    """Our certificate, where brokers want one."""
    ssl_keyfile: str | None = None
    """The key of our certificate."""
    replication_factor: int = Field(default=1, ge=1, le=32767)
    """Copies of each topic that `odradek topics apply` makes."""
    topic_prefix: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._-]{0,100}$",
        validation_alias=AliasChoices("topic_prefix", "ODRADEK_TOPIC_PREFIX"),
    )
    """Goes before topics, groups and transactional ids, so two runs can share a cluster."""
    topic_partitions: int | None = Field(
        default=None,
        ge=1,
        validation_alias=AliasChoices("topic_partitions", "ODRADEK_TOPIC_PARTITIONS"),
    )
    """Partitions of new topics instead of the table's number; never change it later."""
    session_timeout_ms: int = Field(default=6000, ge=100)
    """How long a silent group member keeps its partitions."""

    def topic(self, name: str) -> str:
        """The name on the cluster of a topic of the table."""
        return self.topic_prefix + name

    def bare(self, name: str) -> str:
        """The table's name of a topic on the cluster."""
        return name.removeprefix(self.topic_prefix)

    def group(self, name: str) -> str:
        """The name on the cluster of a consumer group or a transactional id."""
        return f"{self.topic_prefix}odradek.{name}"

    def partitions(self, row: Topic) -> int:
        """How many partitions a topic of the table gets here."""
        return row.partitions if row.partitions == 1 else self.topic_partitions or row.partitions

    def connection(self) -> dict[str, Any]:
        """Keyword arguments that every aiokafka client takes.

        Raises ProjectError if no servers are named.
        """
        if not self.bootstrap_servers:
            raise ProjectError(
                "no Kafka is named: run `odradek kafka start` and export what it prints, "
                "or set ODRADEK_KAFKA_BOOTSTRAP_SERVERS=host:port"
            )
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers.split(","),
            "security_protocol": self.security_protocol,
        }
        if "SSL" in self.security_protocol:
            options["ssl_context"] = _ssl(self.ssl_cafile, self.ssl_certfile, self.ssl_keyfile)
        if "SASL" in self.security_protocol:
            if self.sasl_username is None or self.sasl_password is None:
                raise ProjectError(
                    f"{self.security_protocol} needs ODRADEK_KAFKA_SASL_USERNAME and "
                    "ODRADEK_KAFKA_SASL_PASSWORD"
                )
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = self.sasl_password.get_secret_value()
        return options


@lru_cache(maxsize=8)
def _ssl(cafile: str | None, certfile: str | None, keyfile: str | None) -> Any:
    try:
        return create_ssl_context(cafile=cafile, certfile=certfile, keyfile=keyfile)
    except OSError as error:
        raise ProjectError(f"the TLS files of Kafka cannot be read: {error}") from error
