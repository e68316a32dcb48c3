"""What engines and gateways really send for a chat completion, made by hand after their sources.

Each shape is a stream, the whole reply of the same engine where that differs in kind, and what both
say: (reasoning, text, [(name, arguments)], finish reason, why it cannot be trained on). A chunk is a
dict, or bytes that stand on the wire as they are.
"""

import json
from dataclasses import dataclass

STOP = {"index": 0, "delta": {}, "finish_reason": "stop"}
CALLED = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}


@dataclass(frozen=True)
class Shape:
    name: str
    chunks: list
    expected: tuple
    whole: dict | None = None

    def wire(self):
        """The stream's bytes."""
        return b"".join(
            chunk if isinstance(chunk, bytes) else event(chunk) for chunk in self.chunks
        )


def event(chunk):
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
HEAD = {"id": "c1", "object": "chat.completion.chunk", "created": 5, "model": "m"}


def chunk(delta=None, finish=None, **more):
    """A chunk of one choice."""
    return {
        **HEAD,
        "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}],
        **more,
    }


def choices(*found, **more):
    return {**HEAD, "choices": list(found), **more}


def call(index=None, id_=None, name=None, arguments=None, **more):
    """A piece of a tool call, without what is None."""
    function = {"name": name, "arguments": arguments}
    function = {key: value for key, value in function.items() if value is not None}
    found = {"index": index, "id": id_, **more}
    found = {key: value for key, value in found.items() if value is not None}
    return {**found, "function": function} if function else found


def calls(*pieces, finish=None, **more):
    return chunk({"tool_calls": list(pieces)}, finish, **more)


def whole(message, finish="stop", **more):
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion", "created": 5, "choices": [choice], **more}


def whole_calls(*found, finish="tool_calls"):
    message = {"role": "assistant", "content": None, "tool_calls": list(found)}
    return whole(message, finish)


ROLE = chunk({"role": "assistant", "content": ""})
END = [chunk(finish="stop"), DONE]
CALL_END = [chunk(finish="tool_calls"), DONE]
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
SO = ("", "so", [], "stop", "no_token_ids")
A, B = '{"x": 1}', '{"y": 2}'
BOTH = ("", "", [("f", A), ("g", B)], "tool_calls", "no_token_ids")
ONE = ("", "", [("look", A)], "tool_calls", "no_token_ids")
BARE = ("", "", [("look", "")], "tool_calls", "no_token_ids")
TWICE = ("", "", [("f", A), ("f", B)], "tool_calls", "no_token_ids")


def text(*chunks):
    return [ROLE, chunk({"content": "s"}), *chunks, chunk({"content": "o"}), *END]


def tokens(ids, values, **more):
    """A choice's ids and log probabilities."""
    content = [None if value == "entry" else {"token": "t", "logprob": value} for value in values]
    return {"index": 0, "token_ids": ids, "logprobs": {"content": content}, **more}


def trained(values):
    """A stream of two tokens with these log probabilities, and the whole reply."""
    first = tokens([7], values[:1], delta={"content": "s"}, finish_reason=None)
    second = tokens([8], values[1:], delta={"content": "o"}, finish_reason="stop")
    stream = [
        {**ROLE, "prompt_token_ids": [1, 2, 3]}, choices(first), choices(second),
        choices(usage=USAGE), DONE,
    ]  # fmt: skip
    message = {"role": "assistant", "content": "so"}
    choice = tokens([7, 8], values, message=message, finish_reason="stop")
    return stream, {"id": "c1", "choices": [choice], "prompt_token_ids": [1, 2, 3], "usage": USAGE}


def with_tokens(name, values, why):
    stream, reply = trained(values)
    return Shape(name, stream, (*SO[:4], why), reply)


