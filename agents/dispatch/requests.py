"""The records of one task: GroupOpened, a request for each sample, and the task once more."""

import time
from typing import Final

import msgspec

from odradek.agents.binding.requests import LARGEST, SampleAddress, send_headers, send_value
from odradek.agents.errors import RequestRefused
from odradek.agents.trust.signer import RequestSigner
from odradek.infra.bus import OutgoingRecord
from odradek.infra.runtime import telemetry
from odradek.schemas import codec, ids
from odradek.schemas.events import GroupOpened, Task
from odradek.schemas.topics import A2A_REQUESTS, EPISODES, TASKS, agent_topic
from odradek.schemas.worth import fault

SOURCE: Final = "/dispatcher"
ENVELOPE: Final = 16 * 1024
"""More bytes than a request adds to its task's input and settings."""


class TaskRequests(msgspec.Struct, frozen=True, kw_only=True):
    """A task that was read."""

    task: Task
    partition: int
    offset: int
    traceparent: str | None = None


def check(task: Task) -> None:
    """Raise RequestRefused if no host would read the task's requests, or none should."""
    try:
        msgspec.json.decode(task.input)  # passes through unread until here
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestRefused("not_json", f"input: {codec.unquoted(error)}") from None
    size = len(bytes(task.input)) + len(msgspec.json.encode([task.sampling, task.answers]))
    if size > LARGEST - ENVELOPE:
        raise RequestRefused("too_large", f"an input of {size} bytes fits no request")
    if task.simulator == task.agent:
        raise RequestRefused("bad_simulator", f"{task.agent} cannot answer its own questions")
    if (wrong := fault(task)) is not None:
        raise RequestRefused(wrong.reason, wrong.detail)


def records_of(
    order: TaskRequests, max_attempts: int, signer: RequestSigner | None = None
) -> list[OutgoingRecord]:
    """The records that send a group out."""
    task = order.task
    with telemetry.span(
        "dispatch.group", parent=order.traceparent, task_id=task.task_id
    ) as traceparent:
        return [
            _expected(task, traceparent),
            *(
                _request(task, sample, max_attempts, traceparent, signer)
                for sample in range(task.group_size)
            ),
        ]


def task_record(task: Task, traceparent: str | None = None) -> OutgoingRecord:
    """The record of a task that is published again."""
    return OutgoingRecord(
        topic=TASKS.name,
        key=task.task_id,
        value=codec.encode(task),
        headers=codec.headers(
            task,
            source=SOURCE,
            subject=task.task_id,
            event_id=task.task_id,
            traceparent=traceparent,
        ),
    )


def _expected(task: Task, traceparent: str | None) -> OutgoingRecord:
    expected = GroupOpened(
        task_id=task.task_id,
        agent=task.agent,
        group_size=task.group_size,
        group_s=task.timeouts.group_s,
        purpose=task.purpose,
        item=task.item,
    )
    return OutgoingRecord(
        topic=EPISODES.name,
        key=task.task_id,
        value=codec.encode(expected),
        headers=codec.headers(
            expected,
            source=SOURCE,
            subject=task.task_id,
            event_id=f"{task.task_id}/group_opened",
            traceparent=traceparent,
        ),
    )


def _request(
    task: Task,
    sample: int,
    max_attempts: int,
    traceparent: str | None,
    signer: RequestSigner | None,
) -> OutgoingRecord:
    """The request for one sample; its message id is the same when it is sent again."""
    message = ids.message_id(task.task_id, sample)
    value = send_value(
        message,
        task.input,
        SampleAddress(
            task_id=task.task_id,
            sample=sample,
            group_size=task.group_size,
            max_attempts=max_attempts,
            purpose=task.purpose,
            item=task.item,
            rewards=task.rewards,
            failure_reward=task.failure_reward or 0.0,
            timeouts=task.timeouts,
            sampling=task.sampling,
            model=task.model,
            children=task.children,
        ),
        context_id=task.task_id,
    )
    headers = send_headers(deadline=time.time() + task.timeouts.group_s, traceparent=traceparent)
    if signer is not None:
        headers = signer.signed(task.agent, key=message, value=value, headers=headers)
    return OutgoingRecord(
        topic=agent_topic(A2A_REQUESTS, task.agent), key=message, value=value, headers=headers
    )
