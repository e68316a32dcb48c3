"""What the proxy keeps of an episode's replies is bounded in number and in bytes."""

import json
from unittest.mock import patch

from msgspec import Raw

from odradek.proxy.calls import retries
from odradek.proxy.calls.retries import MAX_ORPHANS
from odradek.proxy.dialects import replies as memory
from odradek.proxy.dialects.chat import CHAT
from odradek.proxy.dialects.dialect import RequestRules
from odradek.proxy.dialects.replies import ReplyStore
from odradek.proxy.episodes.draft import AgentReply, RecordedReply
from odradek.proxy.episodes.episode import LiveEpisode
from odradek.proxy.episodes.history import Leaf
from odradek.proxy.episodes.registry import EpisodeRegistry
from odradek.proxy.log import compose
from odradek.proxy.wire.reply import CapturedReply
from odradek.schemas.events import Completion


def said(place, size=1000):
    return Raw(json.dumps({"role": "user", "content": f"{place}-".ljust(size, "x")}).encode())


def held(kept, names):
    """Bytes of all messages that any of these replies holds, each once; brute force."""
    found = {id(one): len(one) for name in names for one in kept.chain(name) or ()}
    return sum(found.values())


def test_the_newest_replies_are_kept_within_their_number():
    """Of 100 replies the last 64 can be gone on from."""
    kept = ReplyStore()
    for n in range(100):
        kept.keep(f"r{n}", (said(n),))
    assert list(range(100 - memory.MAX_REPLIES, 100)) == [
        n for n in range(100) if kept.chain(f"r{n}") is not None
    ]


def test_a_long_conversation_is_bounded_though_its_first_replies_are_forgotten():
    """A later reply still holds the messages of those, so they count until none does."""
    kept, chain = ReplyStore(), ()
    with patch.object(memory, "MAX_BYTES", 50_000):
        for n in range(200):
            chain = (*chain, said(n))
            kept.keep(f"r{n}", chain)
            assert 50_000 >= held(kept, [f"r{m}" for m in range(n + 1)])
        assert kept.chain("r199") is None
        kept.keep("other", (said(0),))
        assert 1 == len(kept.chain("other"))


def test_a_shared_history_counts_once():
    """Twenty branches of one long conversation cost what it costs, and a little more."""
    history, kept = tuple(said(n) for n in range(30)), ReplyStore()
    with patch.object(memory, "MAX_BYTES", 80_000):
        for n in range(20):
            kept.keep(f"r{n}", (*history, said(n)))
        assert all(kept.chain(f"r{n}") for n in range(20))


def test_the_spelling_of_arguments_is_bounded_in_bytes():
    """The oldest go first; what is forgotten is spelt anew."""
    kept = ReplyStore()

    def call(n):
        function = {"name": "f", "arguments": json.dumps({"n": n, "text": "x" * 1000})}
        called = {"role": "assistant", "tool_calls": [{"id": f"c{n}", "function": function}]}
        return Raw(json.dumps(called).encode())

    with patch.object(memory, "MAX_BYTES", 50_000):
        for n in range(100):
            kept.learn(call(n))
    spelt = [kept.arguments(f"c{n}", {"n": n, "text": "x" * 1000}) for n in range(100)]
    known = [n for n, text in enumerate(spelt) if '": ' in text]
    assert list(range(known[0], 100)) == known
    assert 15 <= len(known) <= 25


def result(n, size):
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * size}]})
    request = CHAT.parse(body.encode(), RequestRules())
    draft = compose.draft(request, CapturedReply(completion=Completion(ids=bytes(4))))
    draft.turn_id = f"t{n}"
    return RecordedReply(
        drafts=(draft,), answer=AgentReply(status=200, headers={}, chunks=(b"ok",))
    )


def test_a_kept_reply_weighs_what_its_request_holds():
    """A long request with a short answer is no small thing to keep."""
    story = LiveEpisode("e1", 0.0)
    with patch.object(retries, "MAX_BYTES", 50_000):
        for n in range(MAX_ORPHANS):
            retries.keep(story, result(n, 10_000))
    assert 2 >= len(story.orphans)
    assert MAX_ORPHANS == len(story.orphans) + len(story.unseen)


def test_of_small_replies_so_many_are_kept():
    """The oldest go first; a reply that ended with an error is none to hand out."""
    story = LiveEpisode("e1", 0.0)
    for n in range(3 * MAX_ORPHANS):
        retries.keep(story, result(n, n + 1))
    assert MAX_ORPHANS == len(story.orphans)
    assert 2 * MAX_ORPHANS == len(story.unseen)
    oldest, broken = result(2 * MAX_ORPHANS, 2 * MAX_ORPHANS + 1), result(0, 1)
    assert oldest.drafts[0].turn_id == retries.take(story, oldest.digest).drafts[0].turn_id
    broken.drafts[0].captured.error = "the stream ended"
    retries.keep(story, broken)
    assert retries.take(story, broken.digest) is None


def used(stories, name, now, *, history=1000, replies=1000):
    """An episode that was used at a time, with so many bytes of either kind."""
    story = stories.of(name)
    story.used_at = now
    leaf = Leaf(turn_id=name, messages=[], reply=Raw(b"null"), ids=b"", size=history)
    story.branches.add(leaf)
    if replies:
        story.memory.keep(name, (said(0, replies),))
    return story


def test_all_episodes_together_are_bounded_and_those_used_last_keep_their_histories():
    """A history is only worth bytes on the log, so it goes before any reply does."""
    stories = EpisodeRegistry(lambda: 0.0, idle_s=10, keep_s=100, max_bytes=150_000)
    for n in range(100):
        used(stories, f"e{n}", float(n * 7 % 100))
    stories.sweep()
    kept = sorted(story.used_at for story in stories if len(story.branches))
    assert list(range(100 - len(kept), 100)) == kept
    assert 0 < len(kept) < 40
    assert 150_000 >= sum(story.size for story in stories)
    assert all(story.memory.chain(story.episode_id) for story in stories)


def test_where_histories_are_not_enough_the_oldest_replies_go():
    """Of an episode that loses them nothing is left but its numbering."""
    stories = EpisodeRegistry(lambda: 0.0, idle_s=10, keep_s=100, max_bytes=20_000)
    for n in range(100):
        used(stories, f"e{n}", float(n)).next_seq = n
    stories.sweep()
    kept = [n for n in range(100) if stories.of(f"e{n}").memory.chain(f"e{n}")]
    assert list(range(100 - len(kept), 100)) == kept
    assert kept
    assert 20_000 >= sum(story.size for story in stories)
    assert list(range(100)) == [stories.of(f"e{n}").next_seq for n in range(100)]


def test_a_reply_that_goes_for_want_of_memory_is_superseded_by_the_retry():
    """Its turn counts in the log, although no client got it."""
    stories = EpisodeRegistry(lambda: 0.0, idle_s=10, keep_s=100, max_bytes=5_000)
    story = stories.of("e1")
    kept = result(7, 10_000)
    retries.keep(story, kept)
    stories.sweep()
    assert retries.take(story, kept.digest) is None
    assert ("t7",) == retries.superseded(story, kept.digest)
