"""A turn whose prompt or history is more than text is recorded, and not trained on."""

import json

import pytest
from msgspec import Raw

from odradek.proxy.wire import media
from odradek.schemas.events import parsed
from odradek.streams.stages.continuity import Continuity

URL = "data:image/png;base64,AAAA"
TEXT = {"type": "text", "text": "look"}
PARTS = {
    "image_url": {"type": "image_url", "image_url": {"url": URL}},
    "image_url without a type": {"image_url": URL},
    "image": {"type": "image", "image": URL},
    "image of Anthropic's": {"type": "image", "source": {"type": "base64", "data": "AAAA"}},
    "input_image": {"type": "input_image", "image_url": URL},
    "input_audio": {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    "audio_url": {"type": "audio_url", "audio_url": {"url": URL}},
    "video_url": {"type": "video_url", "video_url": {"url": URL}},
    "video": {"type": "video", "video": [URL]},
    "file": {"type": "file", "file": {"file_data": URL}},
    "input_file": {"type": "input_file", "file_id": "f1"},
    "a document of bytes": {"type": "document", "source": {"type": "base64", "data": "AAAA"}},
    "a document elsewhere": {"type": "document", "source": {"type": "url", "url": "https://x.test"}},
    "something new": {"type": "hologram", "hologram": URL},
    "something nameless": {"hologram": URL},
    "something odd": {"type": ["text"], "text": "x"},
    "a source of something odd": {"type": "text", "text": "x", "source": {"type": ["url"]}},
    "a result with a picture": {"type": "tool_result", "content": [{"type": "image", "source": {}}]},
    "a text with a picture": {"type": "text", "text": "x", "image_url": URL},
    "a text with pictures": {"type": "text", "text": "x", "image_urls": [URL]},
    "a text with a picture in camel case": {"type": "text", "text": "x", "imageUrl": URL},
    "a text with media": {"type": "text", "text": "x", "media": [{"url": URL}]},
    "a text with pixels": {"type": "text", "text": "x", "pixel_values": [[0.1]]},
    "a text with a picture further in": {"type": "text", "text": "x", "meta": {"a": [{"images": [URL]}]}},
    "Google's bytes": {"text": "x", "inlineData": {"mimeType": "image/png", "data": "AAAA"}},
    "a result with media": {"type": "tool_result", "content": [{**TEXT, "_meta": {"media": URL}}]},
}  # fmt: skip
TEXTS = [
    TEXT, {"text": "look"}, "look", {"type": "input_text", "text": "x"}, {"type": "refusal", "refusal": "no"},
    {"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": URL},
    {"type": "document", "source": {"type": "text", "data": "x"}},
    {"type": "tool_result", "content": [TEXT]}, {"type": "tool_result", "content": "image_url"},
    {"type": "text", "text": "x", "image_url": None}, {"type": "reasoning", "summary": []},
    {"type": "text", "text": "x", "annotations": [{"type": "url_citation", "url": "u"}]},
    {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}},
    {"type": "text", "text": "x", "meta": {"images": [], "media": None}},
    {"type": "text", "text": json.dumps({"image_urls": ["u"]})},
    {"type": "tool_use", "id": "t", "name": "draw", "input": {"image": "a.png", "images": ["b"]}},
]  # fmt: skip


def raw(message):
    return Raw(json.dumps(message).encode())


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("role", ["user", "tool", "assistant", "system"])
def test_any_part_that_is_not_text_is_media(name, role):
    """Alone, among texts, in place of a list, and spelt with escapes."""
    part = PARTS[name]
    for content in ([part], [TEXT, part], [part, TEXT], part, [[part]]):
        assert media.holds(raw({"role": role, "content": content}))
    escaped = json.dumps({"role": role, "content": [part]}).replace("t", "\\u0074")
    escaped = escaped.replace("con\\u0074en\\u0074", "content")
    assert media.holds(Raw(escaped.encode()))


