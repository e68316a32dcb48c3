"""Where objects are: the seam to a folder or to an S3 store."""

from pathlib import Path
from typing import Final, Protocol

from odradek.infra.archive.settings import ArchiveSettings
from odradek.infra.errors import ArchiveRefused

S3: Final = "s3://"


class ObjectStore(Protocol):
    """Holds objects by their names. An object is there whole, or it is not there."""

    def sizes(self) -> dict[str, int]:
        """Bytes of each object, by its path below the root. Raises ArchiveError."""
        ...

    def read(self, path: str) -> bytes:
        """An object. Raises ArchiveError."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Put an object there, or in the place of an equal one. Raises ArchiveError."""
        ...

    def sweep(self) -> int:
        """Delete what writers that died have left behind, and count it."""
        ...


def store_of(settings: ArchiveSettings) -> ObjectStore:
    """The store that settings name.

    Raises ArchiveRefused where they name none, and ModuleNotFoundError where it needs pyarrow.
    """
    import pyarrow as pa  # noqa: F401 - here, so that what is missing is said at once

    location = settings.location
    if not location:
        raise ArchiveRefused(
            "no archive is named: give a folder or s3://bucket/prefix, or set ODRADEK_ARCHIVE"
        )
    if location.startswith(S3):
        from odradek.infra.archive.s3 import S3Store

        return S3Store.of(settings)
    if "://" in location:
        raise ArchiveRefused(f"{location} is no archive: give a folder, or s3://bucket/prefix")
    from odradek.infra.archive.directory import DirectoryStore

    return DirectoryStore(Path(location))
