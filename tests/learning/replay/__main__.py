"""`scripts/prove replay-learning`: fresh rollouts until a model has learned, with and without replay."""

import json
import sys
from pathlib import Path
from typing import Final

import click

from tests.learning.replay.arms import ARMS
from tests.learning.replay.figures import compared, lines
from tests.learning.replay.games import GAMES
from tests.support.suite.results import append, read

SEEDS: Final = {"small": 20, "large": 8}


@click.command()
@click.option("--results", default=Path("docs/figures/replay-learning.jsonl"), show_default=True,
              type=click.Path(path_type=Path), help="A line for each run; those there are kept.")  # fmt: skip
@click.option("--models", default=Path(".odradek/replay-learning"), show_default=True,
              type=click.Path(path_type=Path), help="The models that runs begin with.")  # fmt: skip
@click.option("--game", "games", multiple=True, type=click.Choice(list(GAMES)), help="Only this.")
@click.option("--arm", "arms", multiple=True, type=click.Choice(list(ARMS)), help="Only this.")
@click.option("--seeds", default=0, help="Of each game; 0: 20 of the small one, 8 of the large.")
@click.option(
    "--first-seed", default=0, show_default=True, help="Settings were chosen from 1000 on."
)
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the medians there.")
@click.option("--only-count", is_flag=True, help="Run nothing: count what is there.")
def main(
    results: Path, models: Path, games: tuple[str, ...], arms: tuple[str, ...], seeds: int,
    first_seed: int, out: Path | None, only_count: bool,
) -> None:  # fmt: skip
    """Train the game until greedy play is good enough; count the fresh rollouts that it took.

    Every arm begins with the same model for each seed and plays with the same settings; only what
    the trainer reads differs: fresh batches alone, or mixed with old ones. A run is one process
    without a broker: the sampler's core, the trainer and its rows are the real ones. Each result is
    one line, written at once, and a rerun goes on behind the last. Exit code 1 where nothing ran.
    `scripts/prove replay-learning --stack` trains a few seeds through the whole stack.
    """
    if not only_count:
        _run(results, models, games or tuple(GAMES), arms or tuple(ARMS), seeds, first_seed)
    games = compared(read(results))
    click.echo("\n".join(lines(games)))
    if out is not None:
        out.write_text(json.dumps({"games": games}, indent=1) + "\n")
    sys.exit(0 if games else 1)


def _run(
    results: Path, models: Path, games: tuple[str, ...], arms: tuple[str, ...], seeds: int,
    first: int,
) -> None:  # fmt: skip
    from tests.learning.replay.trial import learn, quiet

    quiet()
    done = {(one["game"], one["arm"], one["seed"]) for one in read(results)}
    wanted = [
        (game, arm, seed)
        for game in games
        for seed in range(first, first + (seeds or SEEDS[game]))
        for arm in arms
        if (game, arm, seed) not in done
    ]
    for number, (game, arm, seed) in enumerate(wanted, 1):
        result = learn(ARMS[arm], GAMES[game], seed, models)
        append(results, result)
        click.echo(
            f"{number} of {len(wanted)}: {game} {arm} seed {seed}: fresh {result['fresh']}, "
            f"steps {result['steps']}, {result['wall_s']} s",
            err=True,
        )


if __name__ == "__main__":
    main()
