"""Mutants of files, one JSON line each: `.venv-mutants/bin/python -m tests.mutants.generate SEED FILE...`.

They come in an order that depends on the seed and on the mutated line, not on where the line stands.
So the first hundred of a core are mostly the same hundred after code has moved, and two states of the
tree can be compared on a sample.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.ast.ast_query import ASTQuery
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names


class Mutation(NamedTuple):
    """One change that an operator can make."""

    path: str
    operator: str
    occurrence: int
    """The how-manieth place in the file that this operator can change."""
    line: int
    site: tuple[Any, ...]
    """What is changed: function, text of the line, column."""


def mutations(path: str, source: str) -> Iterator[Mutation]:
    """Every change to a file."""
    tree, lines = get_ast(source), source.splitlines()
    for name in operator_names():
        kind = get_operator(name)
        if kind.arguments():
            continue
        places = (
            (node, start)
            for node in ast_nodes(tree)
            for start, _ in kind().mutation_positions(node)
        )
        for occurrence, (node, (line, column)) in enumerate(places):
            text = lines[line - 1]
            defined = str(ASTQuery(node).get_definition_name())
            site = (defined, text.strip(), column - len(text) + len(text.lstrip()))
            yield Mutation(path, name, occurrence, line, site)


def shuffled(found: Iterable[Mutation], seed: str) -> list[Mutation]:
    """In the order of the seed: one mutation of each site first, then a second one of each."""
    seen: Counter[Any] = Counter()
    keyed = []
    for one in found:
        what = (one.operator, one.site)
        seen[what] += 1
        key = blake2b(repr((seed, what, seen[what])).encode(), digest_size=8).hexdigest()
        keyed.append((key, one))
    ranks: Counter[Any] = Counter()
    rounds = []
    for key, one in sorted(keyed):
        rounds.append((ranks[one.site], key, one))
        ranks[one.site] += 1
    return [one for _, _, one in sorted(rounds)]


def main() -> None:
    """Write the mutants of all files in the order of the seed."""
    seed, *paths = sys.argv[1:]
    sources = {path: Path(path).read_text() for path in paths}
    order = shuffled(
        [one for path, source in sources.items() for one in mutations(path, source)], seed
    )
    for one in order:
        source = sources[one.path]
        mutated = mutate_code(source, get_operator(one.operator)(), one.occurrence)
        if mutated is None or mutated == source:
            continue
        changed = mutated.splitlines()
        mutant = {
            "path": one.path,
            "line": one.line,
            "operator": one.operator.removeprefix("core/"),
            "before": source.splitlines()[one.line - 1].strip(),
            "after": changed[one.line - 1].strip() if one.line <= len(changed) else "",
            "source": mutated,
            "of": len(order),
        }
        print(json.dumps(mutant), flush=True)


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        main()
