"""`scripts/gpu`: each part in a process of its own, its figures written as they come."""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from tests.card.parts import NOT_SHOWN, PARTS, NotBuilt

ENDING_S = 5.0
"""Kept back for the summary."""


def device_of(wanted: str) -> Any:
    """The device, with a name for people."""
    import torch

    kind = wanted if wanted != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if kind == "cuda" else f"cpu ({platform.machine()})"
    return torch.device(kind), name


def child(letter: str, wanted: str, small: bool, out: Path) -> None:
    """Measure one part in this process."""
    import torch

    from tests.card.sizes import FULL, SMALL

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    device, name = device_of(wanted)
    report: dict[str, Any] = {
        "part": letter, "about": PARTS[letter].about, "device": name, "torch": torch.__version__,
        "sizes": "small" if small else "full", "state": "running", "figures": {},
    }  # fmt: skip
    write(out, report)
    try:
        for figure, values in PARTS[letter].measure(device, SMALL if small else FULL):
            report["figures"][figure] = values
            write(out, report)
            click.echo(f"  {figure}: {json.dumps(values)}")
    except NotBuilt as error:
        write(out, report | {"state": "not built", "why": str(error)})
        return
    write(out, report | {"state": "ran"})


def write(out: Path, report: dict[str, Any]) -> None:
    """At once, and never half."""
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(report, indent=1) + "\n")
    partial.rename(out)


def run(letter: str, wanted: str, small: bool, folder: Path, limit_s: float) -> dict[str, Any]:
    """One part in a process of its own; its report, whatever became of it."""
    part = PARTS[letter]
    out = folder / f"{letter}-{part.module}.json"
    out.unlink(missing_ok=True)
    seconds = min(part.seconds, limit_s)
    empty = {"part": letter, "about": part.about, "figures": {}}
    if seconds <= 0:
        report = empty | {"state": "left out", "why": "no time was left"}
        write(out, report)
        return report
    command = [
        sys.executable, "-m", "tests.card", "--child", letter, "--device", wanted,
        "--sizes", "small" if small else "full", "--out", str(out),
    ]  # fmt: skip
    began = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        _, errors = process.communicate(timeout=seconds)
        state, why = "failed", last_line(errors)
    except subprocess.TimeoutExpired:
        process.kill()
        _, errors = process.communicate()
        state, why = "timed out", f"after {seconds:.0f} s"
    report = json.loads(out.read_text()) if out.exists() else empty | {"state": "running"}
    report["seconds"] = round(time.monotonic() - began, 1)
    if report["state"] == "running":
        report |= {"state": state, "why": why, "errors": errors[-4000:]}
    write(out, report)
    return report


def last_line(text: str) -> str:
    """Of what a process said of its end."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


@click.command(epilog=NOT_SHOWN)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("card"),
    show_default=True,
    help="Folder of the JSON files: one for each part, and report.json.",
)
@click.option(
    "--part",
    "letters",
    multiple=True,
    type=click.Choice(list(PARTS)),
    help="Only this part; again for more.",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
@click.option(
    "--sizes",
    type=click.Choice(["auto", "small", "full"]),
    default="auto",
    show_default=True,
    help="auto: full on a card, small on a CPU.",
)
@click.option(
    "--limit", "limit_s", type=float, default=570.0, show_default=True, help="Seconds in all."
)
@click.option(
    "--pack",
    "wheels",
    type=click.Path(path_type=Path),
    help="Measure nothing: collect the wheels that a card without network needs.",
)
@click.option("--child", "letter", hidden=True, type=click.Choice(list(PARTS)))
def main(
    out: Path, letters: tuple[str, ...], device: str, sizes: str, limit_s: float,
    wheels: Path | None, letter: str | None,
) -> None:  # fmt: skip
    """Measure what the trainer does on one card, in ten minutes at most and without a network.

    It has never run on a card. On a CPU it runs whole, with small sizes, which shows that the code
    works and nothing else.
    """
    if wheels is not None:
        from tests.card.pack import pack

        pack(wheels)
        return
    kind, name = device_of(device)
    small = sizes == "small" or (sizes == "auto" and kind.type == "cpu")
    if letter:
        child(letter, device, small, out)
        return
    out.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + limit_s - ENDING_S
    click.echo(f"on {name}, with {'small' if small else 'full'} sizes")
    reports = []
    for chosen in letters or tuple(PARTS):
        click.echo(f"{chosen}: {PARTS[chosen].about}")
        reports.append(run(chosen, device, small, out, ends - time.monotonic()))
        write(out / "report.json", {"device": name, "parts": reports})
    click.echo(f"on {name}:")
    for report in reports:
        why = f" ({report['why']})" if "why" in report else ""
        click.echo(
            f"  {report['part']}  {report['state']}{why}, {len(report['figures'])} figures, "
            f"{report.get('seconds', 0.0)} s"
        )
    click.echo(NOT_SHOWN)
    sys.exit(int(any(report["state"] not in {"ran", "not built"} for report in reports)))


if __name__ == "__main__":
    main()
