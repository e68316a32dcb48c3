"""Groups of the game, played in process: what the log would hold, without a log."""

from collections.abc import Callable

import numpy as np

from odradek.schemas import arrays, codec
from odradek.schemas.events import Batch, Episode, Pointer, Sequence, Span, VersionSpan
from odradek.trainer.engine.decode import Sampler, SampleRequest, SampleResult
from odradek.trainer.feed.rows import EpisodeGroup
from tests.support.trainer.hilo import HiLo


def prompt_of(tokenizer, messages):
    """Ids of a chat prompt."""
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False
    )


def play(
    sampler: Sampler, tokenizer, secrets, *, temperature=1.0, begin: Callable[[int], HiLo] = HiLo
):
    """Play one game for each secret; return [(game, [(prompt ids, SampleResult)])]."""
    games = [(begin(secret), []) for secret in secrets]
    while live := [entry for entry in games if not entry[0].over]:
        prompts = [prompt_of(tokenizer, game.messages) for game, _ in live]
        found = sampler.sample([SampleRequest(ids, temperature, 8) for ids in prompts])
        for (game, turns), ids, sampled in zip(live, prompts, found, strict=True):
            turns.append((ids, sampled))
            game.answer(tokenizer.decode(sampled.ids, skip_special_tokens=True))
    return games


def success(sampler, tokenizer, n=99, temperature=1.0):
    """Share of games that are won."""
    games = play(sampler, tokenizer, [1 + i % 3 for i in range(n)], temperature=temperature)
    return sum(game.won for game, _ in games) / n


def merged(
    turns: list[tuple[list[int], SampleResult]], version: int, temperatures=()
) -> tuple[Sequence, ...]:
    """Turns as the assembler would merge them: a new sequence where tokens do not continue."""
    runs: list[dict] = []
    for place, (prompt, sampled) in enumerate(turns):
        if not runs or prompt[: len(runs[-1]["ids"])] != runs[-1]["ids"]:
            runs.append({"ids": [], "spans": [], "logprobs": []})
        run = runs[-1]
        run["ids"] = list(prompt) + sampled.ids
        warm = temperatures[place % len(temperatures)] if temperatures else None
        run["spans"].append(Span(len(prompt), len(prompt) + len(sampled.ids), warm))
        run["logprobs"] += sampled.logprobs
    return tuple(
        Sequence(
            ids=arrays.pack_ids(run["ids"]),
            spans=tuple(run["spans"]),
            logprobs=arrays.pack_floats(run["logprobs"]),
            versions=(VersionSpan(version, 0, len(run["ids"])),),
        )
        for run in runs
    )


def won(game: HiLo) -> float:
    """The reward of a game: 1 where the number was guessed."""
    return float(game.won)


def group_of(
    games,
    *,
    offset: int,
    version: int,
    temperatures=(),
    reward_of: Callable[[HiLo], float] = won,
) -> EpisodeGroup:
    """Games as a batch with its episodes; turn by turn at these temperatures."""
    episodes = []
    for sample, (game, turns) in enumerate(games):
        reward = reward_of(game)
        episode = Episode(
            episode_id=f"e{offset}-{sample}",
            task_id=f"t{offset}",
            agent="hilo",
            sample=sample,
            group_size=len(games),
            reward=reward,
            sequences=merged(turns, version, temperatures),
            n_turns=len(turns),
        )
        pointer = Pointer(
            episode_id=episode.episode_id,
            sample=sample,
            topic="rl.episodes.v1",
            partition=0,
            offset=offset * len(games) + sample,
            digest=codec.digest(codec.encode(episode)),
            reward=reward,
        )
        episodes.append((pointer, episode))
    rewards = np.array([pointer.reward for pointer, _ in episodes])
    batch = Batch(
        task_id=f"t{offset}",
        agent="hilo",
        group_size=len(games),
        episodes=tuple(pointer for pointer, _ in episodes),
        zero_variance=bool(np.ptp(rewards) == 0),
    )
    return EpisodeGroup(offset, batch, tuple(episodes))


def group_with_rewards(offset, rewards, *, version=1, purpose="train") -> EpisodeGroup:
    """A group of one-turn episodes, one for each reward."""
    episodes = []
    for sample, reward in enumerate(rewards):
        sequence = Sequence(
            ids=arrays.pack_ids([5, 6, 10 + sample, 3]),
            spans=(Span(2, 4),),
            logprobs=arrays.pack_floats([-0.5, -0.1]),
            versions=(VersionSpan(version, 2, 4),),
        )
        episode = Episode(
            episode_id=f"e{offset}-{sample}", task_id=f"t{offset}", agent="a", sample=sample,
            group_size=len(rewards), reward=reward, sequences=(sequence,), purpose=purpose,
        )  # fmt: skip
        pointer = Pointer(
            episode_id=episode.episode_id, sample=sample, topic="rl.episodes.v1", partition=0,
            offset=offset * 10 + sample, digest=f"{offset}-{sample}", reward=reward,
        )  # fmt: skip
        episodes.append((pointer, episode))
    batch = Batch(
        task_id=f"t{offset}",
        group_size=max(len(rewards), 1),
        purpose=purpose,
        episodes=tuple(pointer for pointer, _ in episodes),
        zero_variance=len(set(rewards)) == 1,
        empty_reason="" if rewards else "too_few",
    )
    return EpisodeGroup(offset, batch, tuple(episodes))
