"""The wheels that a machine with a card and no network needs, collected from the registry."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
THERE = (
    "torch, transformers, accelerate, numpy, pandas, pyarrow, peft, click, aiohttp and what these "
    "need themselves"
)
"""What an image for training has already: for each of these, its own version is used."""
CARRIED = (
    "trl", "datasets", "dill", "multiprocess", "msgspec", "pydantic", "pydantic-core",
    "annotated-types", "typing-inspection", "pydantic-settings", "python-dotenv", "aiokafka",
    "async-timeout", "cramjam", "opentelemetry-api", "opentelemetry-sdk",
    "opentelemetry-semantic-conventions",
)  # fmt: skip
"""What it lacks."""
PYTHON, PLATFORMS = (
    "3.12",
    ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"),
)
MOST_MB = 64


def pinned(names=CARRIED, text: str | None = None) -> str:
    """The lines of requirements/dev.txt for these packages, with their hashes."""
    lines = text or (ROOT / "requirements/dev.txt").read_text()
    found = {
        match[1].lower(): match[0]
        for match in re.finditer(r"^([A-Za-z0-9._-]+)==.*(?:\n    .*)*", lines, re.MULTILINE)
    }
    missing = [name for name in names if name not in found]
    if missing:
        raise click.ClickException(f"requirements/dev.txt does not pin {', '.join(missing)}")
    return "\n".join(found[name] for name in names) + "\n"


def pack(folder: Path) -> None:
    """Download them, and say how large they are."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(pinned())
        requirements.flush()
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--require-hashes", "--no-deps", "--only-binary=:all:", "--implementation", "cp",
            "--python-version", PYTHON, "--dest", str(folder), "-r", requirements.name,
        ]  # fmt: skip
        for platform in PLATFORMS:
            command += ["--platform", platform]
        subprocess.run(command, check=True)
    wheels = sorted(folder.glob("*.whl"))
    size = sum(wheel.stat().st_size for wheel in wheels) / 1e6
    click.echo(f"{len(wheels)} wheels, {size:.1f} MB, for Python {PYTHON} on x86-64 in {folder}")
    click.echo(f"expected there: {THERE}")
