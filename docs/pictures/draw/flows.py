"""Pictures of what moves: the log, a call, a step's commit, weights."""

from drawing import SMALL, WIDTH, Picture

TOPICS = (
    (("you",), "rl.tasks", ("dispatcher",)),
    (("dispatcher",), "a2a.requests.‹agent›", ("agent host",)),
    (("agent host",), "a2a.events.‹agent›", ("anyone",)),
    (("agent host, proxy,", "intake"), "rl.turns", ("assembler",)),
    (("assembler",), "rl.conversations", ("reward services",)),
    (("reward services,", "agent host"), "rl.rewards", ("intake",)),
    (("dispatcher,", "assembler"), "rl.episodes", ("grouper, trainer",)),
    (("grouper",), "rl.batches", ("trainer",)),
    (("trainer",), "rl.steps", ("dispatcher, verify",)),
    (("trainer",), "rl.policies", ("proxy, engines",)),
)
"""(writers, topic, readers)."""


def log() -> Picture:
    """Who writes each topic and who reads it."""
    p = Picture(
        "log",
        "The log: who writes and who reads each topic",
        "Ten Kafka topics in the order of the data's way, each with its writers on the left and its "
        "readers on the right. Beside the log, agents call the proxy and the proxy calls the engine "
        "over HTTP, and the trainer sends weights to the engine.",
        538,
    )
    p.text(140, 18, "writes", tone="soft", size=SMALL, anchor="end")
    p.text(239, 18, "topic", tone="soft", size=SMALL, anchor="middle")
    p.text(352, 18, "reads", tone="soft", size=SMALL)
    for row, (writers, topic, readers) in enumerate(TOPICS):
        y = 28 + row * 41
        for x, names, anchor in ((132, writers, "end"), (350, readers, "start")):
            p.text(x, y + 20 - (len(names) - 1) * 8, *names, anchor=anchor)
        p.box(162, y, 154, 30, topic, kind="topic")
        p.arrow((138, y + 15), (160, y + 15))
        p.arrow((318, y + 15), (344, y + 15))
    p.line((0, 448), (WIDTH, 448), tone="rule")
    p.text(0, 468, "beside the log", tone="soft", size=SMALL)
    for at, name in enumerate(("agent", "proxy", "engine", "trainer")):
        p.box(at * 129 + 1, 494, 91, 32, name)
    for at, label, ends in (
        (0, "calls", (93, 129)),
        (1, "calls", (222, 258)),
        (2, "weights", (387, 351)),
    ):
        p.arrow((ends[0], 510), (ends[1], 510))
        p.text(at * 129 + 111, 486, label, tone="soft", size=SMALL, anchor="middle")
    return p


AGENT, PROXY, ENGINE, KAFKA = 42, 168, 306, 438


def call() -> Picture:
    """The way of one model call."""
    p = Picture(
        "call",
        "The way of one model call",
        "The agent calls the proxy. The proxy asks the engine, passes the words on as they come, and "
        "holds back the end of the reply until Kafka has acknowledged the turn.",
        430,
    )
    for x, name, kind, end in ((AGENT, "agent", "process", 356), (PROXY, "proxy", "process", 356),
                               (ENGINE, "engine", "process", 212),
                               (KAFKA, "Kafka", "topic", 300)):  # fmt: skip
        p.line((x, 34), (x, end), tone="rule")
        p.box(x - 41, 2, 82, 32, name, kind=kind)
    steps = (
        (62, AGENT, PROXY, ("a call, any SDK",)),
        (98, PROXY, ENGINE, ("the same, and ids", "with log probabilities")),
        (142, ENGINE, PROXY, ("words and ids",)),
        (170, PROXY, AGENT, ("words",)),
        (198, ENGINE, PROXY, ("the end",)),
        (290, KAFKA, PROXY, ("acknowledged by all in-sync replicas",)),
        (338, PROXY, AGENT, ("the end",)),
    )
    for y, start, end, labels in steps:
        side = 8 if end > start else -8
        p.arrow((start, y), (end - side / 4, y), tone="blue" if y == 338 else "line")
        top = y - 6 - (len(labels) - 1) * 15
        p.text((start + end) / 2, top, *labels, size=SMALL, anchor="middle", tone="soft")
    p.bar(PROXY - 5, 198, 10, 140, "other")
    p.arrow((PROXY + 5, 246), (KAFKA - 2, 246))
    p.text((PROXY + KAFKA) / 2, 240, "the turn: ids, log probabilities, versions",
           size=SMALL, anchor="middle", tone="soft")  # fmt: skip
    p.text(PROXY - 12, 256, "the end is", "held back", anchor="end", size=SMALL, tone="orange")
    p.text(0, 384, "A proxy killed before the acknowledgement: the agent has seen",
           "no end, and asks again. Killed after it: the turn is in the log,",
           "and a repetition is recognised as one.", size=SMALL)  # fmt: skip
    return p


