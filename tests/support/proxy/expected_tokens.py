"""What the log of an episode holds, against what the stub engine must have given, token by token."""

from odradek.schemas.arrays import unpack_ids
from odradek.schemas.events import Episode, parsed
from odradek.streams.stages.assembler import ASSEMBLE
from odradek.streams.stages.continuity import Continuity
from tests.support.engines.stub_engine import END, said_ids
from tests.support.schemas.event_builders import opened, reward, sealed, tell


def held(bench, episode="e1"):
    """The episode as the assembler makes it of the log, once each turn was held against its call.

    Calls of sub-agents interleave, so each turn takes the call with its prompt; none is left over.
    """
    turns = bench.turns(episode)
    continuity, asked = Continuity(), [bench.engine.prompt(call) for call in bench.engine.calls]
    for turn in turns:
        assert not (turn.error or turn.untrainable or turn.disconnected), turn
        assert "engine" == turn.versions_from
        continuity.add(turn)
        prompt = unpack_ids(continuity._prompt(turn)).tolist()
        assert prompt in asked
        asked.remove(prompt)
        assert [*said_ids(parsed(turn.reply.message)), END] == unpack_ids(
            turn.completion.ids
        ).tolist()
    assert [] == asked
    story = [opened(episode, rewards={}), *turns, reward(episode, component="reward")]
    story.append(sealed(episode, len(turns), turns[0].writer))
    out, letters = tell(ASSEMBLE, story)
    assert [] == letters
    (made,) = [event for event in out if isinstance(event, Episode)]
    check_sampled(made, turns)
    return made


def check_sampled(episode, turns):
    """Each turn's tokens stand in one span of one sequence, with their log probabilities."""
    sampled = {turn.turn_id: turn.completion for turn in turns}
    for sequence in episode.sequences:
        ids, logprobs = unpack_ids(sequence.ids).tolist(), b""
        for turn_id, span in zip(sequence.turn_ids, sequence.spans, strict=True):
            completion = sampled.pop(turn_id)
            assert unpack_ids(completion.ids).tolist() == ids[span.start : span.end]
            logprobs += completion.logprobs
        assert logprobs == sequence.logprobs
    assert {} == sampled
    assert {} == episode.untrained_turns