@pytest.mark.parametrize("part", TEXTS, ids=str)
def test_text_is_not_media(part):
    """Whatever it talks about."""
    for content in ([part], [TEXT, part], [], None, "", "image_url", json.dumps(part)):
        assert not media.holds(raw({"role": "user", "content": content}))
    assert not media.holds(raw({"role": "assistant", "tool_calls": [{"function": {"image": URL}}]}))
    assert not media.holds(raw({"role": "assistant", "content": None, "audio": None, "images": []}))


NAMES = [
    "audio", "audios", "attachments", "files", "image", "images", "image_data", "image_urls",
    "imageUrl", "imageUrls", "image_embeds", "inline_data", "inlineData", "input_features",
    "media", "media_urls", "mediaUrls", "multi_modal_data", "multimodal", "mm_data",
    "pixel_values", "pixel_values_videos", "video", "videos", "video_urls", "audio_urls",
    "fileUrl", "file_urls", "file_ids", "fileData", "experimental_attachments",
]  # fmt: skip
TAIL = ',"images":["x"]}'


@pytest.mark.parametrize(
    "text",
    [
        '{"role":"user","content":"a"}',
        '{"role": "user", "content": "a" }',
        '{"role":"user","content":"a","image_url":"u"}',
        '{"role":"user","content":"a\\"}"' + TAIL,
        '{"role":"user","content":"a\\\\"' + TAIL,
        '{"role":"user\\",\\"content\\":\\"","content":"a"' + TAIL,
        '{"role":"user","content":""' + TAIL,
        '{"role":"user","content":["image"]' + TAIL,
        '{"role":"user","content":[{"type":"image","image":"u"}]}',
        '{"role":"user","content":{"type":"image","image":"u"}}',
        '{"role":"content","image":"content"}',
        '{"role":["u"],"content":"a"' + TAIL,
        '{"role":"' + "u" * 60 + '","content":"a"' + TAIL,
        '{"role":"user","content":"' + "a" * 90 + '"' + TAIL,
        '{"role":"user","content":"' + "a" * 90 + '"}',
        '{"role":"user","content":"a"}' + " " * 70,
    ],
)
def test_a_message_that_looks_plain_is_one(text):
    """What is told from a message's first bytes and its last is what its fields tell."""
    fields = json.loads(text)
    content = fields.get("content")
    expected = not isinstance(content, str | None) and content != ["image"]
    assert (expected or bool(fields.keys() & media.FIELDS)) == media.holds(Raw(text.encode()))


@pytest.mark.parametrize("field", NAMES)
def test_media_beside_the_content_are_media(field):
    """Ollama's pictures, a model's own voice."""
    assert media.holds(raw({"role": "user", "content": "look", field: [URL]}))
    assert media.holds(raw({"role": "assistant", "content": None, field: {"id": "a1"}}))


@pytest.mark.parametrize("message", [None, 3, "x", [], [1]])
def test_what_is_no_message_holds_none(message):
    """Whatever an engine or a client has put in its place."""
    assert not media.holds(raw(message))