MOVES = (
    ("optimizer step", "process", "in memory", "the step never was; the same rows again"),
    ("copy the state", "file", "written meanwhile", "not durable yet: the same rows again"),
    ("take a version", "topic", "rl.steps", "the number is used up; a higher one is taken"),
    (
        "weights to engines",
        "process",
        "under that version",
        "the next start loads them, by a higher number",
    ),
    (
        "announce the policy",
        "topic",
        "rl.policies",
        "if durable, the next start announces the step",
    ),
    ("announce the step", "topic", "rl.steps", "if durable, the checkpoint is announced next"),
    ("tell of the checkpoint", "topic", "rl.steps, once durable", "nothing is left to do"),
)
"""(move, kind, where, what a death below it costs)."""


def commit() -> Picture:
    """A training step: what is durable when."""
    p = Picture(
        "commit",
        "A training step: what is durable when",
        "Seven moves in order: optimizer step, the state copied, a version taken in the ledger, "
        "weights to the engines, the policy announced, the step announced, the checkpoint announced "
        "once it is durable. Beside each gap stands what the next start does if the trainer dies "
        "there.",
        504,
    )
    p.text(178, 14, "killed below, the next start finds:", tone="soft", size=SMALL)
    for at, (move, kind, where, death) in enumerate(MOVES):
        y = 24 + at * 68
        p.box(2, y, 158, 42, move, where, kind=kind)
        if at < len(MOVES) - 1:
            p.arrow((80, y + 42), (80, y + 66))
        p.cross(80, y + 54, half=4)
        p.line((90, y + 54), (172, y + 54), tone="red", dashed=True)
        p.text(178, y + 58, death, size=SMALL)
    return p


def weights() -> Picture:
    """Weights to engines: versions and staleness."""
    p = Picture(
        "weights",
        "Weights to engines: versions and staleness",
        "A trainer makes steps 10 to 13 and sends each step's weights to the engines under a version. "
        "An episode's tokens are sampled by version 11 and version 12. When step 13 trains on them, "
        "the oldest are two steps stale.",
        376,
    )
    left, apart = 122, 104
    x = {step: left + (step - 10) * apart for step in (10, 11, 12, 13)}
    p.text(0, 38, "trainer", bold=True)
    p.line((82, 34), (WIDTH - 4, 34), tone="rule")
    for step, at in x.items():
        p.box(at - 32, 18, 64, 32, f"step {step}")
    for row, (name, note) in enumerate((("engine A", "loads each"), ("engine B", "was away"))):
        y = 128 + row * 62
        p.text(0, y + 12, name, bold=True)
        p.text(0, y + 28, note, tone="soft", size=SMALL)
    for step in (10, 11, 12):
        p.arrow((x[step], 50), (x[step], 126))
        end = min(x[step] + apart, WIDTH - 4)
        p.bar(x[step] - 20, 128, end - x[step] - 4, 26, "sampled", f"version {step + 1}")
    p.text(x[10] + 8, 84, "numbered in", "rl.steps first", size=SMALL, tone="soft")
    p.bar(x[10] - 20, 190, 100, 26, "plain", "version 10")
    p.bar(x[12] - 20, 190, 100, 26, "sampled", "version 13")
    p.arrow((x[12], 154), (x[12], 188))
    p.text(x[12] + 8, 174, "when it is back", size=SMALL, tone="soft")
    p.text(0, 276, "an episode", bold=True)
    p.bar(x[10] - 20, 260, 62, 26, "plain", "prompt")
    p.bar(x[10] + 42, 260, 72, 26, "sampled", "by 11")
    p.bar(x[10] + 114, 260, 50, 26, "plain", "tool")
    p.bar(x[10] + 164, 260, 72, 26, "sampled", "by 12")
    p.arrow((x[10] + 240, 273), (x[13], 273), (x[13], 54), tone="blue")
    p.text(0, 316, "Step 13 starts from the weights of step 12. Version 11 has those of",
           "step 10, so its tokens are two steps stale. A row is as old as its",
           "oldest token; beyond max_staleness it is refused. No version is",
           "ever used twice, so staleness counts steps, not versions.",
           size=SMALL)  # fmt: skip
    return p
