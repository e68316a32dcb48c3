"""`scripts/prove mutants`: what share of small faults in the pure cores a quick test catches."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from tests.mutants.cores import TABLE, Core, cores
from tests.mutants.trial import run, warm_up

GENERATOR = ".venv-mutants/bin/python"
SURVIVORS = Path(__file__).with_name("survivors.txt")
TIMES = 3.0
"""So many times what the tests compute on the code as it is, and five seconds: then a mutant hangs."""


@click.command()
@click.option("--core", "chosen", multiple=True, help="Only this core; may be given again.")
@click.option("--sample", type=click.IntRange(1), help="So many mutants a core.  [default: all]")
@click.option("--seed", default=1, show_default=True, help="Of the sample.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the figures there.")
@click.option("--write", is_flag=True, help="Keep the survivors in tests/mutants/survivors.txt.")
@click.option(
    "--cores",
    "table",
    type=click.Path(path_type=Path, exists=True),
    default=TABLE,
    help="Another table of cores, for another state of the tree.",
)
def main(
    chosen: tuple[str, ...],
    sample: int | None,
    seed: int,
    out: Path | None,
    write: bool,
    table: Path,
) -> None:
    """Change one thing in a pure core, run the core's quick tests, and count who notices.

    \b
    scripts/prove mutants --sample 60
    scripts/prove mutants --core losses --json mutants.json

    Cosmic Ray makes the mutants. One that cannot be imported is not counted. The same seed and
    sample choose the same lines, wherever they stand. Exit code 1 where a core's tests fail on the
    code as it is.
    """  # noqa: D301 - click's mark of a paragraph that is kept as it is
    known = cores(table)
    if unknown := sorted(set(chosen) - set(known)):
        raise click.BadParameter(f"no core {unknown[0]!r}; there are {', '.join(known)}")
    figures = {}
    for name in chosen or known:
        # Each core has a process of its own, which imports only what its tests need.
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            with os.fdopen(writer, "w") as file:
                json.dump(trials(known[name], sample, seed), file)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as file:
            text = file.read()
        os.waitpid(child, 0)
        if not text:
            raise click.ClickException(f"the tests of {name} fail on the code as it is")
        figures[name] = json.loads(text)
        click.echo(line(name, figures[name]))
    every = {key: sum(one[key] for one in figures.values()) for key in ("mutants", "killed")}
    click.echo(line("all", every | {"survived": every["mutants"] - every["killed"]}))
    if out is not None:
        out.write_text(
            json.dumps({"seed": seed, "sample": sample, "cores": figures}, indent=1) + "\n"
        )
    if write:
        SURVIVORS.write_text(kept(figures, sample, seed))


def trials(core: Core, sample: int | None, seed: int) -> dict[str, Any]:
    """Try the mutants of one core; its figures."""
    plain = warm_up(core.tests)
    if plain.fate != "survived":
        click.echo(plain.output, err=True)
        os._exit(1)
    fates = dict.fromkeys(("killed", "survived", "timed out", "broken"), 0)
    survivors, possible = [], 0
    for mutant in generated(core, seed):
        result = run(core.tests, mutant, TIMES * plain.seconds + 5)
        possible = mutant.pop("of")
        fates[result.fate] += 1
        done = sum(fates.values())
        click.echo(
            f"\r{core.name}: {done} tried, {fates['survived']} survived ", nl=False, err=True
        )
        if result.fate == "survived":
            survivors.append({key: mutant[key] for key in mutant if key != "source"})
        if sum(fates.values()) - fates["broken"] == sample:
            break
    click.echo("\r\033[K", nl=False, err=True)
    counted = sum(fates.values()) - fates["broken"]
    killed = fates["killed"] + fates["timed out"]
    return {
        "mutants": counted,
        "killed": killed,
        "survived": fates["survived"],
        "timed_out": fates["timed out"],
        "broken": fates["broken"],
        "share": round(killed / max(counted, 1), 4),
        "possible": possible,
        "survivors": survivors,
    }


def generated(core: Core, seed: int) -> Iterator[dict[str, Any]]:
    """The mutants of a core in the order of the seed, made as they are asked for."""
    command = [GENERATOR, "-m", "tests.mutants.generate", str(seed), *core.files]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        try:
            for text in process.stdout:
                yield json.loads(text)
        finally:
            process.kill()


def line(name: str, figures: dict[str, Any]) -> str:
    """One core's figures, for people."""
    share = figures["killed"] / max(figures["mutants"], 1)
    return (
        f"{name:10} {figures['mutants']:4} mutants, {figures['killed']:4} killed, "
        f"{figures['survived']:3} survived: {share:.1%}"
    )


def kept(figures: dict[str, Any], sample: int | None, seed: int) -> str:
    """The survivors as a text that a later run can be compared with."""
    command = f"scripts/prove mutants --seed {seed}" + (f" --sample {sample}" if sample else "")
    lines = [f"# Mutants that no quick test noticed: `{command} --write`."]
    for name, one in figures.items():
        lines += ["", f"## {line(name, one)}"]
        lines += [
            f"{gone['path']}: {gone['operator']}: {gone['before']}  ->  {gone['after']}"
            for gone in sorted(one["survivors"], key=lambda gone: (gone["path"], gone["line"]))
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(prog_name="scripts/prove mutants"))
