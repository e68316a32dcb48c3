"""The events of a recording: an Episode, and the Conversation that holds its words. Pure.

Ids follow from what was recorded. So a record that is imported again, from this file or another
one, makes the same ids, and the log has it already.
"""

import hashlib
import uuid
from collections import Counter
from typing import Any, Final

import msgspec
from msgspec import Struct

from odradek.infra.app.imports.recording import RecordedTurn, Recording
from odradek.infra.bus import OutgoingRecord
from odradek.infra.errors import BadRecording
from odradek.schemas import codec
from odradek.schemas.arrays import count
from odradek.schemas.errors import InvalidRecord
from odradek.schemas.events import (
    Completion,
    Conversation,
    ConversationTurn,
    Episode,
    Prompt,
    Purpose,
    Reply,
    Request,
    Turn,
    Usage,
    raw,
)
from odradek.schemas.ids import NAMESPACE
from odradek.schemas.topics import CONVERSATIONS, EPISODES, Topic
from odradek.streams.stages.continuity import Continuity

AGENT: Final = "imported"
"""The agent of a recording that names none."""
UNTRAINABLE: Final = "no_logprobs"
"""Why a turn without token ids, or without log probabilities, is not trained on."""
SOURCE: Final = "/import"


class EpisodeName(Struct, frozen=True):
    """What an episode is called."""

    episode_id: str
    task_id: str
    sample: int = 0


class EpisodeNames:
    """Names recordings in the order of their files.

    Equal records of one file are different samples, so each has a number of its own. Those of two
    files are the same samples, told twice.
    """

    def __init__(self) -> None:
        self._equal: Counter[bytes] = Counter()
        self._samples: Counter[str] = Counter()

    def begin_file(self) -> None:
        """Take the next recordings as those of another file."""
        self._equal.clear()

    def name(self, recording: Recording) -> EpisodeName:
        """The name of the next recording."""
        episode_id = recording.episode_id
        if not episode_id:
            digest = _digest(recording)
            number = self._equal[digest]
            self._equal[digest] += 1
            episode_id = str(uuid.uuid5(NAMESPACE, f"import/{digest.hex()}/{number}"))
        task_id = recording.task_id or str(
            uuid.uuid5(NAMESPACE, f"import-task/{_asked(recording)}")
        )
        sample = self._samples[task_id]
        self._samples[task_id] += 1
        return EpisodeName(episode_id, task_id, sample)


def _digest(value: Any) -> bytes:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).digest()


def _asked(recording: Recording) -> str:
    """A digest of what was asked for: records that share it are samples of one task."""
    first = recording.turns[0].messages if recording.turns else ()
    return _digest((recording.item, recording.agent, recording.input, first)).hex()


def events_of(
    recording: Recording,
    name: EpisodeName,
    format_: str,
    *,
    agent: str = "",
    purpose: Purpose = "train",
) -> tuple[Episode, Conversation | None]:
    """An episode, and its words where the format has some.

    Args:
        recording: What was recorded.
        name: What it is called.
        format_: The format's name, which marks the episode as imported.
        agent: In place of the recording's own.
        purpose: Of its task.
    """
    agent = agent or recording.agent or AGENT
    if recording.episode is not None:
        return (
            msgspec.structs.replace(
                recording.episode, agent=agent, purpose=purpose, imported_from=format_
            ),
            None,
        )
    continuity = Continuity()
    for number, turn in enumerate(recording.turns):
        if turn.reply is not None:
            continuity.add(_captured(turn, name, number))
    tokens = [turn.tokens for turn in recording.turns if turn.tokens is not None]
    episode = Episode(
        episode_id=name.episode_id,
        task_id=name.task_id,
        agent=agent,
        sample=name.sample,
        group_size=0,
        purpose=purpose,
        item=recording.item,
        outcome=recording.outcome,
        error=recording.error,
        reward=recording.reward,
        components=recording.components,
        n_turns=sum(turn.reply is not None for turn in recording.turns),
        opened_at=recording.opened_at,
        closed_at=recording.closed_at,
        imported_from=format_,
        sequences=continuity.sequences(),
        breaks=tuple(continuity.breaks),
        untrained_turns=continuity.untrained_turns,
        usage=Usage(
            prompt_tokens=sum(count(each.prompt) for each in tokens),
            completion_tokens=sum(count(each.sampled) for each in tokens),
        ),
    )
    conversation = Conversation(
        episode_id=name.episode_id,
        task_id=name.task_id,
        agent=agent,
        sample=name.sample,
        purpose=purpose,
        item=recording.item,
        input=recording.input,
        outcome=recording.outcome,
        error=recording.error,
        turns=tuple(_in_words(turn, name, at) for at, turn in enumerate(recording.turns)),
    )
    return episode, conversation


def _turn_id(name: EpisodeName, number: int) -> str:
    return f"{name.episode_id}/{number}" if number >= 0 else ""


def _captured(turn: RecordedTurn, name: EpisodeName, number: int) -> Turn:
    """A turn as a proxy would have captured it; nobody says which version sampled it."""
    tokens = turn.tokens
    return Turn(
        episode_id=name.episode_id,
        turn_id=_turn_id(name, number),
        writer=SOURCE,
        seq=number,
        request=Request(
            base=_turn_id(name, turn.base),
            prefix_len=turn.prefix_len,
            messages=tuple(map(raw, turn.messages)),
        ),
        reply=Reply(message=raw(turn.reply), finish_reason=turn.finish_reason),
        prompt=Prompt(ids=tokens.prompt if tokens else b""),
        completion=Completion(
            ids=tokens.sampled if tokens else b"", logprobs=tokens.logprobs if tokens else b""
        ),
        untrainable="" if tokens else UNTRAINABLE,
    )


def _in_words(turn: RecordedTurn, name: EpisodeName, number: int) -> ConversationTurn:
    return ConversationTurn(
        turn_id=_turn_id(name, number),
        base=_turn_id(name, turn.base),
        prefix_len=turn.prefix_len,
        messages=list(turn.messages),
        tools=turn.tools,
        reply=turn.reply,
        finish_reason=turn.finish_reason,
    )


class ImportedEpisode(Struct, frozen=True):
    """The records of one episode, for one transaction."""

    episode_id: str
    trainable: bool
    """Whether all its replies have tokens and log probabilities."""
    records: tuple[OutgoingRecord, ...]

    @property
    def size(self) -> int:
        """Bytes of its records."""
        return sum(len(record.value or b"") for record in self.records)


def imported(recording: Recording, name: EpisodeName, format_: str, **more: Any) -> ImportedEpisode:
    """The records of a recording; see `events_of`.

    Raises BadRecording where the topics' readers would not take them.
    """
    try:
        episode, conversation = events_of(recording, name, format_, **more)
        records = [_record(EPISODES, episode.task_id, episode)]
        if conversation is not None:
            records.append(_record(CONVERSATIONS, episode.episode_id, conversation))
    except InvalidRecord as error:
        raise BadRecording(str(error)) from None
    whole = bool(episode.sequences) and not episode.untrained_turns
    return ImportedEpisode(episode.episode_id, whole, tuple(records))


def _record(topic: Topic, key: str, event: Episode | Conversation) -> OutgoingRecord:
    """An event as a record. Raises InvalidRecord where the topic's readers would not take it."""
    value = codec.encode(event)
    codec.decode(value, type(event), max_bytes=topic.max_bytes)
    headers = codec.headers(
        event, source=SOURCE, subject=key, event_id=f"{event.episode_id}/{topic.name}"
    )
    return OutgoingRecord(topic=topic.name, key=key, value=value, headers=headers)
