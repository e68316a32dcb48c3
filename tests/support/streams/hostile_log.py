"""A log whose every text is somebody's: prompts, names, ids, errors, tools, metrics, headers."""

import json

from msgspec import Raw

from odradek.infra.bus import Record
from odradek.schemas import codec
from odradek.schemas.arrays import pack_floats, pack_ids
from odradek.schemas.events import (
    Batch,
    BatchUse,
    Break,
    Completion,
    Episode,
    EpisodeOpened,
    EpisodeSealed,
    Exclusion,
    Pointer,
    Prompt,
    Refusal,
    Reply,
    Request,
    Sequence,
    Span,
    Step,
    Task,
    Turn,
    VersionSpan,
)
from odradek.schemas.ids import partition_for
from odradek.schemas.topics import BATCHES, DLQ, EPISODES, STEPS, TASKS, TURNS, find

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "</pre></td></table><iframe srcdoc='<script>alert(1)</script>'>",
    "<svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}{# x #}",
    "]]><!--<style>*{display:none}</style>",
    "&lt;b&gt;&#0;&quot;",
    "\u202e\u2066moc.elgoog\u2069\x00\x1b[31m\x7f\ufeff",
    "../../..?name=x&raw=1#x%00%0d%0aSet-Cookie:a=b",
    "data:text/html;base64,PHNjcmlwdD4=",
    "=cmd|' /C calc'!A0",
)
"""What texts on a log may look like."""


def hostile_log(text: str) -> tuple[list[Record], dict[str, str]]:
    """Records of one group and one step, and by page the name of what each shows.

    Args:
        text: Stands wherever a text can.
    """
    task, episode, left, turn = (f"{kind}{text}" for kind in "telu")
    ids, sampled = pack_ids([1, 2, 3, 4]), pack_floats([-0.5, -1.0])
    message = Raw(
        json.dumps(
            {"role": text, "content": text, "tool_calls": [{"function": {"name": text}}]}
        ).encode()
    )
    made = Episode(
        episode_id=episode, task_id=task, agent=text, sample=0, group_size=2, item=text,
        error=text, reward=1.0, components={text: 1.0}, weights={text: 1.0}, n_turns=1,
        opened_at=1.0, closed_at=2.0, breaks=(Break(turn_id=turn, reason="branch"),),
        untrained_turns={turn: text},
        sequences=(
            Sequence(
                ids=ids, spans=(Span(1, 3, 1.0, text, False),), logprobs=sampled,
                versions=(VersionSpan(1, 1, 3),), turn_ids=(turn,),
            ),
        ),
    )  # fmt: skip
    pointer = Pointer(
        episode_id=episode, sample=0, topic=EPISODES.name, partition=_home(EPISODES, task),
        offset=0, digest=codec.digest(codec.encode(made)), reward=1.0,
    )  # fmt: skip
    batch = Batch(
        task_id=task, agent=text, item=text, group_size=2, episodes=(pointer,),
        exclusions=(Exclusion(sample=1, reason=text, episode_id=left),), empty_reason=text,
    )  # fmt: skip
    entries = [
        Step(run=text, incarnation=1, step=0, position=0, optimized=False, policy=text,
             settings={"model": text, text: text}),
        Step(run=text, incarnation=1, step=1, position=1, version=2, policy=text,
             used=(BatchUse(offset=0, rows=1, digest=batch.digest()),), weights=text,
             refused=(Refusal(offset=0, reason=text, episode_id=left),),
             checkpoint=text, metrics={text: 1.0, "loss": 0.5}),
    ]  # fmt: skip
    calls = [
        EpisodeOpened(episode_id=episode, task_id=task, agent=text, sample=0, group_size=2),
        Turn(
            episode_id=episode, turn_id=turn, writer=text, seq=0, agent=text, model=text,
            error=text, request=Request(messages=(message,), tools=(message,), sampling={text: text}),
            reply=Reply(message=message, finish_reason=text), prompt=Prompt(base=text, ids=ids),
            completion=Completion(ids=pack_ids([2, 3]), logprobs=sampled),
            versions=(VersionSpan(1, 0, 2),),
        ),
        EpisodeSealed(episode_id=episode, n_turns=1, error=text),
    ]  # fmt: skip
    asked = Task(
        task_id=task,
        agent="hilo",
        item=text,
        group_size=2,
        input=Raw(json.dumps({text: text}).encode()),
    )
    records = [
        _record(TASKS, task, 0, asked),
        _record(EPISODES, task, 0, made),
        _record(BATCHES, task, 0, batch),
        *(_record(TURNS, episode, n, event) for n, event in enumerate(calls)),
        *(_record(STEPS, text, n, entry) for n, entry in enumerate(entries)),
        Record(
            topic=DLQ.name, partition=0, offset=0, key=text, value=text.encode(), timestamp=1.0,
            headers=(("dlq-reason", text.encode()), ("dlq-detail", text.encode()), ("dlq-topic", b"x")),
        ),
    ]  # fmt: skip
    return records, {
        "step": "1",
        "batch": "0",
        "episode": episode,
        "task": task,
        "turn": turn,
        "row": f"{BATCHES.name}/0/0/0",
        "record": f"{DLQ.name}/0/0",
    }


def _record(topic, key, offset, event) -> Record:
    return Record(
        topic=topic.name, partition=_home(topic, key), offset=offset, key=key,
        value=codec.encode(event), timestamp=float(offset + 1),
        headers=codec.headers(event, source="/test", subject=key, event_id="e"),
    )  # fmt: skip


def _home(topic, key) -> int:
    partitions = min(3, find(topic.name).partitions)
    return partition_for(key, partitions) if partitions > 1 else 0
