"""Agents that ask in training: their task scripts the answers, or a simulator of the user gives them."""

import pytest
from a2a.server.agent_execution import AgentExecutor
from a2a.server.tasks import TaskUpdater
from a2a.types import Part, TaskState
from google.protobuf.json_format import MessageToDict

pytestmark = pytest.mark.broker


class Waiter(AgentExecutor):
    """Asks until it has two answers."""

    def __init__(self):
        self.heard = []

    async def execute(self, context, event_queue):
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        (part,) = context.message.parts
        said = MessageToDict(part)
        self.heard.append(said.get("text", said.get("data")))
        if len(self.heard) % 3:
            question = updater.new_agent_message([Part(text=f"question {len(self.heard)}?")])
            await updater.update_status(TaskState.TASK_STATE_INPUT_REQUIRED, question)
        else:
            await updater.complete(updater.new_agent_message([Part(text="thank you")]))

    async def cancel(self, context, event_queue): ...


class Customer(AgentExecutor):
    """Says how often it was asked."""

    def __init__(self):
        self.asked = []

    async def execute(self, context, event_queue):
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        (part,) = context.message.parts
        self.asked.append(MessageToDict(part)["data"])
        answer = Part(text=f"answer {len(self.asked)}")
        await updater.complete(updater.new_agent_message([answer]))

    async def cancel(self, context, event_queue): ...


async def test_an_agents_questions_get_the_answers_that_its_task_scripts(stage):
    """Text and data, in their order; the episode completes, and is sealed once."""
    agent = Waiter()
    await stage.host(agent, concurrency=1)
    await stage.send("m1", given="menu", answers=["blue", {"n": 3}])
    await stage.ended("m1")
    assert ["menu", "blue", {"n": 3}] == agent.heard
    assert [(stage.episode("m1"), "completed", "")] == stage.proxy.seals


async def test_one_question_too_many_ends_the_episode_as_failed(stage):
    """What it was asked for, and what its task has, stands in the episode."""
    agent = Waiter()
    await stage.host(agent)
    await stage.send("m1", given="menu", answers=["blue"])
    await stage.ended("m1")
    ((episode, outcome, error),) = stage.proxy.seals
    assert (stage.episode("m1"), "failed") == (episode, outcome)
    assert "the agent asked 2 times, and its task has 1 answers" == error


async def test_a_simulator_answers_what_the_task_does_not_script(stage):
    """It hears the task and the conversation so far, the question last."""
    agent, customer = Waiter(), Customer()
    await stage.host(customer, name="customer", training=False)
    await stage.host(agent)
    await stage.send("m1", given="menu", answers=["blue"], simulator="customer")
    await stage.ended("m1")
    assert ["menu", "blue", "answer 1"] == agent.heard
    (asked,) = customer.asked
    assert ["user", "agent", "user", "agent"] == [m["role"] for m in asked["conversation"]]
    assert ("menu", "question 2?") == (
        asked["task"],
        asked["conversation"][-1]["parts"][0]["text"],
    )
    assert [(stage.episode("m1"), "completed", "")] == stage.proxy.seals


async def test_a_simulator_that_is_not_there_is_no_fault_of_the_agents(stage):
    """The attempt is given up, and another one follows."""
    await stage.host(Waiter())
    await stage.send("m1", given="menu", simulator="nobody", max_attempts=2)
    await stage.ended("m1", attempt=2)
    story = [e for e in await stage.story() if type(e).__name__ == "EpisodeAborted"]
    assert ["upstream_failed"] * 2 == [event.reason for event in story]
    assert "there is no such agent" in story[0].error
