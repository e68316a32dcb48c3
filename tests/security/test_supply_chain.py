"""What is installed is what was pinned, a week old, and known by its hash (S13)."""

import datetime as dt
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "requirements").glob("*.txt"))


def entries(text: str) -> list[str]:
    """The requirements of a file, each with its hashes, comments left out."""
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    return "\n".join(lines).replace("\\\n", " ").split("\n")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_requirement_is_one_version_with_hashes(file):
    """No range, no address, no file, no option; and what pip takes is what was hashed."""
    found = entries(file.read_text())
    assert (1 if file.name == "grpc.txt" else 20) < len(found)
    good = re.compile(
        r"[A-Za-z0-9._-]+(\[[a-z0-9,_-]+\])?==[^\s;@]+( ;[^@]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*"
    )
    assert [] == [line[:80] for line in found if not good.fullmatch(line)]


def test_the_setup_installs_by_hash_and_nothing_else():
    """Each `pip install` of requirements says --require-hashes and --no-deps."""
    for name in ("setup", "environment", "proofs/vllm"):
        text = (ROOT / "scripts" / name).read_text().replace("\\\n", " ")
        for line in text.splitlines():
            if "pip install" in line and "echo" not in line:
                assert "--no-deps" in line, line
                assert "--require-hashes" in line or "-e ." in line, line


def test_releases_are_a_week_old_before_they_are_taken():
    """Every resolution of scripts/lock has the cooldown, and it is seven days."""
    text = (ROOT / "scripts" / "lock").read_text().replace("\\\n", " ")
    given = re.search(r"^cooldown=\$\((.*)\)$", text, flags=re.MULTILINE)
    assert given is not None
    told = subprocess.run(["bash", "-c", given[1]], capture_output=True, text=True, check=True)
    age = dt.datetime.now(dt.UTC).date() - dt.date.fromisoformat(told.stdout.strip())
    assert 7 == age.days
    calls = [line for line in text.splitlines() if "pip compile" in line]
    assert 2 <= len(calls)
    assert all('--exclude-newer "$cooldown"' in line for line in calls)
    assert all("--generate-hashes" in line for line in calls)


def test_the_audit_covers_every_requirement_file():
    """`scripts/audit` asks the advisories about all that anybody installs."""
    text = (ROOT / "scripts" / "audit").read_text()
    assert "requirements/*.txt" in text
    assert "pip-audit" in text


def test_jars_are_pinned_by_sha256():
    """The broker's Java comes by coordinates and sums that stand in the package."""
    from odradek.infra.app.local_kafka import jars

    lists = [
        file for file in Path(jars.__file__).parent.iterdir() if file.suffix in {".txt", ".json"}
    ]
    text = "".join(file.read_text() for file in lists)
    assert 46 <= len(re.findall(r"\b[0-9a-f]{64}\b", text))


def test_no_file_of_the_repository_is_a_binary_that_nobody_can_read():
    """Pictures aside, what git holds is text: nothing to run is hidden in it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout.split("\0")
    files = [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    odd = [
        str(file.relative_to(ROOT))
        for file in files
        if not file.is_symlink() and b"\0" in file.read_bytes()[:8000]
    ]
    assert [] == [name for name in odd if not name.endswith((".png", ".svg", ".safetensors"))]
