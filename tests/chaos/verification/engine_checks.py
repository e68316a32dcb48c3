"""What each engine served, as it wrote it down itself, against what the policies say of it."""

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import msgspec

from tests.chaos.verification.log import Log
from tests.chaos.verification.verdict import Given, Verdict


class Served(NamedTuple):
    """What an engine serves from a moment on; version 0 where its process begins."""

    url: str
    at: float
    version: int


def served(path: Path) -> list[Served]:
    """What all engines of a run have written, in the order of time."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [Served(*msgspec.json.decode(line, type=tuple[str, float, int])) for line in lines]


def newest(lines: list[Served]) -> dict[str, int]:
    """What each engine served last."""
    return {one.url: one.version for one in lines}


def engines(log: Log, verdict: Verdict, given: Given) -> None:
    """A policy names of each engine what it had; none goes back; all have the newest in the end."""
    if given.served is None:
        return
    lines = served(given.served)
    lives: defaultdict[str, int] = defaultdict(int)
    before: dict[str, int] = {}
    for one in lines:
        if one.version == 0:
            lives[one.url] += 1
        elif one.version <= before.get(one.url, 0):
            told = f"{one.url} got version {one.version} after version {before[one.url]}"
            verdict.add("engine_back", told)
        before[one.url] = one.version
    last = 0
    for record, policy in log.policies:
        last = max(last, policy.version)
        at = record.timestamp / 1000 + 1e-3
        if policy.version not in policy.engines.values():
            verdict.add("engine_unnamed", f"version {policy.version} is told of no engine")
        for url, version in policy.engines.items():
            if version and not any(
                (one.url, one.version) == (url, version) and one.at <= at for one in lines
            ):
                told = f"{url} is said to have version {version}, which it did not have then"
                verdict.add("engine_unnamed", told)
    for url, version in newest(lines).items() if given.ended and last else ():
        if version != last:
            verdict.add("engine_behind", f"{url} serves version {version} in the end, not {last}")
    verdict.counts["engines"] = len(lives)
    verdict.counts["engine_starts"] = sum(lives.values())
