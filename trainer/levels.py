"""Levels: settings that go together, from the most careful to the fastest. Pure: a table.

A level decides what no file, variable or option does. Nothing here has only ever run up to the call
that it makes: what needs a card that nobody had is turned on by hand.
"""

from typing import Any, Final, Literal

Level = Literal["safe", "balanced", "fast"]

LEVELS: Final[dict[str, dict[str, Any]]] = {
    "safe": {
        "precision": "float32",
        "gradient_checkpointing": 1,
        "micro_tokens": 4096,
        "save_every": "1",
    },
    "balanced": {
        "precision": "auto",
        "gradient_checkpointing": 0,
        "micro_tokens": 16_384,
        "save_every": "1",
    },
    "fast": {
        "precision": "auto",
        "gradient_checkpointing": 0,
        "micro_tokens": 16_384,
        "save_every": "10",
    },
}
"""By level: exact products and the least memory; the defaults; fewer checkpoints."""
