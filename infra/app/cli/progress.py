"""The progress of long work, on standard error."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def counting(*, quiet: bool = False) -> Progress:
    """Bars that count: what is done, of how many, and what time is left. At the end they vanish.

    Where standard error is no terminal there are none.

    Args:
        quiet: Show nothing.
    """
    console = Console(stderr=True)
    return Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
        transient=True,
    )
