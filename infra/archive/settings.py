"""Where the archive is, and how to get in."""

from typing import Annotated

from pydantic import AfterValidator, AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings

from odradek.infra.runtime.addresses import root
from odradek.infra.runtime.settings import CheckedSettings, from_environment


def _endpoint(text: str) -> str:
    return root(text) if text else ""


class ArchiveSettings(CheckedSettings, BaseSettings):
    """Settings of the archive, from `ODRADEK_ARCHIVE` and `ODRADEK_ARCHIVE_*`."""

    model_config = from_environment("ODRADEK_ARCHIVE_")

    location: str = Field(default="", validation_alias=AliasChoices("location", "ODRADEK_ARCHIVE"))
    """A folder, or `s3://bucket/prefix`: where closed ranges of topics are archived, and where
    trainer, replay, show, find, diff, export and rescore read what the log no longer has."""
    endpoint_url: Annotated[str, AfterValidator(_endpoint)] = Field(
        default="",
        validation_alias=AliasChoices(
            "endpoint_url",
            "ODRADEK_ARCHIVE_ENDPOINT_URL",
            "AWS_ENDPOINT_URL_S3",
            "AWS_ENDPOINT_URL",
        ),
    )
    """Of an S3 store that is not Amazon's: `http://127.0.0.1:9000`."""
    region: str = ""
    """Of the bucket. Without it AWS's own variables and files count."""
    access_key: SecretStr | None = None
    """Of the S3 store. Without it AWS's own variables and files count."""
    secret_key: SecretStr | None = None
    """That belongs to the access key."""
    timeout_s: float = Field(default=20.0, gt=0, le=600)
    """How long the S3 store may take to answer; it is asked three times."""
