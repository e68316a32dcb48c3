"""The demo's figures, plots and page come from the tally of the topics."""

import itertools
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from odradek.infra.app.cli.start.demo import command as demo_command
from odradek.infra.app.demo.course import DemoAims, DemoCourse, DemoPhase
from odradek.infra.app.demo.curves import CurvePoint, chosen
from odradek.infra.app.demo.outcome import children_by_step, outcome, succeeded, trainers_of
from odradek.infra.app.demo.plots import PLOTS, moving
from odradek.infra.app.demo.report import summed, write
from odradek.infra.app.demo.run import prepare
from odradek.infra.app.project import load
from odradek.infra.app.session.evaluation import EvaluationRound
from odradek.infra.app.session.stats import RunStats, StepFigures
from odradek.schemas.events import Batch, ChildEpisode, EpisodeHead, Exclusion, Outcome, Step

CONSERVATION = {
    "tasks": 4, "samples": 32, "turns": 60, "episodes": 31, "batches": 4,
    "exclusions": {"host_lost": 1}, "closed": True,
}  # fmt: skip


def head(number: int, **more: object) -> EpisodeHead:
    """An episode of the hi-lo game."""
    fields = {"components": {"game": float(number % 3 == 0)}, "reward": 1.1, **more}
    return EpisodeHead(
        episode_id=f"e{number}", task_id=f"t{number // 8}", agent="hilo", sample=number % 8,
        group_size=8, **fields,
    )  # fmt: skip


def course() -> DemoCourse:
    """A finished run of ten steps."""
    tally = RunStats(component="game")
    for number in range(32):
        tally.episode(head(number), 1000.0 + number)
    for number in range(10):
        metrics = {
            "success": number / 10, "reward_mean": number / 9, "loss": 0.1, "rows": 8.0,
            "staleness_mean": 0.5, "staleness_max": 2.0, "wait_s": 1.0, "train_s": 0.5,
        }  # fmt: skip
        step = Step(run="r", incarnation=1, step=number + 1, position=number, metrics=metrics)
        tally.step(step, 1000.0 + number)
    session = SimpleNamespace(tally=tally, supervisor=SimpleNamespace(restarts={"proxy": 1}))
    made = DemoCourse(session, aims=DemoAims())
    made.rounds += [
        EvaluationRound("greedy", 0, 1, 1 / 3, 12, 1000.0),
        EvaluationRound("sampled", 0, 1, 0.5, 48, 1001.0),
        EvaluationRound("greedy", 10, 11, 1.0, 12, 1030.0),
        EvaluationRound("sampled", 10, 11, 0.95, 48, 1031.0),
    ]
    made.phases += [DemoPhase("training", 1000.0, 1016.0), DemoPhase("draining", 1016.0, 1020.0)]
    made.kills.append(("proxy", 6, 1010.0))
    return made


def test_the_figures_have_the_promised_keys() -> None:
    """Programs find what the design promises, with the values of the run."""
    figures = outcome(course(), CONSERVATION, wall_s=33.3)

    assert figures["greedy_success"] == 1.0
    assert figures["sampled_success_first"] == 0.5
    assert figures["sampled_success_last"] == 0.95
    assert figures["steps"] == 10
    assert figures["wall_s"] == 33.3
    assert figures["conservation"] == CONSERVATION
    assert figures["staleness"] == {"mean": 0.5, "max": 2.0}
    assert figures["process_restarts"] == 1
    assert figures["phases"] == {
        "starting and counting": 13.3, "training": 16.0, "draining": 4.0,
    }  # fmt: skip
    assert figures["trainer_s"]["wait_s"] == 10.0
    assert figures["curve"]["sampled"][:2] == [(1, 0.0), (2, 0.1)]
    assert figures["curve"]["greedy"] == [(0, 0.3333), (10, 1.0)]


@pytest.mark.parametrize(
    ("greedy", "closed", "wanted"),
    [(0.9, True, True), (0.89, True, False), (1.0, False, False)],
)
def test_success_needs_target_and_closed_sums(greedy: float, closed: bool, wanted: bool) -> None:
    """Neither learning nor bookkeeping alone is enough."""
    figures = {"greedy_success": greedy, "target": 0.9, "conservation": {"closed": closed}}

    assert succeeded(figures) is wanted


def trained(run: str, leader: str = "") -> dict[str, object]:
    """What `odradek verify` counts of a trainer's run."""
    counts = {"steps": 10, "batches_used": 9, "rows_used": 300, "refused": {"stale": 20}}
    return {"run": run, "sampled_by": leader, "policy": f"p.{run}", **counts}


def test_the_report_holds_every_plot_and_the_sums(tmp_path: Path) -> None:
    """The page, its pictures and the same figures for machines; several trainers are one plot."""
    made, figures = course(), outcome(course(), CONSERVATION, wall_s=33.3)
    report = SimpleNamespace(trainers=(trained("gspo", "main"), trained("main")))
    points = [CurvePoint(0, 0.55, 1 / 3), CurvePoint(10, 0.9, 1.0)]
    curves = {"grpo": points, "gspo": points}
    figures["trainers"] = trainers_of(report, ("grpo", "gspo"), curves)
    page = write(made, figures, tmp_path)

    text = page.read_text()
    assert all((tmp_path / name).stat().st_size > 5000 for name in [*PLOTS, "trainers.png"])
    assert all(name in text for name in [*PLOTS, "trainers.png"])
    assert {"grpo": (True, "p.main"), "gspo": (False, "p.gspo")} == {
        name: (found["leads"], found["policy"]) for name, found in figures["trainers"].items()
    }
    line = "success 0.55 → 0.90 in 10 steps; of 9 batches 300 rows used, 20 refused"
    assert line == summed(figures["trainers"]["gspo"])
    assert "32 samples asked for = 31 episodes in batches + 1 exclusions" in text
    assert json.loads((tmp_path / "demo.json").read_text())["steps"] == 10


