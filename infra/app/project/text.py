"""Files that people write with whatever editor they have."""

from pathlib import Path

from odradek.infra.errors import ProjectError


def read_text(path: Path) -> str:
    """The text of a file in UTF-8: with a byte order mark or without, its lines ending in LF.

    Raises ProjectError for a file that cannot be read, or is in another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProjectError(f"{path} is not in UTF-8 ({error}): save it in that encoding") from None
    except OSError as error:
        raise ProjectError(f"{path} cannot be read: {error.strerror}") from error
