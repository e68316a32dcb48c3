"""OpenAI's chat JSON lines, and TRL's prompt and completion: the same in two fields. Pure.

The formats are those of OpenAI's guide to fine-tuning and of TRL's docs/source/dataset_formats.md.
Beside them `reward`, `agent`, `task_id` and `episode_id` are read: `odradek export data` writes
these.
"""

from typing import Any

from odradek.infra.app.imports.recording import Recording
from odradek.infra.app.imports.turns import REPLY, messages_of, reward_of, text_of, turns_of

Object = dict[str, Any]


def fits(record: Object) -> bool:
    """Whether a record looks like one of this format."""
    return "messages" in record or {"prompt", "completion"} <= record.keys()


def parse(record: Object) -> Recording:
    """The episode of a record. Raises BadRecording."""
    if "messages" in record:
        messages = messages_of(record["messages"])
    else:
        messages = messages_of(record.get("prompt"), "prompt")
        messages = messages + messages_of(record.get("completion"), "completion", role=REPLY)
    reward = reward_of(record.get("reward"))
    return Recording(
        episode_id=text_of(record.get("episode_id")),
        task_id=text_of(record.get("task_id")),
        agent=text_of(record.get("agent")),
        turns=turns_of(messages, record.get("tools")),
        reward=reward,
        components={} if reward is None else {"reward": reward},
    )
