"""The table of coding agents in the docs: made from docs/figures/clients.json, which a run writes."""

import json
from pathlib import Path

from odradek.schemas.sampling import sampling_of
from tests.support.agents.coding_agents import AGENTS

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "write-an-agent.md"
FIGURES = ROOT / "docs" / "figures" / "clients.json"
BEGIN, END = "<!-- begin: scripts/prove clients --write -->\n", "<!-- end -->"
_PACKAGES = json.loads((ROOT / "requirements" / "agents" / "package.json").read_text())
VERSIONS = {**_PACKAGES["dependencies"], **_PACKAGES["pypi"]}
"""Package: version, of each agent."""


def table(figures):
    """The figures in Markdown."""
    head = "| agent | speaks | by | turns | sequences | breaks | sampled |\n|---|---|---|---|---|---|---|\n"
    return head + "".join(map(line, figures["agents"]))


def line(row):
    """One row."""
    broken = ", ".join(f"`{reason}`" for reason in row["breaks"]) or "none"
    sampled = f"temperature {row['temperature']:g}" + (
        f", `{row['altered_by']}`" if row["altered_by"] else ""
    )
    cells = (
        f"{row['agent']} {row['version']}", row["dialect"], row["way"], row["turns"],
        row["sequences"], broken, sampled,
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |\n"


def row(agent, way, episode, turns):
    """What the figures hold of an episode that an agent played."""
    sampled = {}
    for turn in turns:
        sampled = turn.request.sampling or sampled
    drawn = sampling_of(sampled)
    return {
        "agent": agent,
        "version": VERSIONS[AGENTS[agent].package],
        "dialect": AGENTS[agent].dialect,
        "way": way,
        "turns": len(turns),
        "sequences": len(episode.sequences),
        "breaks": sorted({entry.reason for entry in episode.breaks}),
        "temperature": drawn.temperature,
        "altered_by": drawn.altered_by,
    }


def write(rows):
    """Bring figures and page up to date with what was just played."""
    order = list(AGENTS)
    made = sorted(rows, key=lambda row: order.index(row["agent"]))
    figures = {"command": "scripts/prove clients --write", "agents": made}
    FIGURES.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + table(figures) + END + after)
