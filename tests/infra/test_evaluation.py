"""Evaluations while a run trains: when they are due, what they say, and where it is written."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.infra.app.exports.points import PointWriter
from odradek.infra.app.exports.sink import MemorySink, SinkOptions, StepPoint
from odradek.infra.app.exports.state import ExportState, StateFile
from odradek.infra.app.session.evaluation import EvaluationRound
from odradek.infra.app.session.evaluation_course import EvaluationCourse, EvaluationSchedule
from odradek.infra.app.session.evaluation_rates import PassRate
from odradek.infra.app.session.follower import RunFollower
from odradek.infra.app.session.stats import RunStats
from odradek.infra.bus import KafkaAppender, ensure_topics
from odradek.infra.client import subscribe
from odradek.infra.errors import ProjectError
from odradek.schemas import codec
from odradek.schemas.events import Batch, Episode, Outcome, Policy, Task


def policy(step, version=None, name="policy"):
    return Policy(name=name, version=step + 1 if version is None else version, uri="", step=step)


def evaluated(schedule, steps):
    """Of the policies of these steps, those that are evaluated."""
    made = []
    for one in map(policy, steps):
        if schedule.due(one):
            schedule.evaluated(one)
            made.append(one.step)
    return made


@pytest.mark.parametrize(
    ("every", "last", "steps", "expected"),
    [
        (10, None, range(31), [0, 10, 20, 30]),
        (10, None, [7, 16, 17, 40], [7, 16, 40]),  # announced every so many steps, or late
        (10, 20, range(20, 45), [30, 40]),  # what went on knows the last one
        (10, 20, range(15, 45), [20, 30, 40]),  # done again since
        (10, None, [*range(26), *range(13, 31)], [0, 10, 20, 20, 30]),  # the trainer went back
        (1, None, [0, 1, 1, 2], [0, 1, 2]),
    ],
)
def test_every_n_steps_a_policy_is_due(every, last, steps, expected):
    """Driven by what the trainer announces."""
    assert expected == evaluated(EvaluationSchedule(every, last), steps)


@given(st.integers(1, 9), st.lists(st.integers(0, 3), max_size=30))
def test_each_multiple_is_evaluated_at_the_first_policy_that_reaches_it(every, gaps):
    """However many steps lie between two announcements."""
    steps = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    made = evaluated(EvaluationSchedule(every), steps)
    expected = {step // every: step for step in reversed(steps)}
    assert sorted(expected.values()) == made


ROUND = EvaluationRound(
    "sampled", 20, 21, 0.5, 15, 1000.0, {1: PassRate(0.5, 0.25, 0.75)}, left_out=1, tasks=2
)


def test_a_round_says_its_rates_with_their_intervals_and_what_was_left_out():
    """In a line, and as metrics."""
    expected = "step 20 (version 21): pass@1 0.500 [0.250, 0.750]; 2 tasks, 15 samples, 1 left out"
    assert expected == ROUND.line()
    assert {
        "eval_pass_1": 0.5, "eval_pass_1_low": 0.25, "eval_pass_1_high": 0.75, "eval_tasks": 2,
        "eval_samples": 15, "eval_left_out": 1, "version": 21,
    } == ROUND.metrics()  # fmt: skip


def writer_in(folder, made, *, append_only=False):
    """A writer to a sink in memory; each sink that it makes is added to a list."""
    options = SinkOptions("main-eval", folder)
    file = StateFile(folder / "main-eval.memory.json")

    def sinks(options):
        if len(made) < options.attempt:
            made.append(MemorySink(append_only=append_only))
        return made[-1]

    state = file.load(ExportState(run="main-eval", sink="memory", ledger="rl.policies.v1"))
    return PointWriter(sinks, options, file, state)


def test_points_stand_there_once_through_restarts_and_a_trainer_that_goes_back(tmp_path):
    """An earlier step takes the place of those from there on."""
    made = []
    writer = writer_in(tmp_path, made)
    assert None is writer.last
    for step in (0, 10, 20):
        writer.add(StepPoint(step, 0.0, {"eval_pass_1": step}))
    again = writer_in(tmp_path, made)
    assert 20 == again.last
    for step in (10, 20, 30):
        again.add(StepPoint(step, 1.0, {"eval_pass_1": step}))
    (sink,) = made
    assert {0: 0.0, 10: 1.0, 20: 1.0, 30: 1.0} == {n: p.at for n, p in sink.durable.items()}


def test_a_sink_that_only_adds_is_left_for_one_with_the_points_that_count(tmp_path):
    """From this process; the next one goes on with it."""
    made = []
    writer = writer_in(tmp_path, made, append_only=True)
    for step in (0, 10, 20, 10, 20):
        writer.add(StepPoint(step, 0.0, {}))
    writer_in(tmp_path, made, append_only=True).add(StepPoint(30, 0.0, {}))
    assert [[0, 10, 20], [0, 10, 20, 30]] == [[*sink.durable] for sink in made]


TASKS = [Task(task_id="x", agent="a", item=item, group_size=4) for item in ("even", "odd")]


class Players:
    """Plays what is published: even tasks are solved, of odd ones one sample in four, one is lost."""

    def __init__(self, bus):
        self.bus = bus
        self.tasks = []

    async def run(self, ready):
        appender = await KafkaAppender.connect(self.bus)
        try:
            async for task in subscribe("rl.tasks.v1", bus=self.bus, ready=ready):
                self.tasks.append(task)
                for sample in range(4):
                    solved = task.item == "even" or sample == 0
                    lost = task.item == "even" and sample == 3
                    head = {
                        "episode_id": f"{task.task_id}-{sample}", "task_id": task.task_id,
                        "agent": "a", "sample": sample, "group_size": 4, "purpose": "eval",
                        "reward": float(solved),
                        "outcome": Outcome.HOST_LOST if lost else Outcome.COMPLETED,
                    }  # fmt: skip
                    value = codec.encode(Episode(**head))
                    await appender.append("rl.episodes.v1", key=task.task_id, value=value)
                value = codec.encode(Batch(task_id=task.task_id, group_size=4, purpose="eval"))
                await appender.append("rl.batches.v1", key=task.task_id, value=value)
        finally:
            await appender.aclose()


async def announce(bus, *policies):
    appender = await KafkaAppender.connect(bus)
    for one in policies:
        await appender.append("rl.policies.v1", key=one.name, value=codec.encode(one))
    await appender.aclose()


@pytest.mark.broker
async def test_policies_are_evaluated_through_the_bus_as_they_are_announced(bus):
    """Tasks go out under ids of their own with the purpose eval, and their episodes are counted."""
    await ensure_topics(bus)
    rounds, done, watches = [], asyncio.Event(), []

    def told(made):
        rounds.append(made)
        done.set()

    def course():
        watches.append(RunFollower(bus, RunStats(), since="end"))
        return EvaluationCourse(
            bus, "policy", TASKS, EvaluationSchedule(5), watches[-1], told, 30.0
        )

    with pytest.raises(ProjectError, match=r"no policy 'policy' was announced; there are: none"):
        await course().run(once=True)
    players, listening = Players(bus), asyncio.Event()
    playing = asyncio.create_task(players.run(listening.set))
    await listening.wait()
    await announce(bus, policy(9, name="another"), policy(3, version=2), policy(0, version=1))
    evaluating = asyncio.create_task(course().run())
    for step in (0, 5):
        if step:
            await announce(bus, policy(9, name="another"), policy(step))
        await done.wait()
        done.clear()
    evaluating.cancel()
    await asyncio.gather(evaluating, return_exceptions=True)
    await course().run(once=True)
    playing.cancel()
    await asyncio.gather(playing, return_exceptions=True)

    assert [(0, 1), (5, 6), (5, 6)] == [(made.step, made.version) for made in rounds]
    assert {(made.tasks, made.episodes, made.left_out) for made in rounds} == {(2, 7, 1)}
    assert [{1, 2}] * 3 == [set(made.passes) for made in rounds]
    assert (1 + 1 / 4) / 2 == pytest.approx(rounds[0].passes[1].value)
    assert (1 + 1 / 2) / 2 == pytest.approx(rounds[0].passes[2].value)
    assert 6 == len({task.task_id for task in players.tasks})
    assert {"eval"} == {task.purpose for task in players.tasks}
    assert [[], set()] == [watches[-1].tally.episodes, watches[-1].tally.closed]  # none is kept
