"""`scripts/gpu`: reports that are there at once, whatever becomes of a part; two parts on the CPU."""

import json
import subprocess
import types

import pytest
import torch
from click.testing import CliRunner

from tests.card import __main__ as card
from tests.card import attention, pack, rows
from tests.card.parts import PARTS, NotBuilt, Part
from tests.card.sizes import SMALL

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")


def report(path):
    return json.loads(path.read_text())


def test_a_part_writes_what_it_has_while_it_runs(monkeypatch, tmp_path):
    """Behind each figure; what is not built says why."""
    out = tmp_path / "a.json"
    states = []

    def measure(device, sizes):
        for number in range(2):
            states.append((report(out)["state"], len(report(out)["figures"])))
            yield f"figure {number}", {"value": number}
        states.append((report(out)["state"], len(report(out)["figures"])))

    monkeypatch.setattr(Part, "measure", lambda self, device, sizes: measure(device, sizes))
    card.child("a", "cpu", True, out)
    assert [("running", 0), ("running", 1), ("running", 2)] == states
    assert "ran" == report(out)["state"]
    assert {"value": 1} == report(out)["figures"]["figure 1"]

    def nothing(device, sizes):
        raise NotBuilt("no such thing")
        yield

    monkeypatch.setattr(Part, "measure", lambda self, device, sizes: nothing(device, sizes))
    card.child("d", "cpu", True, out)
    assert ("not built", "no such thing") == (report(out)["state"], report(out)["why"])


class Process:
    """In a part's place: ends, or does not, and leaves a report behind."""

    def __init__(self, out, state, hangs):
        self._hangs, self.killed = hangs, False
        if state:
            out.write_text(json.dumps({"part": "a", "state": state, "figures": {"one": {}}}))

    def communicate(self, timeout=None):
        if self._hangs and not self.killed:
            raise subprocess.TimeoutExpired("part", timeout)
        return None, "Traceback\nValueError: wrong\n"

    def kill(self):
        self.killed = True


@pytest.mark.parametrize(
    ("state", "hangs", "limit", "expected", "why"),
    [
        ("ran", False, 60, "ran", None),
        ("running", False, 60, "failed", "ValueError: wrong"),
        ("", False, 60, "failed", "ValueError: wrong"),
        ("running", True, 60, "timed out", "after 60 s"),
        ("running", True, 7, "timed out", "after 7 s"),
        ("ran", False, -1, "left out", "no time was left"),
    ],
)
def test_a_part_that_fails_or_hangs_keeps_its_figures(
    monkeypatch, tmp_path, state, hangs, limit, expected, why
):
    """And says what happened; each has the time of its own, or what is left."""
    out = tmp_path / "a-attention.json"
    fake = types.SimpleNamespace(
        PIPE=subprocess.PIPE,
        TimeoutExpired=subprocess.TimeoutExpired,
        Popen=lambda *args, **kwargs: Process(out, state, hangs),
    )
    monkeypatch.setattr(card, "subprocess", fake)
    made = card.run("a", "cpu", True, tmp_path, limit)
    assert (expected, why) == (made["state"], made.get("why"))
    assert report(out) == made
    assert bool(state and limit > 0) == bool(made["figures"])


def test_the_summary_says_what_ran_where(monkeypatch, tmp_path):
    """Exit code 1 where a part that is built did not run; the time-outs fit into ten minutes."""
    states = dict(zip(PARTS, ["ran", "ran", "timed out", "not built", "ran", "ran"], strict=True))

    def fake(letter, device, small, folder, limit_s):
        return {"part": letter, "state": states[letter], "figures": {"one": 1}, "seconds": 1.0}

    monkeypatch.setattr(card, "run", fake)
    done = CliRunner().invoke(card.main, ["--device", "cpu", "--out", str(tmp_path)])
    assert 1 == done.exit_code
    assert "c  timed out, 1 figures" in done.output
    assert "not shown by one card: FSDP" in done.output
    assert 6 == len(report(tmp_path / "report.json")["parts"])
    states["c"] = "ran"
    done = CliRunner().invoke(card.main, ["--device", "cpu", "--out", str(tmp_path)])
    assert 0 == done.exit_code
    assert sum(part.seconds for part in PARTS.values()) < 600
    assert "never run on a card" in CliRunner().invoke(card.main, ["--help"]).output


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_attention_and_memory_are_measured_on_a_cpu():
    """With small sizes: flex equals dense, and half of the memory gives the same gradient."""
    made = dict(attention.measure(CPU, SMALL))
    assert all(figures["holds"] for name, figures in made.items() if name != "mask")
    capped = dict(rows.measure(CPU, SMALL))["out of memory"]
    assert capped["budget_learned"] < capped["budget_asked"]
    assert (0, "a planted error") == (capped["unfit"], capped["injected"])
    assert capped["gradient_off"] < 1e-2  # of bfloat16
    assert len(capped["tokens_of_passes"]) > 2


def test_the_wheels_are_pinned_and_hashed():
    """Each by requirements/dev.txt; a name that is not there is refused."""
    text = pack.pinned()
    assert set(pack.CARRIED) == {line.split("==")[0] for line in text.splitlines() if "==" in line}
    assert text.count("--hash=sha256:") >= len(pack.CARRIED)
    with pytest.raises(Exception, match="does not pin nonsense"):
        pack.pinned(("nonsense",))
