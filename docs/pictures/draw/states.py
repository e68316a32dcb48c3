"""Pictures of what something is: an episode, sequences, and what a crash leaves."""

import json
from pathlib import Path

from drawing import SMALL, WIDTH, Picture

FIGURES = Path(__file__).parents[2] / "figures"


def episode() -> Picture:
    """An episode's life."""
    p = Picture(
        "episode",
        "An episode's life",
        "Opened, turns, sealed, rewards, episode, batch. Exits on the right: a deadline or an abort "
        "ends an open episode as host lost; a failed or incomplete one does not wait for rewards; "
        "without rewards in time it is unrewarded and excluded.",
        486,
    )
    stages = (
        ("EpisodeOpened", "process", ("by the agent host: only this", "creates state")),
        (
            "Turn, Turn, …",
            "process",
            ("one for each model call,", "durable before its end is seen"),
        ),
        ("EpisodeSealed", "process", ("by the proxy: no further call;", "it counts the turns")),
        ("Conversation", "topic", ("words for the judges; their", "rewards come back")),
        ("Episode", "topic", ("tokens, spans, reward", "and outcome")),
        ("Batch", "topic", ("once all samples of the task", "have ended: pointers")),
    )
    for at, (name, kind, note) in enumerate(stages):
        y = 4 + at * 82
        p.box(2, y, 132, 38, name, kind=kind, bold=True)
        p.text(144, y + 16, *note, size=SMALL, tone="soft")
        if at < len(stages) - 1:
            p.arrow((68, y + 42), (68, y + 80))
    exits = (
        (56, ("host dies, deadline passes:", "host_lost, tried again")),
        (220, ("failed or incomplete:", "waits for no reward")),
        (302, ("a reward is not in time:", "unrewarded, excluded")),
    )
    for y, lines in exits:
        p.cross(68, y + 6, half=4, tone="orange")
        p.line((78, y + 6), (288, y + 6), tone="orange", dashed=True)
        p.text(294, y + 3, *lines, size=SMALL, tone="orange")
    return p


def sequences() -> Picture:
    """Turns to sequences: prefix, branch, break."""
    p = Picture(
        "sequences",
        "Turns become sequences: prefix, branch, break",
        "A turn whose prompt starts with exactly the ids of a sequence continues it. One that starts "
        "from an earlier point is a branch: a new sequence. One whose client changed ids is a break: "
        "a new sequence, with the reason and the first position that differs.",
        498,
    )
    p.bar(0, 4, 16, 14, "plain")
    p.text(22, 15, "prompts and tool results", size=SMALL, tone="soft")
    p.bar(210, 4, 16, 14, "sampled")
    p.text(232, 15, "sampled: trained on, once", size=SMALL, tone="soft")
    pieces = {
        "p": ("prompt", 96, "plain"), "a": ("reply 1", 84, "sampled"), "t": ("tool", 56, "plain"),
        "b": ("reply 2", 84, "sampled"), "c": ("reply 3", 84, "sampled"),
        "q": ("other task", 92, "plain"), "x": ("reply 1, re-encoded", 150, "other"),
        "d": ("reply 4", 84, "sampled"), "A": ("reply 1", 84, "plain"),
    }  # fmt: skip

    def row(y: float, name: str, parts: str) -> None:
        p.text(0, y + 17, name, size=SMALL)
        x = 82.0
        for part in parts:
            label, wide, tone = pieces[part]
            p.bar(x, y, wide - 2, 26, tone, label)
            x += wide

    p.text(0, 50, "Prefix: the prompt of turn 2 starts with all ids of turn 1", bold=True)
    row(62, "turn 1", "pa")
    row(94, "turn 2", "pAtb")
    row(132, "sequence 1", "patb")
    p.text(0, 196, "Branch: turn 3 goes on from an earlier point", bold=True)
    row(208, "turn 3", "pqc")
    row(246, "sequence 2", "pqc")
    p.text(0, 310, "Break: the client sent reply 1 with other ids", bold=True)
    row(322, "turn 4", "pxtd")
    row(360, "sequence 3", "pxtd")
    for y in (132, 246, 360):
        p.line((82, y - 6), (WIDTH - 4, y - 6), tone="rule")
    p.line((178, 352), (178, 394), tone="red", thick=2)
    p.text(184, 402, "first id that differs: index of the break", size=SMALL, tone="red")
    p.text(0, 438, "Ids are compared, never words, and with every open sequence. A",
           "break keeps its reason: branch, rewritten, retokenized, no_tokens",
           "or unknown_base. Each reply is trained on in one sequence: where it",
           "was sampled. An episode has one vote, in however many sequences.",
           size=SMALL)  # fmt: skip
    return p


CRASHES = (
    ("dispatcher", (), "its open transaction, which is aborted; ids", "derive from the task, so nothing doubles"),
    ("agent host", ("agent-0", "agent-1"), "the attempts it was playing: each is played", "again, as the next attempt"),
    ("proxy", ("proxy",), "calls under way: no agent has seen their", "end, and each asks again"),
    ("assembler", ("assembler-0", "assembler-1"), "its open transaction; the next owner folds", "again from the low-water mark"),
    ("grouper", ("grouper",), "the same", ""),
    ("reward service", (), "verdicts that were not committed: judged", "again, and the first reward counts"),
    ("trainer", ("trainer",), "steps since the last checkpoint: the same", "rows again, in the same order"),
    ("engine", (), "replies under way: another engine is asked,", "up to a stream's first word"),
)  # fmt: skip
"""(process, its names in chaos.json, what a kill costs)."""


def crash() -> Picture:
    """What a crash costs."""
    chaos = json.loads((FIGURES / "chaos.json").read_text())
    by_process = chaos["recovery_by_process_s"]
    p = Picture(
        "crash",
        "What a crash costs",
        "For each process what a kill -9 costs, and how long it took until work went on, as measured "
        "by the chaos runs. No episode is lost and none is counted twice.",
        78 + len(CRASHES) * 52,
    )
    p.text(0, 16, "kill -9 of", tone="soft", size=SMALL)
    p.text(122, 16, "costs", tone="soft", size=SMALL)
    p.text(WIDTH - 2, 16, "back after (p50)", tone="soft", size=SMALL, anchor="end")
    for row, (name, measured, *lines) in enumerate(CRASHES):
        y = 28 + row * 52
        p.box(2, y, 108, 36, name)
        p.cross(110, y, half=4)
        p.text(122, y + 15, *(line for line in lines if line), size=SMALL)
        if measured:
            p50 = max(by_process[each]["p50"] for each in measured)
            p.text(WIDTH - 2, y + 15, f"{p50:.1f} s", anchor="end", tone="blue", bold=True)
    y = 28 + len(CRASHES) * 52
    p.line((0, y - 6), (WIDTH, y - 6), tone="rule")
    p.text(0, y + 14, f"{chaos['episodes']:,} episodes, {chaos['kills']:,} kills: "
           f"{chaos['lost']} lost, {chaos['duplicated']} twice", bold=True)  # fmt: skip
    p.text(
        0,
        y + 32,
        "as scripts/prove chaos measured it: docs/figures/chaos.json",
        size=SMALL,
        tone="soft",
    )
    return p
