"""Text that a client keeps for us without reading it: what OpenAI's servers would have encrypted.

Clients that ask for nothing to be stored (Codex) hand reasoning and summaries back in this form
only, so without it the model would lose its own words.
"""

import base64
import binascii
from typing import Final

MARK: Final = "odradek1."


def pack(text: str) -> str:
    """Text in the form that clients hand back."""
    return MARK + base64.urlsafe_b64encode(text.encode()).decode()


def unpack(content: str | None) -> str | None:
    """The text; None for what somebody else has packed."""
    if content is None or not content.startswith(MARK):
        return None
    try:
        return base64.b64decode(content[len(MARK) :], altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None
