"""`odradek bench trainer`: what merging turns saves a training step."""

from typing import Any, Final

import click

OPTIONS: Final = (
    click.Option(["--group"], type=int, default=8, show_default=True, help="Samples."),
    click.Option(["--turns"], type=int, default=10, show_default=True, help="Of each sample."),
    click.Option(["--hidden"], type=int, default=128, show_default=True, help="Model width."),
    click.Option(["--layers"], type=int, default=2, show_default=True, help="Model depth."),
    click.Option(["--repeats"], type=int, default=5, show_default=True, help="Of each mode."),
    click.Option(
        ["--device"],
        type=click.Choice(["cpu", "cuda"]),
        default="cpu",
        show_default=True,
        help="Where to train.",
    ),
)


def run(**options: Any) -> dict[str, Any]:
    """Tokens per second of one training step on the same batch, in three forms.

    One row per turn (as peers train), merged rows, and one prefix tree; a prompt of 300 tokens,
    then 30 sampled and 60 environment tokens a turn. Tokens are counted as single turns in all
    three, so the rates compare the same work. One core; medians of alternating repeats. Beside
    them how long a million tokens take to plan and pack, and the most memory.
    """
    from odradek.trainer.bench import measure

    return measure(**options)
