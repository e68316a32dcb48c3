"""Tasks of plain messages: heard once, numbered without gap, ended once, and streamed as they are."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import msgspec

from tests.chaos.verification.verdict import Verdict


class Stream(msgspec.Struct, frozen=True):
    """What a client saw of its task, over all its connections."""

    message: str
    task: str
    generations: list[int]
    words: list[str]
    """The parts of the task's artifacts."""
    state: str
    connections: int


def streamed(journal: Path) -> list[Stream]:
    """What clients wrote down once they had seen the end of their tasks."""
    lines = journal.read_bytes().splitlines() if journal.exists() else []
    return [msgspec.json.decode(line, type=Stream) for line in lines]


def tasks(events: list[Any], verdict: Verdict) -> dict[str, list[int]]:
    """Hold the events of an agent's tasks against their rule; by task, the generations in the log."""
    generations: defaultdict[str, list[int]] = defaultdict(list)
    ends: Counter[str] = Counter()
    for record in events:
        headers = {name: value.decode() for name, value in record.headers}
        task = headers["a2a-task-id"]
        generations[task].append(int(headers["a2a-generation"]))
        ends[task] += headers.get("a2a-end") == "1"
    for task, numbers in generations.items():
        _numbered(f"events of {task}", [0, *numbers], verdict)
        if not ends[task]:
            verdict.add("task_unended", f"task {task} has no end")
        elif ends[task] > 1:
            verdict.add("task_ended_twice", f"task {task} ended {ends[task]} times")
    return dict(generations)


def streams(
    events: list[Any], journal: Path, heard: Path, words: list[str], verdict: Verdict
) -> None:
    """Hold what clients saw against the log, and against what their agent heard.

    Args:
        events: Of the agent, in the order of the log.
        journal: What clients wrote down.
        heard: A line for each message that the agent was given.
        words: What the agent says to each.
        verdict: Gets the findings.
    """
    logged = tasks(events, verdict)
    times = Counter(heard.read_text().split())
    seen = streamed(journal)
    for stream in seen:
        where = f"stream of {stream.message}"
        _numbered(where, stream.generations, verdict)
        if stream.generations[-1:] != logged.get(stream.task, [])[-1:]:
            verdict.add("stream_gap", f"{where} ends before its task does")
        if stream.words != words or stream.state != "TASK_STATE_COMPLETED":
            verdict.add("stream_words", f"{where}: {stream.words}, {stream.state}")
        if not times[stream.message]:
            verdict.add("message_lost", f"message {stream.message} was never heard")
    for message, number in times.items():
        if number > 1:
            verdict.add("message_twice", f"message {message} was heard {number} times")
    for message in times.keys() - {stream.message for stream in seen}:
        verdict.add("message_lost", f"message {message} was heard, and its client saw no end")
    verdict.counts["streams"] = len(seen)
    verdict.counts["stream_connections"] = sum(stream.connections for stream in seen)


def _numbered(where: str, generations: list[int], verdict: Verdict) -> None:
    """Each is its predecessor's successor."""
    if len(set(generations)) < len(generations):
        verdict.add("generation_twice", f"{where} have generations {generations}")
    elif generations and generations != list(range(generations[0], generations[-1] + 1)):
        verdict.add("stream_gap", f"{where} have generations {generations}")
