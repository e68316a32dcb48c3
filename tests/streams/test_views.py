"""Live views count what stands in their window."""

from odradek.schemas.events import EpisodeHead, Outcome
from odradek.streams.views.rates import Rates


def head(reward: float | None = 1.0, agent: str = "hilo", **more) -> EpisodeHead:
    return EpisodeHead(
        episode_id="e", task_id="t", agent=agent, sample=0, group_size=2, reward=reward, **more
    )


def test_rates_are_by_agent_and_forget_what_left_the_window():
    """Episodes that do not count have no say in the mean reward."""
    rates = Rates(window_s=10)
    rates.add(0.0, head(5.0))
    rates.add(15.0, head(1.0))
    rates.add(16.0, head(0.0))
    rates.add(17.0, head(None, outcome=Outcome.HOST_LOST))
    rates.add(18.0, head(agent="other"))
    shown = rates.snapshot(20.0)["agents"]
    assert {
        "episodes_per_s": 0.3,
        "reward_mean": 0.5,
        "outcomes": {"completed": 2, "host_lost": 1},
    } == shown["hilo"]
    assert ["hilo", "other"] == list(shown)
