"""Token ids as texts, by the tokenizer of a model's folder."""

from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from odradek.infra.app.history.rows import Texts, no_texts
from odradek.infra.errors import ProjectError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE: Final = "tokenizer.json"


def texts_of(folder: str, *, wanted: bool) -> Texts:
    """Texts of single tokens, special ones included.

    Args:
        folder: Of the model.
        wanted: Whether a folder without a tokenizer is a mistake; else ids are all there is.

    Raises ProjectError.
    """
    path = Path(folder) / FILE
    if not folder or not path.is_file():
        if wanted:
            raise ProjectError(f"{folder} holds no {FILE}: name the folder of the model")
        return no_texts
    tokenizer = _read(path, path.stat().st_mtime_ns)

    @cache
    def text(token: int) -> str:
        return str(tokenizer.decode([token], skip_special_tokens=False))

    def texts(ids: Sequence[int]) -> tuple[str, ...]:
        return tuple(map(text, ids))

    return texts


@lru_cache(maxsize=2)
def _read(path: Path, changed: int) -> "Tokenizer":
    """The tokenizer of a file: one of a large vocabulary takes a part of a second to read."""
    del changed
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))
