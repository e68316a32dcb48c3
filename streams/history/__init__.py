"""The past, by look-up: which batches are meant, where they stand, and what they point at.

`spans` are ranges of numbers as people write them, and a `selection` of batches is made of them:
both are pure, and so is `pace`. `ledger` is the search for a step in the trainer's ledger, pure as
well, and `ledger_reader` reads for it what it asks for. `pointers` follows pointers to episodes.
`batches` reads the batches that a selection takes, and `revisions` lays late rewards over them.
`imports` finds episodes that are in no batch, because they were imported.
`names` leads from names to places, `patterns` say what is searched for, pure again, and `search`
reads for them.
"""

from odradek.streams.history.selection import Selection
from odradek.streams.history.spans import CountSpan, RewardSpan

__all__ = ["CountSpan", "RewardSpan", "Selection"]