SHAPES = [
    Shape("vllm", [ROLE, chunk({"content": "so"}), *END], SO, whole({"role": "assistant", "content": "so"})),
    Shape("vllm: null members", [
        chunk({"role": "assistant", "content": "", "refusal": None, "tool_calls": None,
               "reasoning_content": None, "function_call": None}, usage=None),
        chunk({"role": None, "content": "so", "tool_calls": []}, system_fingerprint=None), *END,
    ], SO, whole({"role": "assistant", "content": "so", "refusal": None, "tool_calls": [],
                  "function_call": None, "audio": None, "reasoning": None}, usage=None)),
    Shape("null delta", text(choices({"index": 0, "delta": None, "finish_reason": None})), SO),
    Shape("no delta", text(choices({"index": 0, "finish_reason": None})), SO),
    Shape("null choices", text({**HEAD, "choices": None}), SO),
    Shape("no choices", text(HEAD, {"usage": USAGE}), SO),
    Shape("empty choices in front", [choices(prompt_filter_results=[]), *text()], SO),
    Shape("null choice", text(choices(None)), SO),
    Shape("a choice that is no list", [ROLE, {**HEAD, "choices": {"delta": {"content": "so"}}}, *END], SO,
          {"id": "c1", "choices": {"message": {"role": "assistant", "content": "so"}, "finish_reason": "stop"}}),
    Shape("null names and numbers", [
        {"id": None, "object": None, "created": None, "model": None, "usage": None, "error": None,
         "choices": [{"index": None, "delta": {"content": "so"}, "logprobs": None,
                      "token_ids": None, "finish_reason": None, "stop_reason": None}]},
        {**HEAD, "id": None, "prompt_token_ids": None, "choices": [STOP | {"weight_versions": None}]}, DONE,
    ], SO, {"id": None, "created": None, "usage": None, "error": None, "prompt_token_ids": None, "choices": [
        {"index": None, "message": {"role": "assistant", "content": "so"}, "logprobs": None,
         "finish_reason": "stop"}]}),
    Shape("null role", [chunk({"role": None, "content": "so"}), *END], SO,
          whole({"role": None, "content": "so"})),
    Shape("floats", [
        {**HEAD, "choices": [{"index": 0.0, "delta": {"content": "so"}, "finish_reason": None}]}, *END,
    ], SO, {"id": "c1", "choices": [{"index": 0.0, "message": {"role": "assistant", "content": "so"},
            "finish_reason": "stop"}], "usage": {"prompt_tokens": 3.0, "completion_tokens": 2.0}}),
    Shape("numbers as text", [
        {**HEAD, "choices": [{"index": "0", "delta": {"content": "so"}, "finish_reason": None}]}, *END,
    ], SO, {"id": 7, "choices": [{"index": "0", "message": {"role": "assistant", "content": "so"},
            "finish_reason": "stop"}], "usage": {"prompt_tokens": "3", "completion_tokens": "2"}}),
    Shape("usage in every chunk", [
        chunk({"content": "s"}, usage=USAGE), chunk({"content": "o"}, usage=USAGE),
        chunk(finish="stop", usage=USAGE), DONE], SO),
    Shape("usage of nulls", [
        *text()[:-1], choices(usage={"prompt_tokens": None, "completion_tokens": None,
                                     "total_tokens": None, "prompt_tokens_details": None}), DONE,
    ], SO, whole({"role": "assistant", "content": "so"},
                 usage={"prompt_tokens": None, "completion_tokens": None})),
    Shape("usage of other things", [*text()[:-1], choices(usage=[]), DONE], SO,
          whole({"role": "assistant", "content": "so"}, usage={
              "prompt_tokens": "many", "completion_tokens": {}, "prompt_tokens_details": 3})),
    Shape("a usage chunk that repeats the choice", [
        *text()[:-1], chunk({"role": "assistant", "content": ""}, usage=USAGE), DONE], SO),
    Shape("last words and reason in one", [ROLE, chunk({"content": "so"}, "stop"), DONE], SO),
    Shape("everything in one", [chunk({"role": "assistant", "content": "so"}, "stop"), DONE], SO),
    Shape("message in place of delta", [
        choices({"index": 0, "message": {"role": "assistant", "content": "so"}, "finish_reason": None}),
        *END], SO, {"id": "c1", "choices": [{"delta": {"content": "so"}, "finish_reason": "stop"}]}),
    Shape("text in place of delta", [
        choices({"index": 0, "text": "s", "finish_reason": None}), choices({"index": 0, "text": "o"}), *END], SO,
        {"id": "c1", "choices": [{"text": "so", "finish_reason": "stop"}]}),
    Shape("content in place of delta", [
        choices({"index": 0, "content": "so", "finish_reason": None}), *END], SO,
        {"id": "c1", "choices": [{"content": "so", "finish_reason": "stop"}]}),
    Shape("text beside a message of null", [
        choices({"index": 0, "delta": None, "text": "so", "finish_reason": None}), *END], SO,
        {"id": "c1", "choices": [{"message": None, "text": "so", "finish_reason": "stop"}]}),
    Shape("reason empty while it goes on", [
        chunk({"role": "assistant", "content": "s"}, ""), chunk({"content": "o"}, ""), *END], SO),
    Shape("reason null in words", [chunk({"content": "so"}, "null"), chunk({}, "None"), *END], SO),
    Shape("reason said twice", [*text()[:-1], chunk(finish="stop"), DONE], SO),
    Shape("tgi", [chunk({"role": "assistant", "content": "so"}), chunk(finish="eos_token"), DONE], SO,
          whole({"role": "assistant", "content": "so"}, "eos_token")),
    Shape("tgi: stop string", [chunk({"content": "so"}), chunk(finish="stop_sequence"), DONE], SO,
          whole({"role": "assistant", "content": "so"}, "stop_sequence")),
    Shape("eos", [chunk({"content": "so"}), chunk(finish="eos"), DONE], SO,
          whole({"role": "assistant", "content": "so"}, "EOS")),
    Shape("a gateway to Anthropic", [chunk({"content": "so"}), chunk(finish="end_turn"), DONE], SO,
          whole({"role": "assistant", "content": "so"}, "end_turn")),
    Shape("a gateway to Gemini", [chunk({"content": "so"}), chunk(finish="MAX_TOKENS"), DONE],
          ("", "so", [], "length", "no_token_ids"),
          whole({"role": "assistant", "content": "so"}, "MAX_TOKENS")),
    Shape("mistral: length", [chunk({"content": "so"}), chunk(finish="model_length"), DONE],
          ("", "so", [], "length", "no_token_ids"),
          whole({"role": "assistant", "content": "so"}, "model_length")),
    # How it is framed.
    Shape("no DONE", text()[:-1], SO),
    Shape("DONE twice", [*text(), DONE], SO),
    Shape("DONE without a blank", [*text()[:-1], b"data:[DONE]\n\n"], SO),
    Shape("DONE with blanks", [*text()[:-1], b"data:  [DONE] \n\n"], SO),
    Shape("comments", [b": OPENROUTER PROCESSING\n\n", b":\n\n", *text(), b": bye\n\n"], SO),
    Shape("comment before data", [b": x\n" + event(ROLE), chunk({"content": "so"}), *END], SO),
    Shape("no blank after the colon", [b"data:" + event(chunk({"content": "so"}))[6:], *END], SO),
    Shape("CRLF", [event(one).replace(b"\n", b"\r\n") for one in text()[:-1]] + [b"data: [DONE]\r\n\r\n"], SO),
    Shape("names and numbers of events", [
        b"event: message\nid: 1\nretry: 3\n" + event(chunk({"content": "so"})), *END], SO),
    Shape("byte order mark", [b"\xef\xbb\xbf" + event(ROLE), chunk({"content": "so"}), *END], SO),
    Shape("empty data", [b"data: \n\n", b"data:\n\n", b"data\n\n", *text(b"data: \n\n")], SO),
    Shape("nothing behind the last line", [*text()[:-1], b"data: [DONE]"], SO),
    Shape("a ping of its own", text(b'event: ping\ndata: {"type": "ping"}\n\n'), SO),
    # What is said.
    Shape("content in parts", [
        chunk({"role": "assistant", "content": [{"type": "text", "text": "s"}]}),
        chunk({"content": [{"type": "text", "text": "o"}]}), *END,
    ], SO, whole({"role": "assistant", "content": [{"type": "text", "text": "s"}, {"type": "text", "text": "o"}]})),
    Shape("mistral: thoughts among parts", [
        chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}),
        chunk({"content": [{"type": "text", "text": "so"}]}), *END,
    ], ("hm", *SO[1:]), whole({"role": "assistant", "content": [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "so"}]})),
    *(Shape(f"thoughts as {name}", [
        chunk({"role": "assistant", "content": None, name: "h"}), chunk({name: "m"}),
        chunk({"content": "so"}), *END,
    ], ("hm", *SO[1:]), whole({"role": "assistant", "content": "so", name: "hm"}))
      for name in ("reasoning", "reasoning_content", "thinking")),
    Shape("openrouter: thoughts and their details", [
        chunk({"role": "assistant", "content": "", "reasoning": "hm", "reasoning_details": [
            {"type": "reasoning.text", "text": "hm", "index": 0}]}),
        chunk({"content": "so", "reasoning": None}), *END,
    ], ("hm", *SO[1:]), whole({"role": "assistant", "content": "so", "reasoning": "hm",
                               "reasoning_details": [{"type": "reasoning.text", "text": "hm", "index": 0}]})),
    Shape("thoughts that are an object", [
        chunk({"reasoning": {"content": "hm"}}), chunk({"content": "so"}), *END,
    ], ("hm", *SO[1:]), whole({"role": "assistant", "content": "so", "reasoning": {"content": "hm"}})),
    Shape("nothing but an end", [ROLE, *END], ("", "", *SO[2:]), whole({"role": "assistant", "content": ""})),
    Shape("no message", [chunk(finish="stop"), DONE], ("", "", *SO[2:]), whole(None)),
    # Tool calls.
    Shape("openai", [
        calls(call(0, "a", "f", "", type="function")), calls(call(0, arguments='{"x"')),
        calls(call(0, arguments=": 1}")), calls(call(1, "b", "g", "", type="function")),
        calls(call(1, arguments=B)), *CALL_END,
    ], BOTH, whole_calls(call(None, "a", "f", A, type="function"), call(None, "b", "g", B, type="function"))),
    Shape("vllm: a name alone", [
        calls(call(0, "a", "f", type="function")), calls(call(0, arguments=A)),
        calls(call(1, "b", "g", type="function")), calls(call(1, arguments=B)), *CALL_END], BOTH),
    Shape("sglang: nulls in later pieces", [
        calls(call(0, "a", "f", "", type="function")),
        calls({"index": 0, "id": None, "type": "function", "function": {"name": None, "arguments": A}}),
        calls({"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": None}}),
        calls({"index": 1, "id": None, "type": None, "function": {"name": None, "arguments": B}}),
        calls({"index": 1, "id": None, "type": None, "function": None}), *CALL_END], BOTH),
    Shape("ollama: one index for all", [
        calls(call(0, "a", "f", A, type="function")), calls(call(0, "b", "g", B, type="function")), *CALL_END,
    ], BOTH, whole_calls(call(0, "a", "f", A, type="function"), call(0, "b", "g", B, type="function"))),
    Shape("one index for all, in one chunk", [
        calls(call(0, "a", "f", A), call(0, "b", "g", B)), *CALL_END], BOTH),
    Shape("one index for all, in pieces", [
        calls(call(0, "a", "f", "")), calls(call(0, arguments='{"x"')), calls(call(0, arguments=": 1}")),
        calls(call(0, "b", "g", "")), calls(call(0, arguments=B)), *CALL_END], BOTH),
    Shape("one index for all, no ids", [calls(call(0, None, "f", A)), calls(call(0, None, "g", B)), *CALL_END],
          BOTH, whole_calls(call(0, None, "f", A), call(0, None, "g", B))),
    Shape("one index for all, no ids, one function", [
        calls(call(0, None, "f", A)), calls(call(0, None, "f", B)), *CALL_END],
        ("", "", [("f", A), ("f", B)], *BOTH[3:])),
    Shape("one index, no ids, no arguments", [
        calls(call(0, None, "f", "", type="function")), calls(call(0, None, "g", B, type="function")),
        *CALL_END], ("", "", [("f", ""), ("g", B)], *BOTH[3:])),
    Shape("no index", [calls(call(None, "a", "f", A)), calls(call(None, "b", "g", B)), *CALL_END], BOTH),
    Shape("no index, in pieces", [
        calls(call(None, "a", "f", "")), calls(call(None, None, None, A)), calls(call(None, "b", "g")),
        calls(call(None, None, None, B)), *CALL_END], BOTH),
    Shape("no index, no ids, in one chunk", [calls(call(None, None, "f", A), call(None, None, "g", B)), *CALL_END],
          BOTH, whole_calls(call(None, None, "f", A), call(None, None, "g", B))),
    Shape("no index, no ids, each in a chunk", [
        calls(call(None, None, "f", A)), calls(call(None, None, "g", B)), *CALL_END], BOTH),
    Shape("null index and id", [
        calls({"index": None, "id": None, "type": None, "function": {"name": "f", "arguments": A}}),
        calls({"index": None, "id": None, "type": None, "function": {"name": "g", "arguments": B}}), *CALL_END,
    ], BOTH, whole_calls({"index": None, "id": None, "type": None, "function": {"name": "f", "arguments": A}},
                         {"id": "", "function": {"name": "g", "arguments": B}})),
    Shape("counted from 1", [
        calls(call(1, "a", "f", "")), calls(call(1, arguments=A)), calls(call(2, "b", "g", B)), *CALL_END], BOTH),
    Shape("counted from 7, with a gap", [calls(call(7, "a", "f", A)), calls(call(9, "b", "g", B)), *CALL_END], BOTH),
    Shape("counted backwards", [calls(call(1, "a", "f", A)), calls(call(0, "b", "g", B)), *CALL_END], BOTH),
    Shape("counted in floats", [calls(call(0.0, "a", "f", A)), calls(call(1.0, "b", "g", B)), *CALL_END], BOTH),
    Shape("counted in text", [calls(call("0", "a", "f", A)), calls(call("1", "b", "g", B)), *CALL_END], BOTH),
    Shape("id in each piece", [
        calls(call(0, "a", "f", "")), calls(call(0, "a", None, '{"x"')), calls(call(0, "a", None, ": 1}")),
        calls(call(1, "b", "g", "")), calls(call(1, "b", None, B)), *CALL_END], BOTH),
    Shape("id, name and type in each piece", [
        calls(call(0, "a", "f", '{"x"', type="function")), calls(call(0, "a", "f", ": 1}", type="function")),
        calls(call(1, "b", "g", "", type="function")), calls(call(1, "b", "g", B, type="function")), *CALL_END,
    ], BOTH),
    Shape("name in each piece, no ids", [
        calls(call(0, None, "f", '{"x"')), calls(call(0, None, "f", ": 1}")), calls(call(1, None, "g", B)),
        *CALL_END], BOTH),
    Shape("vllm 0.5: another id in each piece", [
        calls(call(0, "r1", "f", "")), calls(call(0, "r2", None, '{"x"')), calls(call(0, "r3", None, ": 1}")),
        calls(call(0, "r4", None, "")), calls(call(1, "r5", "g", "")), calls(call(1, "r6", None, B)), *CALL_END,
    ], BOTH),
    Shape("an id first, then its name", [
        calls(call(0, "a", "f", A)), calls(call(0, "b", None, None, type="function")),
        calls(call(0, "b", "g", B)), *CALL_END], BOTH),
    Shape("an id first, once", [
        calls(call(0, "a", "f", A)), calls(call(0, "b", None, "")), calls(call(0, None, "g", B)), *CALL_END], BOTH),
    Shape("an id that comes late", [
        calls(call(0, None, "f", "")), calls(call(0, "a", None, A)), calls(call(1, None, "g")),
        calls(call(1, "b", None, B)), *CALL_END], BOTH),
    Shape("one id for all", [calls(call(0, "x", "f", A)), calls(call(1, "x", "g", B)), *CALL_END],
          BOTH, whole_calls(call(0, "x", "f", A), call(1, "x", "g", B))),
    Shape("one id for all, in pieces", [
        calls(call(0, "x", "f", "")), calls(call(0, None, None, A)), calls(call(1, "x", "g", "")),
        calls(call(1, None, None, B)), *CALL_END], BOTH),
    Shape("one id for all, in pieces that all have it", [
        calls(call(0, "x", "f", "")), calls(call(0, "x", None, A)), calls(call(1, "x", "g", "")),
        calls(call(1, "x", None, B)), *CALL_END], BOTH),
    Shape("one id for all, one function", [calls(call(0, "x", "f", A)), calls(call(1, "x", "f", B)), *CALL_END],
          TWICE, whole_calls(call(0, "x", "f", A), call(1, "x", "f", B))),
    Shape("one id for all, in one chunk", [calls(call(0, "x", "f", A), call(1, "x", "g", B)), *CALL_END], BOTH),
    Shape("one id for all, no index", [calls(call(None, "x", "f", A)), calls(call(None, "x", "g", B)), *CALL_END],
          BOTH, whole_calls(call(None, "x", "f", A), call(None, "x", "g", B))),
    Shape("one id and one index for all", [calls(call(0, "x", "f", A)), calls(call(0, "x", "g", B)), *CALL_END],
          BOTH, whole_calls(call(0, "x", "f", A), call(0, "x", "g", B))),
    Shape("one id and one index for all, one function", [
        calls(call(0, "x", "f", A)), calls(call(0, "x", "f", B)), *CALL_END], TWICE,
        whole_calls(call(0, "x", "f", A), call(0, "x", "f", B))),
    Shape("one id and one index for all, in pieces", [
        calls(call(0, "x", "f", "", type="function")), calls(call(0, arguments=A)),
        calls(call(0, "x", "g", "", type="function")), calls(call(0, arguments=B)), *CALL_END], BOTH),
    Shape("one id and one index for all, one function in pieces", [
        calls(call(0, "x", "f", "")), calls(call(0, "x", None, A)), calls(call(0, "x", "f", "")),
        calls(call(0, "x", None, B)), *CALL_END], TWICE),
    Shape("an id that is an empty text", [calls(call(0, "", "f", A)), calls(call(1, "", "g", B)), *CALL_END],
          BOTH, whole_calls(call(0, "", "f", A), call(1, "", "g", B))),
    Shape("an id that is a number", [calls(call(0, 7, "f", A)), calls(call(1, 7, "g", B)), *CALL_END],
          BOTH, whole_calls(call(0, 7, "f", A), call(1, 7, "g", B))),
    Shape("a call said again when it is whole", [
        calls(call(0, "a", "look", "")), calls(call(0, None, None, A)), calls(call(0, "a", "look", A)), *CALL_END],
        ONE),
    Shape("a call whose last piece is empty", [
        calls(call(0, "a", "look", A)), calls(call(0, "a", "look", "")), *CALL_END], ONE),
    Shape("a call without an id whose last piece is empty", [
        calls(call(0, None, "look", A, type="function")), calls(call(0, None, "look", "", type="function")),
        *CALL_END], ONE),
    Shape("one index, no ids, one function in pieces", [
        calls(call(0, None, "f", "")), calls(call(0, arguments='{"x"')), calls(call(0, arguments=": 1}")),
        calls(call(0, None, "f", "")), calls(call(0, arguments='{"y"')), calls(call(0, arguments=": 2}")),
        *CALL_END], TWICE),
    Shape("one index, no ids, one function, its type in each first piece", [
        calls(call(0, None, "f", type="function")), calls(call(0, arguments=A)),
        calls(call(0, None, "f", type="function")), calls(call(0, arguments=B)), *CALL_END], TWICE),
    Shape("one index, no ids, one function that is named in each piece", [
        calls(call(0, None, "f", "")), calls(call(0, None, "f", A)), calls(call(0, None, "f", "")),
        calls(call(0, None, "f", B)), *CALL_END], TWICE),
    Shape("one index, no ids, one function in one chunk", [
        calls(call(0, None, "f", A), call(0, None, "f", B)), *CALL_END], TWICE,
        whole_calls(call(0, None, "f", A), call(0, None, "f", B))),
    Shape("one index, no ids, one function, no arguments, in one chunk", [
        calls(call(0, None, "f", ""), call(0, None, "f", "")), *CALL_END],
        ("", "", [("f", ""), ("f", "")], *BOTH[3:]), whole_calls(call(0, None, "f", ""), call(0, None, "f", ""))),
    Shape("one index, no ids, one function, empty objects", [
        calls(call(0, None, "f", "{}")), calls(call(0, None, "f", "{}")), *CALL_END],
        ("", "", [("f", "{}"), ("f", "{}")], *BOTH[3:]), whole_calls(call(0, None, "f", "{}"), call(0, None, "f", "{}"))),
    Shape("one function three times", [
        *(one for text in (A, B, A) for one in (calls(call(0, None, "f", "")), calls(call(0, arguments=text)))),
        *CALL_END], ("", "", [("f", A), ("f", B), ("f", A)], *BOTH[3:])),
    Shape("no index, no ids, one function in pieces", [
        calls(call(None, None, "f", "")), calls(call(None, None, None, A)), calls(call(None, None, "f", "")),
        calls(call(None, None, None, B)), *CALL_END], TWICE),
    Shape("null arguments", [
        calls({"index": 0, "id": "a", "type": "function", "function": {"name": "look", "arguments": None}}), *CALL_END,
    ], BARE, whole_calls({"id": "a", "type": "function", "function": {"name": "look", "arguments": None}})),
    Shape("no arguments", [calls(call(0, "a", "look", type="function")), *CALL_END],
          BARE, whole_calls(call(None, "a", "look", type="function"))),
    Shape("empty arguments", [calls(call(0, "a", "look", "")), *CALL_END],
          BARE, whole_calls(call(None, "a", "look", ""))),
    Shape("null arguments in each piece", [
        calls(*({"index": 0, "id": one, "function": {"name": name, "arguments": None}}
                for one, name in (("a", "look"), (None, None)))), *CALL_END], BARE),
    Shape("custom calls", [
        calls({"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": A}}),
        calls({"index": 1, "id": "b", "type": "custom", "custom": {"name": "g", "input": B}}), *CALL_END,
    ], BOTH, whole_calls({"id": "a", "type": "custom", "custom": {"name": "f", "input": A}},
                         {"id": "b", "type": "custom", "custom": {"name": "g", "input": B}})),
    Shape("custom calls in pieces", [
        calls({"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": ""}}),
        calls({"index": 0, "custom": {"input": '{"x"'}}), calls({"index": 0, "custom": {"input": ": 1}"}}),
        calls({"index": 1, "id": "b", "type": "custom", "custom": {"name": "g", "input": None}}),
        calls({"index": 1, "custom": {"name": None, "input": B}}), *CALL_END], BOTH),
    Shape("custom calls that share an index", [
        calls({"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": A}}),
        calls({"index": 0, "id": "b", "type": "custom", "custom": {"name": "g", "input": B}}), *CALL_END,
    ], BOTH, whole_calls({"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": A}},
                         {"index": 0, "id": "b", "type": "custom", "custom": {"name": "g", "input": B}})),
    Shape("custom calls without ids", [
        calls({"type": "custom", "custom": {"name": "f", "input": A}}),
        calls({"type": "custom", "custom": {"name": "g", "input": B}}), *CALL_END,
    ], BOTH, whole_calls({"type": "custom", "custom": {"name": "f", "input": A}},
                         {"type": "custom", "custom": {"name": "g", "input": B}})),
    Shape("a custom call of null", [
        calls({"index": 0, "id": "a", "type": "custom", "custom": {"name": "look", "input": None}}), *CALL_END,
    ], BARE, whole_calls({"id": "a", "type": "custom", "custom": {"name": "look", "input": None}})),
    Shape("a custom call and a function", [
        calls({"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": A}, "function": None}),
        calls(call(1, "b", "g", "")), calls({"index": 1, "function": {"arguments": B}, "custom": None}), *CALL_END,
    ], BOTH, whole_calls({"id": "a", "type": "custom", "custom": {"name": "f", "input": A}}, call(None, "b", "g", B))),
    Shape("name in pieces", [
        calls(call(0, "a", "lo", type="function")), calls(call(0, None, "ok")), calls(call(0, None, None, A)),
        *CALL_END], ONE),
    Shape("name in pieces, with the id", [
        calls(call(0, "a", "lo")), calls(call(0, "a", "o")), calls(call(0, "a", "k", A)), *CALL_END], ONE),
    Shape("name behind the id", [
        calls(call(0, "a", type="function")), calls(call(0, None, "look")), calls(call(0, None, None, A)), *CALL_END,
    ], ONE),
    Shape("calls that are no list", [chunk({"tool_calls": call(0, "a", "look", A)}), *CALL_END], ONE,
          whole({"role": "assistant", "content": None, "tool_calls": call(0, "a", "look", A)}, "tool_calls")),
    Shape("null among calls", [calls(None, call(0, "a", "look", A)), *CALL_END], ONE,
          whole_calls(None, call(0, "a", "look", A))),
    Shape("a call and its end in one", [calls(call(0, "a", "look", A), finish="tool_calls"), DONE], ONE),
    Shape("everything of a call in one", [
        chunk({"role": "assistant", "content": None, "tool_calls": [call(0, "a", "look", A, type="function")]},
              "tool_calls"), DONE], ONE),
    Shape("no calls in words", [ROLE, chunk({"content": "so", "tool_calls": []}), *END], SO),
    Shape("a call that ended with stop", [calls(call(0, "a", "look", A)), *END], (*ONE[:3], "stop", ONE[4]),
          whole_calls(call(0, "a", "look", A), finish="stop")),
    Shape("tool_use", [calls(call(0, "a", "look", A)), chunk(finish="tool_use"), DONE], ONE,
          whole_calls(call(0, "a", "look", A), finish="tool_use")),
    Shape("pieces in turns", [
        calls(call(0, "a", "f", '{"x"'), call(1, "b", "g", '{"y"')), calls(call(1, arguments=": 2}")),
        calls(call(0, arguments=": 1}")), *CALL_END], BOTH),
    # Numbers of tokens.
    with_tokens("all tokens", [-0.5, -1], ""),
    with_tokens("a null log probability", [-0.5, None], "no_logprobs"),
    with_tokens("only null log probabilities", [None, None], "no_logprobs"),
    with_tokens("a null entry", ["entry", -0.5], "no_logprobs"),
    with_tokens("a log probability in words", [-0.5, "-inf"], "no_logprobs"),
    with_tokens("a log probability that is no JSON", [-0.5, float("-inf")], "no_logprobs"),
    with_tokens("a log probability that is no number", [float("nan"), -0.5], "no_logprobs"),
]  # fmt: skip
OBJECTS = [
    Shape("arguments as an object", [calls(call(0, "a", "look", {"x": 1})), *CALL_END], ONE,
          whole_calls(call(0, "a", "look", {"x": 1}))),
]  # fmt: skip
"""Of these the spelling of arguments is ours."""

