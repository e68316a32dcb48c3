"""What the log holds against what the seed asks for: topics only, as committed, and the ledger.

Shares no code with the pipeline beyond the schemas: it reads with a plain consumer and recomputes
each episode by the oracle. Here are episodes, turns, what agents saw, and dead letters; groups and
the trainer's ledger are in `books`.
"""

import json
import struct
from collections import Counter, defaultdict
from math import isclose
from typing import Any

from odradek.schemas import events
from odradek.schemas.topics import TURNS
from tests.chaos.verification import oracle
from tests.chaos.verification.delivery_checks import deliveries
from tests.chaos.verification.engine_checks import engines
from tests.chaos.verification.ledger_checks import Found, balance, positions
from tests.chaos.verification.log import Log, TurnsEvent, header
from tests.chaos.verification.mixed_checks import mixed
from tests.chaos.verification.revision_checks import revisions
from tests.chaos.verification.stream_checks import streams, tasks
from tests.chaos.verification.verdict import Given, Verdict

LETTERS = frozenset({"closed_or_unknown", "after_end", "late_reward"})
"""Dead letters that a kill may cause: what a lost attempt still had to say."""
LOST_HOST = frozenset({events.Outcome.HOST_LOST})
CUT = frozenset({events.Outcome.INCOMPLETE})
"""An attempt whose proxy died, and did not seal it whole: it is retried."""
LOST_AGENT = frozenset({events.Outcome.UPSTREAM_FAILED})
"""An attempt whose agent behind HTTP died: it is retried."""
ENDINGS = (events.EpisodeSealed, events.EpisodeAborted)
"""Who takes over after a host that died may end its episode once more: the first one counts."""


def judge(log: Log, given: Given) -> Verdict:
    """Hold a log against what was asked for and done."""
    verdict = Verdict()
    episodes = _episodes(log, verdict, given)
    _attempts(verdict, given, episodes)
    _turns(log, verdict, episodes)
    _journal(log, verdict, given, episodes)
    _letters(log, verdict, given, episodes)
    balance(log, verdict, given, episodes)
    mixed(log, verdict)
    if given.rescored:
        revisions(log, verdict)
    positions(log, verdict, episodes)
    engines(log, verdict, given)
    if given.taken is not None:
        deliveries(log.agent_events, given.taken, verdict)
    tasks(log.agent_events, verdict)
    if given.streams is not None and given.heard is not None:
        streams(log.echo_events, given.streams, given.heard, oracle.ECHOED, verdict)
    return verdict


def _episodes(log: Log, verdict: Verdict, given: Given) -> Found:
    """Every EpisodeOpened in exactly one Episode, each with the tokens and the reward of its script."""
    opened = {
        event.episode_id: event for _, event in log.turns if isinstance(event, events.EpisodeOpened)
    }
    sampled = {
        event.turn_id: _numbers(event.completion.ids)
        for _, event in log.turns
        if isinstance(event, events.Turn)
    }
    found: Found = {}
    for record, event in log.episodes:
        if not isinstance(event, events.Episode):
            continue
        if event.episode_id in found:
            verdict.add("episode_twice", f"episode {event.episode_id} stands twice")
        found[event.episode_id] = (record, event)
        if event.episode_id not in opened:
            verdict.add("episode_unopened", f"episode {event.episode_id} was never opened")
        if event.task_id not in given.tasks:
            continue  # a ghost has no script
        unseen = Counter(
            sampled.get(turn) for turn, why in event.untrained_turns.items() if why == "superseded"
        )
        _episode(event, verdict, given.seed, unseen)
    for name in opened.keys() - found.keys():
        verdict.add("episode_lost", f"episode {name}")
    verdict.counts["opened"] = len(opened)
    verdict.counts["episodes"] = len(found)
    verdict.counts["retries"] = sum(event.retry for _, event in found.values())
    return found


def _episode(
    episode: events.Episode, verdict: Verdict, seed: int, superseded: Counter[Any]
) -> None:
    where = f"episode {episode.episode_id} ({episode.task_id}/{episode.sample})"
    play = oracle.play_of(seed, episode.task_id, episode.sample, episode.attempt)
    wanted = oracle.expected(play)
    made: Counter[str] = Counter()
    by_tokens = {
        (tuple(ids), tuple(oracle.completion(key))): key for key, (ids, _) in wanted.items()
    }
    for sequence in episode.sequences:
        ids = _numbers(sequence.ids)
        logprobs = struct.unpack(f"<{len(sequence.logprobs) // 4}f", sequence.logprobs)
        for span in sequence.spans:
            n = span.end - span.start
            told, logprobs = logprobs[:n], logprobs[n:]
            key = by_tokens.get((ids[: span.start], ids[span.start : span.end]))
            if key is None:
                verdict.add("tokens", f"{where}: {span.start}:{span.end} are no call of its")
            elif list(told) != oracle.logprobs(key):
                verdict.add("tokens", f"{where}: {key} has other log probabilities")
            else:
                made[key] += 1
        if logprobs:
            verdict.add("tokens", f"{where}: {len(logprobs)} log probabilities too many")
    counts = episode.outcome.counts
    for key, (_, times) in wanted.items():
        line = f"{where}: {key} is trained {made[key]} times, not {times}"
        if made[key] > times:
            verdict.add("call_twice", line)
        elif counts and made[key] < times:
            # Of two equal calls at once, the one that was answered before the proxy died cannot
            # be told from one that nobody saw: it is kept, and not trained.
            if times > 1 and made[key] + superseded[tuple(oracle.completion(key))] >= times:
                verdict.counts["equal_calls_left_out"] += times - made[key]
                continue
            verdict.add("call_untrained", line)
    if counts and str(episode.outcome) == play.ending:
        if episode.reward is None or not isclose(episode.reward, play.reward or 0.0):
            verdict.add("reward", f"{where}: reward {episode.reward}, not {play.reward}")
    elif (
        str(episode.outcome) != play.ending and episode.outcome not in LOST_HOST | CUT | LOST_AGENT
    ):
        verdict.add("outcome", f"{where}: {episode.outcome}, its script says {play.ending}")


