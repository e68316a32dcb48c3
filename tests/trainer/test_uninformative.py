"""A trainer that learns nothing says so once, after a hundred batches, with the commonest reason."""

import logging
from dataclasses import replace

import msgspec
import pytest

from odradek.schemas.events import Batch, Pointer
from odradek.trainer.feed.cursor import Cursor
from odradek.trainer.feed.lineage import Lineage
from odradek.trainer.feed.rollout_worker import ListedGroups, LogRolloutWorker
from odradek.trainer.feed.rows import EpisodeGroup
from odradek.trainer.feed.rules import RowRules
from odradek.trainer.feed.uninformative import MANY, UninformativeBatches


def batch(rewards, **fields):
    pointers = tuple(
        Pointer(
            episode_id=f"e{n}", sample=n, topic="t", partition=0, offset=n, digest="", reward=reward
        )
        for n, reward in enumerate(rewards)
    )
    return Batch(**{"task_id": "t", "group_size": len(rewards) or 8, "episodes": pointers} | fields)


KINDS = {
    "groups of one": (batch([1.0]), "100 group_of_one", "set group_size to 4 or more"),
    "equal groups": (batch([1.0, 1.0]), "100 zero_variance", "neither too easy nor too hard"),
    "nobody rewarded": (batch([], empty_reason="too_few"), "100 empty:too_few", "rl.batches.v1"),
    "nothing at all": (batch([]), "100 empty", "rl.batches.v1"),
    "no tokens": (batch([0.0, 1.0]), "100 no_rows", "`refused`"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_hundredth_batch_in_a_row_that_teaches_nothing_is_worth_a_line(kind):
    """One, not one for each; evaluations in between count for nothing."""
    given, counted, advice = KINDS[kind]
    consumption = Cursor(RowRules(), Lineage())
    said = []
    for offset in range(3 * MANY):
        asked = given if offset % 2 else msgspec.structs.replace(given, purpose="eval")
        consumption.feed(EpisodeGroup(offset, asked))
        said.append(consumption.remark)
    (line,) = [one for one in said if one]
    assert 2 * MANY - 1 == said.index(line)
    assert counted in line
    assert advice in line
    assert "\n" not in line


def test_rows_that_are_all_refused_teach_nothing_either(groups):
    """Counted under the reason of most of them."""
    varied = next(group for group in groups if not group.batch.zero_variance)
    consumption = Cursor(RowRules(max_row_tokens=2), Lineage())
    for offset in range(MANY):
        consumption.feed(replace(varied, offset=offset))
    assert f"{MANY} too_long" in consumption.remark


def test_a_batch_that_teaches_begins_the_count_anew():
    """Ninety-nine are a stretch of bad luck."""
    barren = UninformativeBatches()
    dull = batch([1.0, 1.0])
    for _ in range(3):
        assert not any(barren.see(dull, ["zero_variance"], rows=0) for _ in range(MANY - 1))
        assert "" == barren.see(dull, [], rows=2)
    said = [barren.see(dull, ["zero_variance"], rows=0) for _ in range(2 * MANY)]
    assert 1 == sum(bool(line) for line in said)


def test_the_line_names_all_reasons_and_what_to_do_about_the_commonest():
    """The others stand with their counts."""
    barren = UninformativeBatches()
    for _ in range(60):
        barren.see(batch([1.0, 1.0]), ["zero_variance"], rows=0)
    said = [barren.see(batch([0.5]), ["zero_variance"], rows=0) for _ in range(40)]
    assert "(60 zero_variance, 40 group_of_one): all samples of a group" in said[-1]


def test_the_trainer_logs_it(caplog):
    """While it waits for a row, which is when a person looks."""
    groups = [EpisodeGroup(offset, batch([1.0])) for offset in range(MANY)]
    feed = LogRolloutWorker(ListedGroups(groups), Cursor(RowRules(), Lineage()), ahead=1)
    with caplog.at_level(logging.WARNING, "odradek"):
        feed._run()
    assert [f"{MANY} batches in a row taught nothing"] == [
        record.message.split(" (")[0] for record in caplog.records
    ]
