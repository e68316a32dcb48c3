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
        ["--micro-tokens"],
        type=click.IntRange(1),
        default=4096,
        show_default=True,
        help="Of one forward pass at most, in each form; what fits into a CPU's cache is faster.",
    ),
    click.Option(
        ["--starts"],
        type=click.IntRange(0),
        default=20,
        show_default=True,
        help="Of a trainer process, of which recovery is measured; 0 for none.",
    ),
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
    three, so the rates compare the same work. One core, and its own seconds: what else it does
    meanwhile does not count. Medians of alternating repeats. Beside
    them how long a million tokens take to plan and pack, the most memory, and how long a trainer
    process takes from its start on a checkpoint to its next step, with a batch waiting.

    Without ODRADEK_KAFKA_BOOTSTRAP_SERVERS a local broker is started for those starts.
    """
    from odradek.infra.app.bench.recovery import recovery
    from odradek.trainer.bench import measure

    starts = options.pop("starts")
    figures = measure(**options)
    return figures | (recovery(starts, options["device"]) if starts else {})
