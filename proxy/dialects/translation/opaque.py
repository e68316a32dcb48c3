"""Text that a client keeps without reading it; a vendor's servers would encrypt it.

Clients hand a model's reasoning back in this form only (OpenAI's `encrypted_content`, Google's
`thoughtSignature`). Without it the model would lose its reasoning.
"""

import base64
import binascii
from typing import Final

MARK: Final = b"odradek1."
"""Nine bytes, so that it is the same in base64 whatever follows."""
_STANDARD: Final = str.maketrans("-_", "+/")


def pack(text: str) -> str:
    """Text in the form that clients hand back."""
    return base64.b64encode(MARK + text.encode()).decode()


def unpack(content: str | None) -> str | None:
    """The text; None for what somebody else has packed."""
    if content is None:
        return None
    try:
        # Google's clients decode it, and encode it with the other alphabet.
        data = base64.b64decode(content.translate(_STANDARD), validate=True)
        return data[len(MARK) :].decode() if data.startswith(MARK) else None
    except (binascii.Error, ValueError):
        return None