def _attempts(verdict: Verdict, given: Given, episodes: Found) -> None:
    """Attempts at a sample follow each other, and only what was done to hosts loses them."""
    for name, outcomes, most in (
        ("lost_attempts", LOST_HOST, given.lost_attempts),
        ("cut_attempts", CUT, given.cut_attempts),
        ("agent_losses", LOST_AGENT, given.agent_losses),
    ):
        lost = sum(
            episode.outcome in outcomes and str(episode.outcome) != _ending(given.seed, episode)
            for _, episode in episodes.values()
        )
        verdict.counts[name] = lost
        if most is not None and lost > most:
            verdict.add("loss_unexplained", f"{lost} {name}, {most} are explained")
    tried: defaultdict[tuple[str, int], list[tuple[int, bool]]] = defaultdict(list)
    for _, episode in episodes.values():
        tried[episode.task_id, episode.sample].append((episode.attempt, episode.retry))
    for (task, sample), told in tried.items() if given.ended else ():
        told.sort()
        wanted = [(number + 1, number + 1 < len(told)) for number in range(len(told))]
        if told != wanted and task in given.tasks:
            verdict.add("attempts", f"{task}/{sample}: (attempt, another follows) {told}")


def _ending(seed: int, episode: events.Episode) -> str:
    """How an episode's script says that it ends."""
    return oracle.play_of(seed, episode.task_id, episode.sample, episode.attempt).ending


def _turns(log: Log, verdict: Verdict, episodes: Found) -> None:
    """Every acked turn in exactly one episode or dead letter."""
    homes: Counter[str] = Counter()
    for _, episode in episodes.values():
        homes.update(turn for run in episode.sequences for turn in run.turn_ids)
        homes.update(list(episode.untrained_turns))
    refused = {
        event.turn_id for event in map(_refused, log.letters) if isinstance(event, events.Turn)
    }
    told = {event.turn_id for _, event in log.turns if isinstance(event, events.Turn)}
    verdict.counts["turns"] = len(told)
    for turn in told:
        if not homes[turn] and turn not in refused:
            verdict.add("turn_homeless", f"turn {turn}")
    for turn, n in homes.items():
        if n > 1:
            verdict.add("turn_twice", f"turn {turn} in {n} places")


def _refused(letter: Any) -> Any:
    """The event of `rl.turns.v1` in a dead letter; None where it is of another topic."""
    if header(letter, "topic") != TURNS.name or letter.value is None:
        return None
    return TurnsEvent.decode(letter.value)


def _journal(log: Log, verdict: Verdict, given: Given, episodes: Found) -> None:
    """Every reply whose end an agent has seen is in the log, and agents did see what they asked."""
    logged: Counter[tuple[str, tuple[int, ...]]] = Counter()
    known: set[str] = set()
    for _, event in log.turns:
        if isinstance(event, events.Turn) and event.turn_id not in known and not event.error:
            known.add(event.turn_id)
            logged[event.episode_id, _numbers(event.completion.ids)] += 1
    shown: Counter[tuple[str, str]] = Counter()
    for told in given.seen.read_bytes().splitlines():
        episode, key, retries = json.loads(told)
        shown[episode, key] += 1
        verdict.counts["repeated_calls"] += retries > 0
    verdict.counts["seen"] = shown.total()
    for (episode, key), times in shown.items():
        there = logged[episode, tuple(oracle.completion(key))]
        if there < times:
            verdict.add(
                "seen_unlogged", f"call {key} of {episode}: seen {times} times, logged {there}"
            )
    for name, (_, event) in episodes.items():
        if not event.outcome.counts or event.task_id not in given.tasks:
            continue
        play = oracle.play_of(given.seed, event.task_id, event.sample, event.attempt)
        for key, (_, times) in oracle.expected(play).items():
            if shown[name, key] != times:
                verdict.add("journal", f"call {key} of {name}: seen {shown[name, key]} times")


def _numbers(ids: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(ids) // 4}I", ids)


def _letters(log: Log, verdict: Verdict, given: Given, episodes: Found) -> None:
    """Dead letters are what lost attempts still had to say, and what a hostile writer wrote."""
    strays = set(given.strays)
    for letter in log.letters:
        reason = header(letter, "reason")
        verdict.letters[reason] += 1
        event = _refused(letter)
        if isinstance(event, events.Turn) and event.turn_id in strays:
            strays.remove(event.turn_id)
            continue
        name = getattr(event, "episode_id", "")
        told = episodes[name][1].outcome if name in episodes else None
        explained = told is not None and (not told.counts or isinstance(event, ENDINGS))
        if reason not in LETTERS or not explained:
            verdict.add(
                "letter_unexplained",
                f"{reason}: {type(event).__name__} of {name or letter.key} ({told}): "
                f"{header(letter, 'detail')}",
            )
    for turn in strays:
        verdict.add("turn_homeless", f"the hostile writer's turn {turn} is no dead letter")
