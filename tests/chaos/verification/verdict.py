"""What the verifier was told beside the log, and what it found: every finding is of a named check.

A run is clean only if no check found anything. A planted fault counts as caught only if a check
that was named for it beforehand found something.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOST, TWICE, WRONG = "lost", "duplicated", "wrong"
CHECKS: Final = {
    "episode_lost": LOST,  # EpisodeOpened, and no Episode
    "committed_beyond": LOST,  # a low-water mark above the beginning of what never came to its end
    "call_untrained": LOST,  # a call of the script is not trained as often as it was made
    "turn_homeless": LOST,  # a turn in no episode and no dead letter
    "seen_unlogged": LOST,  # an agent saw the end of a reply that the log does not have
    "expected_lost": LOST,  # a task without GroupOpened
    "batch_lost": LOST,  # a task without Batch
    "pointer_lost": LOST,  # a batch names an episode that is not there
    "step_lost": LOST,  # the line of checkpoints has a gap
    "rows_unused": LOST,  # the trainer has passed rows without using them
    "delivery_lost": LOST,  # an event that a subscription has posted to nobody
    "message_lost": LOST,  # a message that its agent never heard, or whose client saw no end
    "task_unended": LOST,  # a task whose events have no end
    "stream_gap": LOST,  # a stream, or a task's events, without one of the generations
    "mixed_lost": LOST,  # a batch that the sampler never wrote
    "mixed_twice": TWICE,
    "rescore_lost": LOST,  # a completed conversation that was never judged anew
    "rescore_twice": TWICE,  # an episode with two different verdicts of one re-scoring
    "rescore": WRONG,  # a late reward that the judge did not give, or that nobody wanted
    "mixed": WRONG,  # the sampler wrote what does not follow from the batches
    "episode_twice": TWICE,
    "call_twice": TWICE,
    "turn_twice": TWICE,
    "expected_twice": TWICE,
    "batch_twice": TWICE,
    "rows_twice": TWICE,
    "message_twice": TWICE,  # a message that its agent heard again
    "task_ended_twice": TWICE,
    "generation_twice": TWICE,  # two events of a task, or of a stream, have one number
    "version_twice": TWICE,  # a policy version stands for two sets of weights
    "engine_back": TWICE,  # an engine got a version twice, or an older one, within one life
    "engine_unnamed": WRONG,  # a policy names an engine with what it did not have, or none
    "engine_behind": WRONG,  # an engine that came back did not get the newest version
    "delivery_order": WRONG,  # a task's events were posted in another order than the log's
    "delivery_bytes": WRONG,
    "stream_words": WRONG,  # a client saw another task than its agent made
    "episode_unopened": WRONG,
    "tokens": WRONG,  # tokens or log probabilities that the engine did not sample
    "outcome": WRONG,  # an episode ended otherwise than its script
    "reward": WRONG,
    "journal": WRONG,  # an episode is complete, and its agent never wrote that it saw a reply
    "attempts": WRONG,  # attempts at a sample with gaps, or with another one after the last
    "loss_unexplained": WRONG,  # more attempts were lost than processes that ended explain
    "letter_unexplained": WRONG,  # a dead letter that no lost attempt explains
    "samples": WRONG,  # a batch does not name each sample once
    "exclusion_unexplained": WRONG,
    "task_unasked": WRONG,
    "pointer": WRONG,
    "variance": WRONG,  # a batch says that its rewards are equal, or does not, and it is not so
    "step_size": WRONG,
    "rows_waiting": WRONG,  # more rows wait than one step needs
    "low_water": WRONG,  # a group holds its low-water mark: something is open for ever
    "uncommitted": WRONG,  # a group never committed a partition that has records
}
"""Name -> list of findings."""


@dataclass(frozen=True)
class Given:
    """What a log is held against."""

    seed: int
    tasks: dict[str, int]
    """Ids of the tasks that were published, and their group sizes."""
    seen: Path
    """The agents' journal."""
    rows_per_step: int
    max_attempts: int
    ended: bool = True
    """Whether the run came to its end: all batches closed, and passed by the trainer."""
    lost_attempts: int | None = 0
    """How many attempts may have lost their host, by what was done to hosts; None: any."""
    cut_attempts: int | None = 0
    """How many may have been given up because no proxy sealed them whole; None: any."""
    served: Path | None = None
    """What the engines wrote down of what they served."""
    taken: Path | None = None
    """What a webhook took of the agent's events, where some are posted."""
    streams: Path | None = None
    """What clients of gateways saw of their tasks, where there are some."""
    heard: Path | None = None
    """What those clients' agent heard."""
    agent_losses: int = 0
    """How many attempts may have lost the agent behind HTTP that played them."""
    rescored: bool = False
    """Whether history was judged anew."""
    strays: frozenset[str] = frozenset()
    """Ids of turns that a hostile writer wrote: dead letters, all of them."""


class Verdict:
    """What was found."""

    def __init__(self) -> None:
        self.found: defaultdict[str, list[str]] = defaultdict(list)
        """By check."""
        self.counts: Counter[str] = Counter()
        self.exclusions: Counter[str] = Counter()
        self.letters: Counter[str] = Counter()

    def add(self, check: str, line: str) -> None:
        """A finding of a check."""
        if check not in CHECKS:
            raise KeyError(check)
        self.found[check].append(line)

    def of(self, kind: str) -> list[str]:
        """All findings of a kind: `lost`, `duplicated` or `wrong`."""
        return sorted(
            line for check, lines in self.found.items() if CHECKS[check] == kind for line in lines
        )

    @property
    def checks(self) -> dict[str, int]:
        """How much each check found, of those that found something."""
        return {check: len(lines) for check, lines in sorted(self.found.items())}

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing twice, nothing wrong."""
        return not self.found
