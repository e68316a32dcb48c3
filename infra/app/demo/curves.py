"""What each of several trainers learned from the same batches: games played with its checkpoints.

Run as `python -m odradek.infra.app.demo.curves MODEL RUN=FOLDER…` in the project's folder: a
process of its own, because it is the only part of the demo with torch. No proxy and no log take
part, so the trainer that leads and those beside it are measured alike.
"""

import asyncio
import importlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from odradek.infra.errors import ProjectError

GAMES: Final = 240
"""Games of a point of a curve, each number as often as the others."""
POINTS: Final = 12
"""Points of a curve, the first model's left out."""
FOLDER: Final = re.compile(r"checkpoint-(\d+)")


class CurvePoint(NamedTuple):
    """Success after so many steps: as in training, and with the likeliest tokens."""

    step: int
    sampled: float
    greedy: float


Curves = dict[str, list[CurvePoint]]
"""By run."""


def chosen(steps: Sequence[int], points: int = POINTS) -> list[int]:
    """Of the steps that have checkpoints, about so many that lie evenly, the last among them."""
    every = max(1, -(-max(steps, default=0) // points))
    kept = {step for step in steps if step % every == 0} | set(steps[-1:])
    return sorted(kept)


def _played(folder: Path, tokenizer: Any, game: Any) -> tuple[float, float]:
    """Success of a model, sampled and greedy."""
    from odradek.trainer.engine.decode import Sampler
    from odradek.trainer.models import load_model

    sampler = Sampler(
        load_model(folder), pad_id=tokenizer.pad_token_id, end_ids=[tokenizer.eos_token_id], seed=0
    )
    numbers = game.RANGE
    return (
        _success(
            sampler, tokenizer, [game.HiLo(numbers[at % len(numbers)]) for at in range(GAMES)]
        ),
        _success(sampler, tokenizer, [game.HiLo(number) for number in numbers], temperature=0.0),
    )


def _success(sampler: Any, tokenizer: Any, games: Sequence[Any], temperature: float = 1.0) -> float:
    from odradek.trainer.engine.decode import SampleRequest

    talks = [game.opening() for game in games]
    while live := [at for at, game in enumerate(games) if not game.over]:
        prompts = [
            tokenizer.apply_chat_template(
                talks[at], add_generation_prompt=True, tokenize=True, return_dict=False
            )
            for at in live
        ]
        replies = sampler.sample([SampleRequest(ids, temperature, 4) for ids in prompts])
        for at, reply in zip(live, replies, strict=True):
            talks[at] += games[at].answer(tokenizer.decode(reply.ids, skip_special_tokens=True))
    return float(sum(game.score for game in games) / len(games))


def main(model: str, *runs: str) -> None:
    """Print the curves as JSON."""
    sys.path.insert(0, str(Path.cwd()))
    game = importlib.import_module("game")
    from odradek.trainer.models import load_tokenizer

    tokenizer = load_tokenizer(model)
    first = CurvePoint(0, *_played(Path(model), tokenizer, game))
    curves: Curves = {}
    for name, _, folder in (run.partition("=") for run in runs):
        found = {
            int(match[1]): path
            for path in Path(folder).iterdir()
            if (match := FOLDER.fullmatch(path.name))
        }
        curves[name] = [first] + [
            CurvePoint(step, *_played(found[step], tokenizer, game))
            for step in chosen(sorted(found))
        ]
    print(json.dumps(curves))


async def curves_of(folder: Path, model: str, runs: Mapping[str, Path]) -> Curves:
    """The curves of runs whose checkpoints lie in these folders, all of them kept.

    Args:
        folder: Of the project, which has the game.
        model: What all of them began with.
        runs: By name.

    Raises ProjectError with the last line of what went wrong.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "odradek.infra.app.demo.curves", model,
        *(f"{name}={path}" for name, path in runs.items()),
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        found, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise ProjectError(f"the trainers' checkpoints could not be played: {last}")
    read = json.loads(found)
    return {name: [CurvePoint(*point) for point in points] for name, points in read.items()}


if __name__ == "__main__":
    main(*sys.argv[1:])
