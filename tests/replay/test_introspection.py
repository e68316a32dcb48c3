"""How an agent plays is what its records say, and what stands out is named with its episodes."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.infra.app.introspection.difference import figures, held_against
from odradek.infra.app.introspection.episodes import PlacedEvent, agent_episode
from odradek.infra.app.introspection.failures import failure_of, kind_of
from odradek.infra.app.introspection.report import Distribution
from odradek.infra.app.introspection.sections import sections_of_report
from odradek.infra.app.introspection.stats import introspect
from odradek.schemas import codec, events
from odradek.schemas.events import EpisodeHead, GroupsEvent, Outcome, TurnsEvent
from odradek.schemas.topics import EPISODES, TURNS
from odradek.streams.history.pointers import shown
from tests.recorded.topics import load, of_topic
from tests.support.streams.tool_agent import ToolAgentEpisode

RECORDED = Path(__file__).parent.parent / "recorded"
NAMES = ("read", "search", "run")


def clean_run(seed, n_episodes=6):
    """Episodes in which nothing stands out: tools work and are quick, and nothing comes again."""
    rng = random.Random(seed)
    played = []
    for number in range(n_episodes):
        one = ToolAgentEpisode(number, reward=rng.choice([0.0, 1.0]))
        for n in range(rng.randint(1, 12)):
            names = rng.choices(NAMES, k=rng.randint(0, 2))
            calls = [(name, {"n": n, "of": place}) for place, name in enumerate(names)]
            one.turn(f"step {n}", calls, asked=f"go on {n}", tokens=rng.randint(1, 600),
                     call_s=rng.uniform(0.5, 5))  # fmt: skip
            if calls:
                one.results(*("done" for _ in calls), wait_s=rng.uniform(0, 0.4))
        played.append(one)
    return played


seeds = st.integers(0, 2**32)
"""Of clean runs."""


def report_of(played, agent="coder", **more):
    """What the episodes come to."""
    return introspect(agent, [agent_episode(*one.end()) for one in played], **more)


def raised(report):
    """Kinds and subjects of its suggestions."""
    return sorted((one.kind, one.subject) for one in report.suggestions)


def slow(one):
    """A tool that takes nearly all of the time."""
    for n in range(4):
        one.turn("look", [("browse", {"page": n})])
        one.results("text", wait_s=30)
    one.turn("done")
    return ("slow_tool", "browse")


def failing(one):
    """A call that fails, and is made again just so."""
    for n in range(4):
        one.turn(f"try {n}", [("fix", {"path": "a", "line": 1})])
        one.results("FileNotFoundError: a")
    one.turn("done")
    return ("repeated_failing_call", "fix")


def round_and_round(one):
    """Two turns that come again and again, with the same answers."""
    for _ in range(5):
        one.turn("left", asked="where?")
        one.turn("right", asked="and now?")
    return ("loop", "")


def long_prompts(one):
    """Results that stay in the prompt for ever."""
    for n in range(10):
        one.turn(f"page {n}", [("read", {"page": n})], tokens=1500)
        one.results("x" * 6000)
    one.turn("done", tokens=1500)
    return ("ever_longer_prompts", "")


def repeated_calls(one):
    """A client that says it sends requests again."""
    for n in range(20):
        one.turn(f"again {n}", asked=f"go on {n}", retry_count=1)
    return ("retries", "calls")


PLANTS = (slow, failing, round_and_round, long_prompts, repeated_calls)


@settings(max_examples=20)
@given(seed=seeds)
def test_where_nothing_is_planted_nothing_is_suggested(seed):
    """Whatever tools were called, and however long the conversations were."""
    played = clean_run(seed)
    assert [] == raised(report_of(played))


@pytest.mark.parametrize("plant", PLANTS)
@settings(max_examples=10)
@given(seed=seeds, data=st.data())
def test_what_is_planted_is_suggested_with_the_episodes_that_show_it(plant, seed, data):
    """That, nothing else, and no other episode: by id, by place, and by turns in them."""
    played = clean_run(seed)
    marked = data.draw(st.sets(st.integers(0, 5), min_size=2, max_size=4))
    expected = {plant(played[number]) for number in sorted(marked)}
    report = report_of(played)
    assert sorted(expected) == raised(report)
    (found,) = report.suggestions
    assert {(f"e{n}", f"{EPISODES.name}/0/{n}") for n in marked} == {
        (one.episode_id, one.at) for one in found.evidence
    }
    assert (len(marked), 6) == (found.episodes, found.of)
    for one in found.evidence:
        own = {placed.at for placed in played[int(one.episode_id[1:])].log}
        assert one.places
        assert set(one.places) <= own


@settings(max_examples=20)
@given(seed=seeds)
def test_attempts_that_others_followed_are_retries(seed):
    """Named by the attempts that were lost, each with its outcome."""
    played = clean_run(seed)
    lost = [
        ToolAgentEpisode(n, retry=True, reward=None, outcome=Outcome.HOST_LOST) for n in (6, 7, 8)
    ]
    report = report_of([*played, *lost])
    assert [("retries", "attempts")] == raised(report)
    assert {"e6", "e7", "e8"} == {one.episode_id for one in report.suggestions[0].evidence}
    assert (6, 3) == (sum(report.outcomes.values()), report.attempts)
    assert 6 == report.success.of


@settings(max_examples=20)
@given(seed=seeds)
def test_a_report_counts_each_thing_once_in_any_order(seed):
    """Turns, calls of tools and tokens are those of the records; one that comes twice is one."""
    played = clean_run(seed)
    made = [agent_episode(*one.end()) for one in played]
    report = introspect("coder", made)
    again = introspect("coder", random.Random(seed).sample([*made, *made[:2]], 8))
    turns = [
        placed.event for one in played for placed in one.log
        if isinstance(placed.event, events.Turn)
    ]  # fmt: skip
    replies = [events.parsed(turn.reply.message) for turn in turns]
    asked = [call for reply in replies for call in reply.get("tool_calls", ())]
    assert len(turns) == report.calls == again.calls
    assert len(asked) == sum(row.calls for row in report.tools)
    assert sum(turn.usage.prompt_tokens for turn in turns) == round(
        (report.prompt_tokens.mean or 0) * 6
    )
    assert {1: 5 * len(turns)} == report.versions
    assert (6, 0) == (again.episodes, again.without_turns)
    assert (report.run_s, report.tools, report.success) == (
        again.run_s, again.tools, again.success
    )  # fmt: skip
    share = sum(one.reward for one in played) / 6
    assert share == report.success.value
    assert report.success.low - 1e-9 <= share <= report.success.high + 1e-9


def test_waits_of_tools_lie_between_a_reply_and_the_call_that_brings_the_result():
    """Those that are called together wait together; what was never answered has none."""
    one = ToolAgentEpisode(0)
    one.turn("both", [("read", {}), ("run", {})], call_s=2)
    one.results("a", '{"error": "no"}', wait_s=3)
    one.turn("last", [("run", {})], call_s=1)
    report = report_of([one])
    read, run = sorted(report.tools, key=lambda row: row.name)
    assert (1, 0, 0, 3.0, 1) == (
        read.calls, read.failed, read.unanswered, read.wait_s.most, read.result_chars
    )  # fmt: skip
    assert (2, 1, 1, 3.0, {"error": 1}) == (
        run.calls, run.failed, run.unanswered, run.wait_s.most, run.failures
    )  # fmt: skip
    assert 6.0 == report.run_s.most
    assert 0.5 == report.model_share


def test_a_call_that_worked_in_between_is_no_repeated_failure():
    """And one that changes its arguments is none either; keys in another order change nothing."""
    one = ToolAgentEpisode(0)
    for n, text in enumerate(["Error: a", "Error: a", "fine", "Error: a", "Error: a"]):
        one.turn(f"{n}", [("fix", {"line": 1})])
        one.results(text)
    for n in range(5):
        one.turn(f"other {n}", [("fix", {"line": n + 2})])
        one.results("Error: a")
    assert [] == raised(report_of([one]))
    turned = ToolAgentEpisode(1)
    for n in range(3):
        turned.turn(f"{n}", [("fix", {"a": 1, "b": 2} if n % 2 else {"b": 2, "a": 1})])
        turned.results("Error: a")
    turned.turn("end")
    assert [("repeated_failing_call", "fix")] == raised(report_of([turned]))


def test_the_same_words_over_and_over_are_no_loop_where_the_answers_differ():
    """Nor in calls that do not go on with each other, such as samples of one prompt."""
    one = ToolAgentEpisode(0)
    for n in range(9):
        one.turn("look", [("read", {})])
        one.results(f"line {n}")
    assert [] == raised(report_of([one]))
    apart = ToolAgentEpisode(1)
    for _ in range(9):
        apart._length = 0  # each call begins anew
        apart.turn("same", asked="same")
    assert [] == raised(report_of([apart]))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", ""),
        ("done", ""),
        ("no error", ""),
        ("errors: none found", ""),
        ("The Error class is documented here", ""),
        ('{"result": 3, "error": null}', ""),
        ('{"success": true, "status": "ok"}', ""),
        ("Exit code: 0\nError handling works", ""),
        ("Process exited with code 0\nValueError was raised as expected", ""),
        ("Error: no such file", "error"),
        ("<tool_use_error>String not found</tool_use_error>", "error"),
        ("Traceback (most recent call last):\n  ...\nKeyError: 'a'", "KeyError"),
        ("requests.exceptions.ReadTimeout: late", "ReadTimeout"),
        ("Exit code 127\ncommand not found", "exit code 127"),
        ("Process exited with code 2\n", "exit code 2"),
        ('{"exit_code": 1, "output": ""}', "exit code 1"),
        ('{"error": {"type": "TimeoutError"}}', "TimeoutError"),
        ('{"isError": true, "content": []}', "error"),
        ('{"success": false}', "error"),
        ('{"status": "failed"}', "error"),
        ("{not json", ""),
    ],
)
def test_the_result_of_a_tool_is_an_error_by_its_words(text, kind):
    """No record says whether a tool failed, so usual forms are known."""
    assert kind == failure_of(text)


@settings(max_examples=50)
@given(text=st.text(max_size=40))
def test_any_text_may_be_the_result_of_a_tool(text):
    """Or the error of an episode: it has a kind, which is short."""
    assert len(failure_of(text)) <= 64
    assert len(kind_of(text)) <= 64
    assert len(failure_of('{"error": ' + text)) <= 64


def test_errors_that_differ_in_numbers_and_ids_have_one_kind():
    """They are counted together."""
    assert kind_of("4 of 5 turns of 3f21-w0 are in the log") == kind_of(
        "1 of 2 turns of 035b57b5-w0 are in the log"
    )
    assert "AgentError" == kind_of("agents.errors.AgentError: the 3rd try failed")
    assert "" == kind_of("")


@given(values=st.lists(st.floats(-1e6, 1e6), max_size=30))
def test_percentiles_are_among_the_numbers(values):
    """By nearest rank, and in order."""
    found = Distribution.of(values)
    assert len(values) == found.n
    if not values:
        assert (None, None) == (found.p50, found.most)
        return
    assert {found.p50, found.p90, found.most} <= set(values)
    assert found.p50 <= found.p90 <= found.most
    assert 2 * sum(value <= found.p50 for value in values) >= len(values)


def test_an_episode_without_its_turns_is_counted_and_said():
    """Retention takes turns first: outcome and reward stay, and times are of the others."""
    one, gone = ToolAgentEpisode(0), ToolAgentEpisode(1)
    one.turn("a")
    gone.turn("b")
    head, at, _ = gone.end()
    report = introspect("coder", [agent_episode(*one.end()), agent_episode(head, at, ())])
    assert (2, 1, 1) == (report.episodes, report.without_turns, report.calls)
    assert "the turns of 1 episode are not on the log" in str(list(sections_of_report(report)))


def test_a_child_counts_for_the_agent_that_played_it():
    """With its own outcome and reward, at the place of its parent's record."""
    one = ToolAgentEpisode(3, agent="judge")
    one.turn("true")
    _, _, played = one.end()
    child = events.ChildEpisode(
        episode_id="e3", parent="p", agent="judge", outcome=Outcome.FAILED, error="KeyError: 'x'",
        reward=0.5, n_turns=1,
    )  # fmt: skip
    parent = EpisodeHead(
        episode_id="p", task_id="t", agent="coder", sample=0, group_size=1, reward=1.0,
        children=(child,),
    )  # fmt: skip
    made = agent_episode(parent, "rl.episodes.v1/0/9", played, child="e3")
    assert ("e3", "rl.episodes.v1/0/9", Outcome.FAILED, "KeyError", 0.5, 1) == (
        made.episode_id, made.at, made.outcome, made.error, made.reward, len(made.calls)
    )  # fmt: skip


