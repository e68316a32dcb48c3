"""What the tests claim, now and at an earlier commit: a claim is a test's docstring.

A claim of before counts as kept where a test says the same now. It counts as reworded where a test has
its name, its words and more, or nearly its words, and as explained where `claims.toml` says which test
took its place. All else is lost.
"""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

import click

from tests.support.suite.child_processes import ROOT

EXPLAINED = Path(__file__).with_name("claims.toml")
ALIKE = 0.6
"""From this share of equal words on, in order, a claim is the other one in new words."""


class Claim(NamedTuple):
    """One test's claim."""

    file: str
    test: str
    text: str
    """Its docstring in one line; the words of its name where it has none."""


class Comparison(NamedTuple):
    """The claims of before, by what became of them."""

    kept: list[Claim]
    reworded: list[tuple[Claim, Claim]]
    explained: list[Claim]
    lost: list[Claim]


def claims_of(file: str, source: str) -> list[Claim]:
    """The claims of one file of tests, in its order."""
    return [
        Claim(file, node.name, " ".join(text.split()))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        for text in [ast.get_docstring(node) or node.name.removeprefix("test_").replace("_", " ")]
    ]


def claims_at(revision: str | None) -> list[Claim]:
    """All claims of a commit, or of the working tree."""
    ours = re.compile(r"^tests/.*test_\w+\.py$")
    if revision is None:
        files = [
            str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").rglob("test_*.py"))
        ]
        return [claim for file in files for claim in claims_of(file, (ROOT / file).read_text())]
    files = [name for name in _git("ls-tree", "-r", "--name-only", revision) if ours.match(name)]
    return [
        claim
        for file in files
        for claim in claims_of(file, "\n".join(_git("show", f"{revision}:{file}")))
    ]


def _git(*words: str) -> list[str]:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(done.stderr.strip())
    return done.stdout.split("\n")


def compare(
    before: Iterable[Claim], now: Iterable[Claim], explained: Collection[str]
) -> Comparison:
    """Sort the claims of before by what became of them.

    Claims in equal words need as many tests as before.
    """
    result = Comparison([], [], [], [])
    now = list(now)
    texts = Counter(claim.text for claim in now)
    named = defaultdict(list)
    for claim in now:
        named[claim.test].append(claim)
    for claim in before:
        if texts[claim.text]:
            texts[claim.text] -= 1
            result.kept.append(claim)
        elif other := _counterpart(claim, named[claim.test], now):
            result.reworded.append((claim, other))
        elif claim.test in explained:
            result.explained.append(claim)
        else:
            result.lost.append(claim)
    return result


def _counterpart(claim: Claim, namesakes: list[Claim], now: list[Claim]) -> Claim | None:
    """The test of now that makes this claim in other words."""
    whole = claim.text.rstrip(".")
    now = [other for other in now if other.text != claim.text]
    for other in now:
        if len(whole.split()) > 3 and whole in other.text:
            return other
    return _nearest(claim, namesakes, 0.0) or _nearest(claim, now, ALIKE)


def _nearest(claim: Claim, others: list[Claim], least: float) -> Claim | None:
    """The claim whose words are most like this one's, if they are enough like them."""
    matcher: SequenceMatcher[str] = SequenceMatcher(autojunk=False)
    matcher.set_seq2(claim.text.lower().split())
    best, nearest = least, None
    for other in others:
        matcher.set_seq1(other.text.lower().split())
        if matcher.real_quick_ratio() >= best and matcher.quick_ratio() >= best:
            ratio = matcher.ratio()
            if ratio >= best:
                best, nearest = ratio, other
    return nearest


@click.command()
@click.option("--before", "revision", help="Compare with this commit.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write the claims there.")
@click.option("--reworded", is_flag=True, help="Show those in new words, too.")
def main(revision: str | None, out: Path | None, reworded: bool) -> None:
    """List what the tests claim, or compare it with an earlier commit.

    \b
    scripts/prove claims
    scripts/prove claims --before fd5c51a

    Exit code 1 where a claim of before has no counterpart now, and tests/support/suite/claims.toml
    does not say what became of it.
    """  # noqa: D301 - click's mark of a paragraph that is kept as it is
    now = claims_at(None)
    if revision is None:
        for claim in now:
            click.echo(f"{claim.file}: {claim.text}")
        if out is not None:
            out.write_text(json.dumps([claim._asdict() for claim in now], indent=1) + "\n")
        return
    before = claims_at(revision)
    found = compare(before, now, tomllib.loads(EXPLAINED.read_text())["explained"])
    if reworded:
        for claim, other in found.reworded:
            click.echo(
                f"{claim.file}: {claim.test}\n  - {claim.text}\n  + {other.text}  ({other.file})"
            )
    for claim in found.lost:
        click.echo(f"lost: {claim.file}: {claim.test}\n  {claim.text}")
    figures = {
        "before": len(before),
        "now": len(now),
        **{name: len(group) for name, group in zip(found._fields, found, strict=True)},
    }
    click.echo(", ".join(f"{name} {number:,}" for name, number in figures.items()))
    if out is not None:
        lost = [claim._asdict() for claim in found.lost]
        out.write_text(json.dumps({**figures, "lost_claims": lost}, indent=1) + "\n")
    if found.lost:
        sys.exit(1)


if __name__ == "__main__":
    main(prog_name="scripts/prove claims")
