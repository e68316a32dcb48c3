"""Datasets: chosen episodes as files that other tools train on.

`preferences` says which episodes of the chosen batches become which rows, and `messages` makes rows
of their words: both are pure. `episodes` makes rows of tokens. `files` writes rows, and `export`
reads the log for them. `FORMATS` is the table; `odradek export data` and its help derive from it.
"""

from typing import Final

__all__ = ["FORMATS"]

FORMATS: Final = {
    "episodes": "Tokens, log probabilities, policy versions and rewards, an episode a row.",
    "sft": "TRL's supervised fine-tuning: `messages` of each episode.",
    "dpo": "TRL's preferences: the best (`chosen`) and the worst (`rejected`) of each group.",
    "kto": "TRL's unpaired preferences: the best (`label` true) and the worst of each group.",
}
"""What `odradek export data` writes."""