@settings(max_examples=20)
@given(seed=seeds)
def test_two_reports_are_held_against_each_other(seed):
    """Figure by figure; a suggestion says whether the other one does without it."""
    played = clean_run(seed)
    before = report_of(played)
    marked = ToolAgentEpisode(9)
    failing(marked)
    after = held_against(report_of([*played, marked]), before)
    assert [True] == [one.fresh for one in after.suggestions]
    listed = {one.name: one for one in figures(after, before)}
    assert (7, 6) == (listed["episodes"].value, listed["episodes"].other)
    assert before.run_s.p50 == listed["run, median"].other
    assert [False] == [one.fresh for one in held_against(after, after).suggestions]


def recorded(world):
    """The episodes of a recorded world, by agent."""
    turns = {}
    for record in of_topic(world, TURNS.name):
        placed = PlacedEvent(
            shown(record.address), record.timestamp, codec.decode(record.value, TurnsEvent)
        )
        turns.setdefault(record.key, []).append(placed)
    made = {}
    for record in of_topic(world, EPISODES.name):
        head = codec.decode(record.value, GroupsEvent)
        if isinstance(head, EpisodeHead):
            episode = agent_episode(head, shown(record.address), turns.get(head.episode_id, ()))
            made.setdefault(head.agent, []).append((head, episode))
    return made


def test_worlds_of_kills_show_the_attempts_that_were_lost_and_nothing_else():
    """Their agents say the same at each call, but not in one conversation."""
    for world in load(RECORDED / "0.1.0.jsonl").worlds:
        for agent, pairs in recorded(world).items():
            report = introspect(agent, [episode for _, episode in pairs])
            lost = sum(head.retry for head, _ in pairs)
            assert [("retries", "attempts")] * (lost >= 3) == raised(report)
            assert lost == report.attempts
            assert sum(head.n_turns for head, episode in pairs if episode.whole) == report.calls


def test_in_a_recorded_run_of_the_demo_nothing_is_suggested():
    """Groups of `odradek demo`, without their headers: nothing was lost, slow or in vain."""
    (world,) = load(RECORDED / "demo/hilo.jsonl").worlds
    ((agent, pairs),) = recorded(world).items()
    report = introspect(agent, [episode for _, episode in pairs])
    assert [] == raised(report)
    assert ("hilo", 40, 0, {"completed": 40}) == (
        report.agent, report.episodes, report.without_turns, report.outcomes
    )  # fmt: skip
    assert [1, 2] == [row.turn for row in report.prompts]
    assert 0 < report.model_share < 1
