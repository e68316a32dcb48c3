"""Answers that a task gives to its agent's questions: scripted ones, then those of a simulator.

The host gives them itself, beside the agent that asked. So they have no state that could be lost
with anybody else: a host that dies takes its attempt along, and the next attempt hears them from
the first on.
"""

from typing import Any

from a2a.types import Message, Part, Role, SendMessageRequest, Task
from google.protobuf.json_format import MessageToDict, ParseDict

from odradek.agents.attempt.attempt import Attempt
from odradek.agents.binding.parts import part_of
from odradek.agents.client.ask import ask
from odradek.agents.errors import AskError, AskFailed, NoAnswer
from odradek.agents.host.children import AgentLine
from odradek.schemas.events import Outcome


class TaskAnswers:
    """The answers to one attempt's questions.

    Args:
        line: On which a simulator is asked.
        run: The attempt.
    """

    def __init__(self, line: AgentLine, run: Attempt) -> None:
        self._line = line
        self._run = run
        self._count = 0

    @property
    def given(self) -> bool:
        """Whether the task gives any."""
        return bool(self._run.sample.answers or self._run.sample.simulator)

    async def next(self, task: Task) -> SendMessageRequest:
        """The message that answers the question of a task that asks. Raises NoAnswer, BusError.

        Its id follows from the request and the question's number.
        """
        self._count += 1
        sample = self._run.sample
        if self._count <= len(sample.answers):
            answer = sample.answers[self._count - 1]
        elif sample.simulator:
            answer = await self._simulated(sample.simulator, task)
        else:
            raise NoAnswer(
                Outcome.FAILED,
                f"the agent asked {self._count} times, and its task has {len(sample.answers)} "
                "answers",
            )
        message = Message(
            message_id=f"{self._run.episode_id}/answer/{self._count}",
            role=Role.ROLE_USER,
            parts=[ParseDict(part_of(answer), Part())],
            task_id=self._run.episode_id,
            context_id=self._run.context_id,
        )
        return SendMessageRequest(message=message)

    async def _simulated(self, simulator: str, task: Task) -> Any:
        """What the simulator says to the conversation so far."""
        asked = {"task": self._run.send.input_value, "conversation": conversation(task)}
        try:
            connection = await self._line.to(simulator)
            wait_s = self._run.sample.timeouts.attempt_s
            answer = (await ask(connection, simulator, asked, timeout_s=wait_s)).value
        except AskError as error:
            # No fault of the agent's: another attempt, unless the simulator itself says no.
            outcome = Outcome.FAILED if isinstance(error, AskFailed) else Outcome.UPSTREAM_FAILED
            raise NoAnswer(outcome, f"the simulator gave no answer: {error}") from None
        if answer is None:
            raise NoAnswer(Outcome.FAILED, f"the simulator {simulator} has nothing more to say")
        return answer


def conversation(task: Task) -> list[dict[str, Any]]:
    """What was said in a task, the question last: `role` is "user" or "agent"; and the parts."""
    messages = [*task.history]
    if task.status.HasField("message"):
        messages.append(task.status.message)
    return [
        {
            "role": "user" if message.role == Role.ROLE_USER else "agent",
            "parts": [MessageToDict(part) for part in message.parts],
        }
        for message in messages
    ]
