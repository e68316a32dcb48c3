"""What a run must come to, worked out from its seed alone.

The scripted agent plays by this, the engine stub answers by it, and the verifier holds the log
against it. Nothing of the pipeline is imported here.

A model call is named by its key, "seed/task/sample/attempt/step/branch", which is the text of the
last message that the agent sends. All tokens of a reply follow from it.
"""

import struct
from dataclasses import dataclass
from hashlib import blake2b

START, END, TURN = 2, 3, 4
"""Ids that begin a prompt's message, end a reply, and end a prompt."""
FIRST, LAST = 7, 102
"""Ids of words: the trainer's tiny model has 103 ids."""
AGENT = "scripted"
ECHO = "echo"
"""The agent of the clients of gateways."""
ECHOED = ["0", "1", "2", "3", "4"]
"""What it says to each message."""
REWARDS = {"score": 1.0, "bonus": 0.5}
FAILURE = -0.25
QUIET = "q"
"""Tasks whose ids begin so have samples whose bonus never comes."""


LATE = "late"
"""The component of the verdicts that come when all is over."""


def rescored(episode: str) -> float:
    """What an episode is worth to those who judge history anew."""
    return draw("rescored", episode) % 1000 / 1000


def draw(*what: object) -> int:
    """A number of 63 bits that only depends on what is named."""
    return int.from_bytes(blake2b("/".join(map(str, what)).encode(), digest_size=8).digest()) >> 1


@dataclass(frozen=True)
class Call:
    """One model call of an episode."""

    key: str
    stream: bool


@dataclass(frozen=True)
class Play:
    """What the agent does in one attempt."""

    steps: tuple[tuple[Call, ...], ...]
    """Calls of one step go out together; the first one's reply is what the next step builds on."""
    ending: str
    """`completed`, `failed` (it raises), `upstream_failed` (it says that the model is away), or
    `unrewarded` (it gives no bonus)."""
    score: float
    bonus: float

    @property
    def reward(self) -> float | None:
        """What its episode is worth, None where it does not count."""
        if self.ending == "completed":
            return REWARDS["score"] * self.score + REWARDS["bonus"] * self.bonus
        return FAILURE if self.ending == "failed" else None


def play_of(seed: int, task: str, sample: int, attempt: int) -> Play:
    """The script of an attempt.

    One sample in 32 fails on every attempt, one in 64 finds its model away on the first; of quiet
    tasks, one in 8 gets no bonus.
    """
    luck = draw(seed, task, sample)
    ending = "failed" if luck % 32 == 0 else "completed"
    if attempt == 1 and luck % 64 == 1:
        ending = "upstream_failed"
    if task.startswith(QUIET) and luck % 8 == 2:
        ending = "unrewarded"
    steps = []
    for step in range(1 + luck // 64 % 4):
        dice = draw(seed, task, sample, "step", step)
        # One in eight is a burst of different calls, one in sixteen the same call twice at once.
        branches = [0, 1, 2][: 2 + dice // 16 % 2] if dice % 16 < 2 else [0]
        branches = [0, 0] if dice % 16 == 2 else branches
        steps.append(
            tuple(
                Call(f"{seed}/{task}/{sample}/{attempt}/{step}/{branch}", dice // 32 % 2 == 0)
                for branch in branches
            )
        )
    return Play(
        tuple(steps),
        ending,
        score=draw(seed, task, sample, attempt, "score") % 1000 / 1000,
        bonus=draw(seed, task, sample, attempt, "bonus") % 100 / 100,
    )


def words(*what: object, most: int = 8) -> list[int]:
    """A few ids of words."""
    n = 4 + draw(*what, "n") % (most - 3)
    return [FIRST + draw(*what, at) % (LAST - FIRST + 1) for at in range(n)]


def said(key: str) -> str:
    """The text of the reply to a call."""
    return " ".join(map(str, words("reply", key)))


def completion(key: str) -> list[int]:
    """The ids that the engine samples for a call."""
    return [*words("reply", key), END]


def logprobs(key: str) -> list[float]:
    """Their log probabilities, as float32."""
    n = len(completion(key))
    exact = [-(draw("logprob", key, at) % 4000) / 1000 for at in range(n)]
    return [struct.unpack("<f", struct.pack("<f", value))[0] for value in exact]


def prompt(messages: list[dict[str, str]]) -> list[int]:
    """The ids of a history: a reply stands in it with exactly the ids that were sampled."""
    ids: list[int] = []
    for message in messages:
        if message["role"] == "assistant":
            ids += [*map(int, message["content"].split()), END]
        else:
            ids += [START, *words("message", message["content"], most=6), TURN]
    return ids


def history(play: Play, step: int) -> list[dict[str, str]]:
    """What the agent sends before the last message of a step's calls."""
    told = []
    for before in play.steps[:step]:
        told.append({"role": "user", "content": before[0].key})
        told.append({"role": "assistant", "content": said(before[0].key)})
    return told


def expected(play: Play) -> dict[str, tuple[list[int], int]]:
    """By key, the prompt's ids of each call of an attempt, and how often it is made."""
    found: dict[str, tuple[list[int], int]] = {}
    for number, step in enumerate(play.steps):
        for call in step:
            ids = prompt([*history(play, number), {"role": "user", "content": call.key}])
            found[call.key] = (ids, found.get(call.key, (ids, 0))[1] + 1)
    return found
