"""Episodes: every EpisodeOpened in exactly one of them, every acked turn in exactly one.

A child has no record of its own: it is in its parent's, with its turns.
"""

from collections import Counter
from typing import Any

from odradek.infra.bus import Record
from odradek.schemas import codec
from odradek.schemas.events import EpisodeOpened, Pointer, Purpose, Timeouts, Turn
from odradek.schemas.topics import TURNS
from odradek.streams.verify.findings import SLACK_S, Findings
from odradek.streams.verify.partial_events import (
    CountedEpisode,
    OpeningRecord,
    RecordPlace,
    TurnsEvent,
)


class EpisodeCounts:
    """Which episodes were opened, which turns were acked, and which episodes were written.

    Attributes:
        opened: By episode.
        turns: The episode of each acked turn.
        unattributed: Episodes that the proxy opened.
        imported: Episodes that were recorded elsewhere: nobody opened them here.
        repeats: Episodes written again in the same bytes.
        homes: Of each child, the episodes whose records hold it.
    """

    def __init__(self, findings: Findings) -> None:
        self.opened: dict[str, OpeningRecord] = {}
        self.turns: dict[str, str] = {}
        self.unattributed: set[str] = set()
        self.imported: set[str] = set()
        self.repeats = 0
        self.homes: dict[str, set[str]] = {}
        self._findings = findings
        self._episodes: dict[str, dict[str, CountedEpisode]] = {}
        self._places: dict[tuple[str, int, int], RecordPlace] = {}
        self._refused_turns: set[str] = set()
        self._refused: set[str] = set()

    def turns_event(self, record: Record) -> None:
        """Take a record of `rl.turns`."""
        event: Any = codec.decode(record.value, TurnsEvent, max_bytes=TURNS.max_bytes)
        if isinstance(event, Turn):
            self.turns.setdefault(event.turn_id, event.episode_id)
        elif isinstance(event, EpisodeOpened):
            times: Timeouts = event.timeouts
            deadline = record.timestamp + times.attempt_s + times.seal_s + times.reward_s
            opening = OpeningRecord(event.purpose, 1, deadline, event.parent)
            self.opened.setdefault(event.episode_id, opening)
            if event.unattributed:
                self.unattributed.add(event.episode_id)

    def ended(self, record: Record, ended: CountedEpisode) -> None:
        """Take an episode."""
        digest = codec.digest(record.value or b"")
        rows = sum(run.trains for run in ended.sequences)
        place = (record.topic, record.partition, record.offset)
        self._places[place] = RecordPlace(ended.episode_id, digest, rows)
        if ended.imported_from:
            self.imported.add(ended.episode_id)
        if ended.revision == 0:
            before = self._episodes.setdefault(ended.episode_id, {})
            self.repeats += digest in before
            before[digest] = ended
            for child in ended.children:
                self.homes.setdefault(child.episode_id, set()).add(ended.episode_id)

    def refused(self, value: bytes | None) -> None:
        """Take a dead letter of `rl.turns`."""
        event: Any = codec.decode(value, TurnsEvent, max_bytes=TURNS.max_bytes)
        if isinstance(event, Turn):
            self._refused_turns.add(event.turn_id)
        elif isinstance(event, EpisodeOpened):
            self._refused.add(event.episode_id)

    def rewarded(self) -> dict[str, CountedEpisode]:
        """Each episode as its first record has it."""
        return {name: next(iter(versions.values())) for name, versions in self._episodes.items()}

    def finds(self, pointer: Pointer) -> bool:
        """Whether a pointer leads to the episode that it names."""
        place = self._at(pointer)
        return place is not None and (place.episode_id, place.digest) == (
            pointer.episode_id,
            pointer.digest,
        )

    def rows_of(self, pointer: Pointer) -> int | None:
        """How many rows an episode makes; None where it cannot be looked up."""
        place = self._at(pointer)
        return place.rows if place is not None else None

    def _at(self, pointer: Pointer) -> RecordPlace | None:
        return self._places.get((pointer.topic, pointer.partition, pointer.offset))

    def check(self, now: float) -> None:
        """Find what does not close; `now` is the newest time in the log."""
        deadlines = self._deadlines()
        for episode, opening in self.opened.items():
            own = len(self._episodes.get(episode, ()))
            within = len(self.homes.get(episode, ()))
            kind = "child" if opening.parent else "episode"
            if own + within > 1:
                self._findings.duplicated.append(f"{kind} {episode}")
            elif not own + within and episode not in self._refused:
                late = now > deadlines[self._root(episode)] + SLACK_S
                (self._findings.lost if late else self._findings.open).append(f"{kind} {episode}")
        self._check_imported()
        for child in self.homes.keys() - self.opened.keys():
            self._findings.problems.append(f"child {child} is in an episode, but was never opened")
        self._check_turns()

    def _check_imported(self) -> None:
        """Each imported episode once, and not beside one that was played here."""
        self._findings.duplicated.extend(
            f"imported episode {episode}"
            for episode in sorted(self.imported)
            if len(self._episodes.get(episode, ())) > 1 or episode in self.opened
        )

    def _root(self, episode: str) -> str:
        """The episode whose record holds an episode: itself, or of a child the topmost parent."""
        seen = {episode}
        while (parent := self.opened[episode].parent) in self.opened and parent not in seen:
            seen.add(parent)
            episode = parent
        return episode

    def _deadlines(self) -> dict[str, float]:
        """Until when each episode that is a sample's may stay open: it waits for its children."""
        deadlines: dict[str, float] = {}
        for episode, opening in self.opened.items():
            root = self._root(episode)
            deadlines[root] = max(deadlines.get(root, 0.0), opening.deadline)
        return deadlines

    def children(self, purpose: Purpose) -> dict[str, int]:
        """The sums of children, apart from those of samples: opened = held + refused + open."""
        names = {
            name
            for name, opening in self.opened.items()
            if opening.parent and opening.purpose == purpose
        }
        return {
            "opened": len(names),
            "held": len(names & self.homes.keys()),
            "refused": len(names & self._refused - self.homes.keys()),
            "turns": sum(episode in names for episode in self.turns.values()),
        }

    def _check_turns(self) -> None:
        """Every acked turn in exactly one episode, unless it is a dead letter."""
        homes: dict[str, set[str]] = {}
        trained: Counter[str] = Counter()
        for episode, versions in self._episodes.items():
            for nth, ended in enumerate(versions.values()):
                within = [turn for run in ended.sequences for turn in run.turn_ids]
                if nth == 0:
                    trained.update(within)
                # A turn that only a second version holds is not lost: that version is the finding.
                for turn in (*within, *ended.untrained_turns):
                    homes.setdefault(turn, set()).add(episode)
        duplicated = self._findings.duplicated
        duplicated.extend(f"turn {turn}" for turn, n in trained.items() if n > 1)
        duplicated.extend(f"turn {turn}" for turn, at in homes.items() if len(at) > 1)
        for turn, episode in self.turns.items():
            ended_already = (
                episode in self._episodes
                or episode in self.homes
                or episode not in self.opened
                or (self.opened[episode].parent and episode in self._refused)
            )
            if turn not in homes and ended_already and turn not in self._refused_turns:
                self._findings.lost.append(f"turn {turn}")
