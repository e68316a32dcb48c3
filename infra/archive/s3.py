"""Objects in a bucket of S3, or of anything that speaks its protocol: through pyarrow."""

import contextlib
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from odradek.infra.archive.objects import damaged
from odradek.infra.archive.settings import ArchiveSettings
from odradek.infra.errors import ArchiveRefused, ArchiveUnreachable

ATTEMPTS: Final = 3
AWAY: Final = ("NETWORK_CONNECTION", "SLOW_DOWN", "SERVICE_UNAVAILABLE", "INTERNAL_FAILURE")
"""Words of the AWS SDK for a store that may answer later."""
CHECKSUM: Final = "checksums mismatch"
"""Its words for bytes that are not those that the store once took."""


class S3Store:
    """Implements `ObjectStore` below a prefix of a bucket; made by `of`.

    The store shows an object once all of it has been sent: one request, or a multipart upload that
    is completed. What a writer that died has left of such an upload, the bucket's lifecycle rules
    remove.
    """

    def __init__(self, files: Any, bucket: str, prefix: str) -> None:
        self._files = files
        self._bucket = bucket
        self._root = "/".join(part for part in (bucket, prefix) if part)

    @classmethod
    def of(cls, settings: ArchiveSettings) -> "S3Store":
        """The store that settings name. Raises ArchiveRefused."""
        from pyarrow import fs

        where = urlsplit(settings.location)
        prefix = where.path.strip("/")
        if not where.netloc or "@" in where.netloc or where.query or where.fragment:
            raise ArchiveRefused(
                "the archive's location names no bucket: write s3://bucket/prefix, and keys as "
                "ODRADEK_ARCHIVE_ACCESS_KEY and ODRADEK_ARCHIVE_SECRET_KEY"
            )
        if (settings.access_key is None) != (settings.secret_key is None):
            raise ArchiveRefused(
                "ODRADEK_ARCHIVE_ACCESS_KEY and ODRADEK_ARCHIVE_SECRET_KEY belong together: set "
                "both, or neither"
            )
        options: dict[str, Any] = {}
        if settings.access_key is not None and settings.secret_key is not None:
            options["access_key"] = settings.access_key.get_secret_value()
            options["secret_key"] = settings.secret_key.get_secret_value()
        if settings.endpoint_url:
            endpoint = urlsplit(settings.endpoint_url)
            options["endpoint_override"] = endpoint.netloc + endpoint.path
            options["scheme"] = endpoint.scheme
        if settings.region or settings.endpoint_url:
            options["region"] = settings.region or "us-east-1"
        files = fs.S3FileSystem(
            connect_timeout=settings.timeout_s,
            request_timeout=settings.timeout_s,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
            background_writes=False,
            allow_delayed_open=True,
            **options,
        )
        return cls(files, where.netloc, prefix)

    def sizes(self) -> dict[str, int]:
        """See `ObjectStore`."""
        from pyarrow import fs

        with self._in_words():
            # A bucket that is not there would look like one without objects.
            if self._files.get_file_info(self._bucket).type == fs.FileType.NotFound:
                raise ArchiveRefused(f"there is no bucket {self._bucket}: make it, or name another")
            below = fs.FileSelector(self._root, recursive=True, allow_not_found=True)
            return {
                info.path.removeprefix(self._root).lstrip("/"): info.size
                for info in self._files.get_file_info(below)
                if info.type == fs.FileType.File
            }

    def read(self, path: str) -> bytes:
        """See `ObjectStore`."""
        with self._in_words(path), self._files.open_input_file(f"{self._root}/{path}") as file:
            data: bytes = file.read()
            return data

    def write(self, path: str, data: bytes) -> None:
        """See `ObjectStore`."""
        with self._in_words(path), self._files.open_output_stream(f"{self._root}/{path}") as file:
            file.write(data)

    def sweep(self) -> int:
        """See `ObjectStore`."""
        return 0

    @contextlib.contextmanager
    def _in_words(self, path: str = "") -> Iterator[None]:
        """Say in one line what the store says no to."""
        place = f"s3://{self._root}/{path}".rstrip("/")
        try:
            yield
        except FileNotFoundError as error:
            raise ArchiveRefused(f"{place} is not there any more") from error
        except OSError as error:
            why = str(error).split(" (Request ID")[0].splitlines()[0]
            if CHECKSUM in why:
                raise damaged(path, "the store's own checksum is another") from error
            if any(word in why for word in AWAY):
                raise ArchiveUnreachable(
                    f"{place}: the store does not answer ({why}): see to "
                    "ODRADEK_ARCHIVE_ENDPOINT_URL"
                ) from error
            raise ArchiveRefused(
                f"{place}: the store refuses ({why}): see to bucket, keys and rights"
            ) from error