CHAT = {"type": "image_url", "image_url": {"url": URL}}
BLOCK = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
ITEM = {"type": "input_image", "image_url": URL}
BLOB = {"mimeType": "image/png", "data": "AAAA"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SEEN = {
    "/chat/completions": [
        {"messages": [{"role": "user", "content": [TEXT, CHAT]}]},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [CHAT]},
                      {"role": "assistant", "content": "a cat"}, {"role": "user", "content": "sure?"}]},
        {"messages": [{"role": "user", "content": "go"},
                      {"role": "assistant", "content": None, "tool_calls": [CALL]},
                      {"role": "tool", "tool_call_id": "c1", "content": [CHAT]}]},
    ],
    "/messages": [
        {"messages": [{"role": "user", "content": [BLOCK, TEXT]}]},
        {"messages": [{"role": "user", "content": [BLOCK]}, {"role": "assistant", "content": "a cat"},
                      {"role": "user", "content": "sure?"}]},
        {"messages": [{"role": "user", "content": "go"},
                      {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "f", "input": {}}]},
                      {"role": "user", "content": [
                          {"type": "tool_result", "tool_use_id": "c1", "content": [TEXT, BLOCK]}]}]},
    ],
    "/responses": [
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}, ITEM]}]},
        {"input": [{"role": "user", "content": [ITEM]}, {"role": "assistant", "content": "a cat"},
                   {"role": "user", "content": "sure?"}]},
        {"input": [{"role": "user", "content": "go"},
                   {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
                   {"type": "function_call_output", "call_id": "c1", "output": [ITEM]}]},
        {"input": [{"role": "user", "content": "go"},
                   {"type": "custom_tool_call", "call_id": "c1", "name": "f", "input": "x"},
                   {"type": "custom_tool_call_output", "call_id": "c1", "output": [ITEM]}]},
    ],
    "/models/m:generateContent": [
        {"contents": [{"parts": [{"text": "look"}, {"inlineData": BLOB}]}]},
        {"contents": [{"parts": [{"inline_data": BLOB}]}, {"role": "model", "parts": ["a cat"]},
                      {"parts": [{"text": "sure?"}]}]},
        {"contents": [{"parts": [{"fileData": {"fileUri": "https://x.test/a.png"}}]}]},
        {"contents": [{"parts": [{"text": "go"}]},
                      {"role": "model", "parts": [{"functionCall": {"name": "f"}}]},
                      {"parts": [{"functionResponse": {"name": "f", "parts": [{"inlineData": BLOB}]}}]}]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body"), [(path, body) for path in SEEN for body in SEEN[path]])
async def test_a_turn_that_has_seen_a_picture_is_not_trained_on(bench, path, body, stream):
    """In its prompt, its history or the result of a tool; the assembler leaves it out by that name."""
    asked = {"model": "m", "max_tokens": 9, "stream": stream, **body}
    if path == "/responses":
        del asked["max_tokens"]
    status, _, answer = await bench.post(f"/e/e1/v1{path}", asked, token=bench.token())
    assert 200 == status, answer
    (turn,) = bench.turns()
    assert ("", "media") == (turn.error, turn.untrainable)
    assert turn.completion.logprobs
    assert parsed(turn.reply.message)["content"]
    continuity = Continuity()
    continuity.add(turn)
    assert ({turn.turn_id: "media"}, []) == (continuity.untrained_turns, continuity.runs)


async def say(bench, messages, **more):
    body = {"model": "m", "messages": messages, **more}
    _, _, answer = await bench.post("/e/e1/v1/chat/completions", body, token=bench.token())
    return [*messages, json.loads(answer)["choices"][0]["message"]]


def why(bench):
    return [turn.untrainable for turn in bench.turns()]


async def test_what_goes_on_from_a_picture_has_seen_it(bench):
    """However far; a branch from before it, or a history that has lost it, has not."""
    before = await say(bench, [{"role": "user", "content": "hi"}])
    seen = await say(bench, [*before, {"role": "user", "content": [CHAT]}])
    longer = await say(bench, [*seen, {"role": "user", "content": "and?"}])
    await say(bench, [*longer, {"role": "user", "content": "and?"}])
    await say(bench, [*before, {"role": "user", "content": "something else"}])
    told = [{"role": "user", "content": "[a picture was here]"}, *longer[4:]]
    await say(bench, [*before, *told, {"role": "user", "content": "go on"}])
    assert ["", "media", "media", "media", "", ""] == why(bench)
    assert bench.turns()[2].request.base == bench.turns()[1].turn_id
    continuity = Continuity()
    for turn in bench.turns():
        continuity.add(turn)
    assert ["media"] * 3 == list(continuity.untrained_turns.values())


async def test_a_chain_of_responses_has_seen_what_its_first_one_saw(bench):
    """The request itself holds text only."""
    token, path = bench.token(), "/e/e1/v1/responses"
    body = {"model": "m", "input": [{"role": "user", "content": [ITEM]}]}
    for _ in range(3):
        _, _, answer = await bench.post(path, body, token=token)
        body = {"model": "m", "input": "and?", "previous_response_id": json.loads(answer)["id"]}
    assert ["media"] * 3 == why(bench)


async def test_a_history_whose_turns_are_forgotten_is_looked_through_again(bench):
    """As by another replica, or after an idle time."""
    seen = await say(bench, [{"role": "user", "content": [CHAT]}])
    for story in bench.proxy.episodes:
        story.forget()
    await say(bench, [*seen, {"role": "user", "content": "and?"}])
    assert ["media", "media"] == why(bench)


async def test_carried_ids_do_not_hide_a_picture(make):
    """With `continuation=bridge`, too."""
    async with make(continuation="bridge") as bench:
        seen = await say(bench, [{"role": "user", "content": [CHAT]}])
        await say(bench, [*seen, {"role": "user", "content": "and?"}])
        assert ["media", "media"] == why(bench)
        assert "media" == bench.turns()[1].continuation.reason


async def test_a_reply_that_is_more_than_text_is_media_and_so_is_what_follows(bench, engine):
    """A voice, a drawing: their tokens are no text either."""
    engine.script = [{"content": "here", "images": [{"image_url": {"url": URL}}]}]
    seen = await say(bench, [{"role": "user", "content": "draw"}])
    engine.script = []
    await say(bench, [*seen, {"role": "user", "content": "and?"}])
    assert ["media", "media"] == why(bench)


@pytest.mark.parametrize("field", ["images", "image_data", "multi_modal_data"])
@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
async def test_media_beside_the_messages_are_media(bench, path, field):
    """Fields that some engines take."""
    words = {"messages": [{"role": "user", "content": "x"}]} if "chat" in path else {"prompt": "x"}
    for value in ([URL], None, []):
        body = {"model": "m", **words, field: value}
        await bench.post(f"/e/e1/v1{path}", body, token=bench.token())
    assert ["media", "", ""] == why(bench)


@pytest.mark.parametrize(
    "field", ["image_urls", "media", "pixel_values", "imageUrls", "inlineData"]
)
@pytest.mark.parametrize("within", ["", "extra_body", "options", "parameters", "documents"])
def test_media_are_found_at_any_place_of_a_request(field, within):
    """Beside the messages, and in the fields that hold others."""
    for value, expected in (([URL], True), ([], False), (None, False)):
        said = {within: {"a": [{field: value}]}} if within else {field: value}
        fields = {name: Raw(json.dumps(inner).encode()) for name, inner in said.items()}
        assert expected == media.requested(fields)


@pytest.mark.parametrize("name", ["additional_kwargs", "metadata", "extra"])
def test_media_are_found_within_a_messages_own_fields(name):
    """Frameworks keep pictures there; a call's arguments are no media whatever they are called."""
    seen = {"role": "user", "content": "x", name: {"a": [{"image_urls": [URL]}]}}
    assert media.holds(raw(seen))
    assert not media.holds(raw({**seen, name: {"a": [{"image_urls": []}], "b": "image_urls"}}))
    call = {"function": {"name": "draw", "arguments": {"images": [URL]}}}
    assert not media.holds(raw({"role": "assistant", "content": None, "tool_calls": [call]}))
    assert not media.holds(raw({"role": "assistant", "content": None, name: [call]}))


@pytest.mark.parametrize("content", [b"[1e400]", b'{"type": "text", "text": "x", "n": -1e400}'])
def test_what_no_parser_takes_is_not_known_to_be_text(content):
    """A number without end is JSON, and no turn of ours ends in an exception for it."""
    assert media.holds(Raw(b'{"role": "user", "content": ' + content + b"}"))
    assert media.holds(Raw(b'{"role": "user", "content": "x", "images": ' + content + b"}"))