def test_a_run_without_a_step_still_has_a_report(tmp_path: Path) -> None:
    """A demo that failed early is reported as failed, not as an error of the report."""
    session = SimpleNamespace(tally=RunStats(), supervisor=SimpleNamespace(restarts={}))
    made = DemoCourse(session, aims=DemoAims())

    page = write(made, outcome(made, {"closed": False}, wall_s=1), tmp_path)

    assert "Not reached: greedy success 0.00 after 0 steps and the counts do not close" in (
        page.read_text()
    )


@pytest.mark.parametrize(
    ("steps", "expected"),
    [([], []), ([1], [1]), ([3, 5], [3, 5]), (range(1, 26), [3, 6, 9, 12, 15, 18, 21, 24, 25])],
)
def test_the_checkpoints_that_are_played_lie_evenly(steps, expected) -> None:
    """Not all of them, and always the last."""
    assert expected == chosen(list(steps))


def test_a_demo_of_several_losses_is_a_project_of_several_trainers(tmp_path: Path) -> None:
    """The first loss leads, the others inherit all but their own; every checkpoint is kept."""
    project = load(prepare(tmp_path, "hilo", ("grpo", "gspo")), {})
    ((follower, entry),) = project.followers
    values = {value.key: value.value for value in entry.values}
    assert ("grpo", "gspo", "gspo") == (
        project.value("trainer", "loss"), follower.name, values["loss"]
    )  # fmt: skip
    for name in ("keep", "learning_rate", "kl"):
        assert project.value("trainer", name) == values[name]
    assert project.value("trainer", "keep") > 1000


@pytest.mark.parametrize(
    ("arguments", "line"),
    [(("grpo,gspo", "--game", "pairs"), "the game hilo"), (("grpo, grpo",), "a loss twice")],
)
def test_trainers_that_cannot_be_compared_are_refused(arguments, line) -> None:
    """Before anything is started."""
    done = CliRunner().invoke(demo_command, ["--trainers", *arguments])
    assert 2 == done.exit_code
    assert line in done.output


def test_a_moving_mean_begins_with_what_there_is() -> None:
    """The first values are means of fewer."""
    assert moving([1, 3, 5], 2) == [1, 2, 4]


def test_attempts_that_are_followed_do_not_count() -> None:
    """Only the episode that ends a sample is counted, and only with an outcome that counts."""
    tally = RunStats(component="game")
    tally.episode(head(0, retry=True), 1)
    tally.episode(head(0, unattributed=True), 1)
    tally.episode(head(0, outcome=Outcome.CANCELLED), 2)
    tally.episode(head(3), 3)

    assert [(p.counts, p.success) for p in tally.episodes] == [(False, False), (True, True)]
    assert tally.recent() == (1.0, 1.1)


def test_a_repeated_step_replaces_the_first() -> None:
    """What a killed trainer did again is one step."""
    tally = RunStats()
    for value in (1.0, 2.0):
        tally.step(Step(run="r", incarnation=1, step=3, position=1, metrics={"loss": value}), value)
    assert tally.last_step == 3
    assert tally.steps[3].metrics["loss"] == 2.0


def test_steps_of_a_trainer_that_does_not_lead_are_counted_apart() -> None:
    """Neither the run's last step nor its version or position are that trainer's."""
    tally = RunStats()
    for run, leader, number in (("r", "", 3), ("b", "r", 9)):
        step = Step(run=run, incarnation=1, step=number, position=number, version=number,
                    sampled_by=leader, weights="w")  # fmt: skip
        tally.step(step, 1.0)

    assert (tally.last_step, tally.version, tally.position) == (3, 3, 3)
    assert {"b": 9} == tally.beside


def test_batches_close_tasks_and_count_exclusions() -> None:
    """A batch closes its task, by purpose."""
    tally = RunStats()
    tally.batch(
        Batch(task_id="t", group_size=2, exclusions=(Exclusion(sample=0, reason="host_lost"),))
    )

    assert tally.closed == {"t"}
    assert tally.batches == {"train": 1}
    assert tally.exclusions == {"host_lost": 1}


def test_what_children_were_worth_is_counted_at_the_step_behind_them():
    """The curve of the agents that were asked: the mean of those that ended since the last step."""
    tally = RunStats()
    for number in (1, 2):
        tally.steps[number] = StepFigures(at=10.0 * number, step=number, version=number, metrics={})
    for at, worths in [
        (1.0, (1.0, 0.0)),
        (9.0, (1.0,)),
        (15.0, ()),
        (16.0, (0.5,)),
        (30.0, (1.0,)),
    ]:
        for sample, worth in enumerate(worths):
            child = ChildEpisode(episode_id="c", parent="e", agent="b", components={"truth": worth})
            head = EpisodeHead(
                episode_id="e", task_id="t", agent="a", sample=sample, group_size=2,
                children=(child,),
            )  # fmt: skip
            tally.episode(head, at)
    course = SimpleNamespace(session=SimpleNamespace(tally=tally))
    assert [(1, pytest.approx(2 / 3)), (2, 0.5)] == children_by_step(course)


def test_the_answerers_truth_is_where_the_number_lies(tmp_path):
    """Of each wrong guess; and what it may write is what the asker reads."""
    game = runpy.run_path(str(prepare(tmp_path, "pairs") / "game.py"))
    for guess, secret in itertools.permutations((1, 2, 3), 2):
        hint = game["SAID"][game["truth"](guess, secret)]
        assert hint == ("low" if guess < secret else "high")