FAILURES = [
    {"error": {"message": "out of memory", "type": "x", "code": 500}},
    {"error": "out of memory", "error_type": "overloaded"},
    {"error": {"error": {"message": "out of memory"}}},
    {"object": "error", "message": "out of memory", "type": "BadRequestError", "code": 400},
    {"detail": "out of memory"},
    {"msg": "out of memory", "code": -1},
    {"message": "out of memory", "type": "error"},
    {**HEAD, "choices": [], "error": {"message": "out of memory", "code": 502}},
    {**HEAD, "choices": None, "error": {"message": "out of memory"}, "usage": USAGE},
    {**HEAD, "error": {"code": 502, "message": "out of memory"}, "choices": [
        {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]},
    {**HEAD, "choices": [
        {"index": 0, "delta": {"content": ""}, "finish_reason": "error", "error": {"message": "out of memory"}}]},
    {**HEAD, "choices": [
        {"index": 0, "delta": {}, "finish_reason": "stop", "error": {"message": "out of memory"}}]},
    b'event: error\ndata: {"code": 500, "message": "out of memory"}\n\n',
    b'event: error\ndata: {"type": "error", "error": {"message": "out of memory"}}\n\n',
    b"event: error\ndata: out of memory\n\n",
    b"data: out of memory\n\n",
    b"data: [ERROR] out of memory\n\n",
]  # fmt: skip
"""Errors inside a stream that has begun well."""
NO_ERRORS = [
    None, {}, "", [], False, 0, 0.0, 200, "null", "None", "NULL", "nil", "undefined", "false", "0", "200",
    " ", "ok", "OK", "success", "no error", "{}", "[]", [None], [{}], [""],
    {"message": None, "code": None}, {"message": "", "type": "", "param": None, "code": ""},
    {"code": 0, "message": ""}, {"code": "0", "msg": ""}, {"code": 200, "message": "success"},
    {"code": 200, "message": "OK", "type": None, "metadata": {}}, {"status": "success", "detail": "none"},
    {"code": "Success", "message": "Success."}, {"error": None}, {"error": {"message": None}},
    {"code": 0, "message": "请求成功"}, {"is_error": False}, {"success": True, "message": None},
]  # fmt: skip
"""What some write in the place of an error that they do not have."""
ERRORS = [
    "out of memory", ["out of memory"], [{"message": "out of memory"}], {"message": "out of memory"},
    {"code": 0, "message": "out of memory"}, {"code": 200, "message": "out of memory"},
    {"code": 500, "message": ""}, {"code": "500"}, {"type": "server_error", "message": ""}, {"code": -1},
    {"message": "", "code": "internal_error"}, {"status": "failed"}, True, 1, 500, "500", "error", "true",
    {"error": {"code": 500, "message": None}}, {"success": False}, {"x": {"y": "out of memory"}},
    {"code": 0, "message": "", "detail": "out of memory"}, [[{"code": 13}]], {"message": ["out of memory"]},
]  # fmt: skip
"""What is one there, whatever stands beside it."""
ENDINGS = {
    "stop": [
        "stop", "STOP", "Stop", " stop ", "FinishReason.STOP", "FINISH_REASON_STOP", "finish_reason_stop",
        "finishReason.stop", "<FinishReason.STOP: 1>", "StopReason.END_TURN", "stopReason.endTurn",
        "REASON_STOP", "FINISH_STOP", "FinishReason::Stop", '"stop"', "stop_id", "eos_id", "eosId", "EosToken",
        "endTurn", "END_TURN", "end-turn", "end of turn", "EOS", "eot", "eom", "eog", "eos_token_hit", "end_id",
        "stop_token_id", "stopped_eos", "FINISHED_STOPPED", "FINISH_MATCHED_TOKEN", "matched_token", "FINISH",
        "done", "normal", "natural_stop", "endoftext", "<|endoftext|>", "<|im_end|>", "<|eot_id|>",
        "end_of_message", "end_of_response", "STOP_CRITERIA_MET", "message_stop", "success",
        ["stop"], ["stop", None], ["STOP", "stop"], {"type": "stop"}, {"type": "stop", "matched": 128009},
        {"type": "STOP", "reason": None}, {"reason": "stop"}, {"name": "STOP", "value": 1}, {"value": "stop"},
        {"finish_reason": "stop"}, {"type": {"name": "stop"}}, {"type": None, "reason": "stop"}, [{"type": "stop"}], {"stop": {}},
    ],
    "length": [
        "length", "LENGTH", "maxTokens", "MaxTokens", "FinishReason.MAX_TOKENS", "FINISH_REASON_LENGTH",
        "FINISH_REASON_MAX_TOKENS", "FinishReason.LENGTH", "FINISH_LENGTH", "FINISHED_LENGTH_CAPPED", "context_length",
        "max_seq_len", "maxSeqLen", "max_context_length", "max_context", "context_length_exceeded", "context_window",
        "context_full", "max_model_len", "max_completion_tokens", "max_tokens_reached", "max_len", "REASON_MAX_LEN",
        "maximum_length", "MAXIMUM_LENGTH", "out_of_tokens", "stopped_limit", "length_limit", "token limit", "cutoff",
        "truncated", "output_limit", "max_output", {"type": "length", "length": 16}, {"type": "LENGTH"}, ["length"],
        {"reason": "max_tokens"},
    ],
    "tool_calls": [
        "tool_calls", "toolUse", "tool-calls", "toolCalls", "ToolUse", "TOOL_CALL", "FinishReason.TOOL_CALLS",
        "FINISH_REASON_TOOL_CALLS", "FINISH_REASON_TOOL_CALL", "function_calls", "FUNCTION_CALLS", "functionCalls",
        "tool", "tools", "tool_called", "REASON_TOOL_CALLS", {"type": "tool_calls"}, ["tool_calls"],
    ],
    "function_call": ["function_call", "FUNCTION_CALL", "functionCall", "FinishReason.FUNCTION_CALL", ["function_call"]],
    "content_filter": [
        "content_filter", "content-filter", "contentFilter", "FinishReason.SAFETY", "FINISH_REASON_SAFETY", "BLOCKLIST",
        "SPII", "LANGUAGE", "IMAGE_SAFETY", "MODEL_ARMOR", "sensitive", "blacklist", "filtered", "moderation",
        "FINISH_REASON_CONTENT_FILTER", {"type": "content_filter"},
    ],
}  # fmt: skip
"""Spellings of a real end, by OpenAI's word for it."""
STRING_ENDS = ["STOP_SEQUENCE", "stopSequence", "FinishReason.STOP_SEQUENCE", "FINISH_MATCHED_STR", "stop_words",
               "StopString", "stopped_word", "custom_stopper", {"type": "stop_sequence"}]  # fmt: skip
"""The same of one that met a stop string."""
GOING_ON = [
    None, "", " ", "null", "None", "NONE", "nil", "undefined", "false", "False", "0", False, 0, 0.0, {}, [], [None],
    "not_finished", "NOT_FINISHED", "unfinished", "FINISH_REASON_UNSPECIFIED", "FinishReason.UNSPECIFIED",
    "FinishReason.FINISH_REASON_UNSPECIFIED", "FinishReason.NONE", "in_progress", "running", "generating", "active",
    "continue", {"type": None}, {"type": "none"}, {"reason": ""},
]  # fmt: skip
"""What some write while a reply goes on."""
NO_ENDS = [
    "abort", "aborted", "ABORT", "error", "cancelled", "canceled", "cancel", "timeout", "unknown",
    "other", "load", "unload", "interrupted", "insufficient_system_resource", "network_error",
    "malformed_function_call", "failed", "disconnect", "preempted", "5", "x" * 999, "FinishReason.ABORT",
    "FINISH_REASON_OTHER", "FinishReason.ERROR", "FINISH_ABORT", "FINISHED_ABORTED", "finishReason.Cancelled",
    "<FinishReason.ABORT: 2>", "stop_abort", "nonstop", "unstoppable", "stop|abort", "MALFORMED_FUNCTION_CALL", "true",
    "FINISH_REASON_", "FinishReason", "FinishReason.", "finish_reason", "incomplete", "time_limit", "rate_limit",
]  # fmt: skip
"""Words for an end that no model says."""
ODD_NO_ENDS = [
    True, 1, 5, 2.5, {"type": "abort", "message": "bye"}, {"type": "error"}, ["abort"], ["stop", "abort"],
    ["stop", "length"], {"type": "abort", "reason": "stop"}, {"code": 1}, {"type": ["abort"]}, {"abort": {}}, [[]] * 3 + [7],
]  # fmt: skip
"""The same, written as something else than text."""
