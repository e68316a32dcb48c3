"""Which fields an engine's refusal names, in the words of many engines and gateways."""

import json

import pytest

from odradek.proxy.engines.refusal import lesser
from odradek.schemas.sampling import NEUTRAL

WRITTEN = {
    "temperature": 1.0, **NEUTRAL, "logprobs": True, "return_token_ids": True,
    "return_weight_versions": True,
}  # fmt: skip
QUOTED = {"messages": [], **WRITTEN}
TAKEN = (
    "`messages`, `model`, `frequency_penalty`, `logit_bias`, `logprobs`, `max_tokens`, `n`, "
    "`presence_penalty`, `stop`, `stream`, `seed`, `temperature`, `top_p`, `tools`, `user`"
)
SENTENCES = {
    "cannot read: min_p": "min_p",
    "cannot read: min_p, repetition_penalty": "min_p repetition_penalty",
    f"unknown field `min_p`, expected one of {TAKEN} at line 1 column 50": "min_p",
    "unknown field `top_k`, expected `temperature` or `top_p`": "top_k",
    "unknown field `top_k`, there are no fields": "top_k",
    "the JSON body: top_k: invalid value: integer `-1`, expected u32 at line 1 column 50": "top_k",
    "Unrecognized request argument supplied: min_p": "min_p",
    "Unrecognized request arguments supplied: min_p, top_k": "min_p top_k",
    "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) "
    "value is supported.": "temperature",
    'json: unknown field "min_p"': "min_p",
    "[{'type': 'extra_forbidden', 'loc': ('body', 'min_p'), 'msg': 'Extra inputs are not "
    "permitted', 'input': 0}]": "min_p",
    f"[{{'loc': ('body',), 'msg': 'top_k must be at least 0', 'input': {QUOTED}}}]": "top_k",
    str(QUOTED): "",
    json.dumps(QUOTED): "",
    "min_p: Extra inputs are not permitted": "min_p",
    "1 validation error for Request\nmin_p\n  Extra inputs are not permitted [type=extra_forbidden, "
    "input_value=0, input_type=int]\n    For further information visit https://x/2.12/v/y": "min_p",
    "Additional properties are not allowed ('min_p', 'top_k' were unexpected)": "min_p top_k",
    "got an unexpected keyword argument 'min_p'. Did you mean 'top_p'?": "min_p",
    "Unknown field min_p. Allowed fields: temperature, top_p, logprobs": "min_p",
    "Supported parameters: temperature, top_p. Unsupported: min_p": "min_p",
    "Supported parameters: temperature, top_p; unsupported: min_p": "min_p",
    "temperature and top_p are supported, but min_p is not": "min_p",
    "[temperature, top_p, top_k] are the allowed parameters; min_p given": "min_p",
    "only temperature and top_p are supported; got min_p": "min_p",
    "min_p is not supported, use top_p instead": "min_p",
    "`temperature` and `top_p` cannot both be specified. Please use only one.": "top_p",
    "openai does not support parameters: ['min_p', 'top_k'], for model=x": "min_p top_k",
    "`top_p` must be > 0.0 and < 1.0": "top_p",
    "'top_k': -1 is less than the minimum of 0": "top_k",
    "top_k must be at least 0, got -1.": "top_k",
    "the prompt is too long": "",
    "max_tokens must be positive": "",
    "Unsupported: `min_p`, `top_k`. Supported: `temperature`, `top_p`.": "min_p top_k",
    "top_k is only supported with do_sample": "top_k",
    "Valid fields are: temperature, top_p. Remove min_p.": "min_p",
    "no such field: min_p (known fields: temperature, top_p)": "min_p",
    "'min_p' is not one of the allowed fields [temperature, top_p]": "min_p",
    "min_p is not among temperature, top_p, frequency_penalty": "min_p",
    "unknown argument: min_p; choices: temperature, top_p": "min_p",
    "unrecognized arguments: min_p\nusage: serve [temperature] [top_p]": "min_p",
    "Unknown fields: min_p. Fields: temperature, top_p, top_k": "min_p",
    "unexpected property: repetition_penalty\nallowed:\n - temperature\n - top_p\n":
        "repetition_penalty",
    "presence_penalty and frequency_penalty aren't available": "presence_penalty frequency_penalty",
    "This model only supports temperature=1": "temperature",
    "Unexpected field temperature_scale; expected temperature": "",
    "Unknown fields: min_p, temperature": "min_p",
    "Unknown fields: temperature": "temperature",
    "unsupported params: {'min_p': 0, 'top_k': -1}": "min_p top_k",
    "unexpected argument(s): top_k; temperature and top_p may be used": "top_k",
    "top_k is unknown; the schema has messages, model, temperature, top_p, n": "top_k",
    "return_token_ids: unknown": "return_token_ids",
    "Model does not support top_k and min_p": "top_k min_p",
    "only these are allowed: temperature, top_p. You passed: temperature, top_p, min_p": "min_p",
    "['min_p'] is not accepted by a model which accepts ['temperature', 'top_p']": "min_p",
    'Unrecognized field "min_p", not ignorable (2 known: "temperature", "top_p")': "min_p",
    "Could not find member 'min_p' on object of type 'Req'. Path 'min_p', line 1": "min_p",
}  # fmt: skip
SHAPES = [
    ({"error": {"message": "Unknown parameter: 'top_k'.", "param": "top_k"}}, "top_k"),
    ({"error": {"message": f"top_k? {TAKEN}", "param": "top_k", "code": "unknown"}}, "top_k"),
    ({"detail": [{"type": "extra_forbidden", "loc": ["body", "min_p"], "msg": "Extra", "input": 0},
                 {"type": "extra_forbidden", "loc": ["body", "top_k"], "input": -1}]}, "min_p top_k"),
    ({"detail": [{"loc": ["body"], "msg": "top_k must be 0 or more", "input": QUOTED}]}, "top_k"),
    ({"error": {"details": [{"fieldViolations": [
        {"field": "", "description": 'Unknown name "min_p": Cannot find field.'}]}]}}, "min_p"),
    ({"errors": {"min_p": ["Unknown field."]}}, "min_p"),
    ({"min_p": ["Unknown field."], "top_k": ["Unknown field."]}, "min_p top_k"),
    ({"error": "unknown field min_p", "allowed": ["temperature", "top_p"]}, "min_p"),
    ({"error": "unknown field min_p", "valid_fields": "temperature top_p"}, "min_p"),
    ({"error": "unknown field min_p", "request": QUOTED}, "min_p"),
    ({"error": "unknown field min_p", "body": json.dumps(QUOTED)}, "min_p"),
    ({"unsupported": ["min_p"], "supported": ["temperature", "top_p"]}, "min_p"),
    ({"code": "unrecognized_keys", "keys": ["min_p", "top_k"], "path": []}, "min_p top_k"),
    ({"error": [{"params": {"additionalProperty": "min_p"}, "message": "NOT"}]}, "min_p"),
    ({"errors": [{"source": {"pointer": "/min_p"}, "title": "no"}]}, "min_p"),
    ({"error": QUOTED}, ""), (QUOTED, ""), ({}, ""), ([], ""), (None, ""), ("", ""), (3, ""),
]  # fmt: skip


def refused(body):
    """What is left out, or gets another value."""
    left = lesser(WRITTEN, body)
    if left is None:
        return set()
    return {name for name, value in WRITTEN.items() if left.get(name) != value}


@pytest.mark.parametrize(("text", "names"), SENTENCES.items())
def test_only_what_a_sentence_calls_wrong_is_refused(text, names):
    """Not what it lists as right, nor what it quotes; alone, or within an object."""
    expected = set(names.split())
    assert expected == refused(text.encode())
    assert expected == refused(json.dumps({"error": {"message": text, "code": 400}}).encode())
    assert expected == refused(json.dumps({"detail": text}).encode())


@pytest.mark.parametrize(("shape", "names"), SHAPES)
def test_a_place_that_an_error_names_goes_before_its_words(shape, names):
    """Whatever the place is called."""
    assert set(names.split()) == refused(json.dumps(shape).encode())


def test_no_bytes_are_more_than_an_engine_can_say():
    """An error may be anything."""
    for body in (b"", b"\xff\xfe", b"[" * 100, b'"\\ud800 min_p"', b"<html>min_p unknown</html>"):
        assert refused(body) <= {"min_p"}


def test_all_tokens_are_asked_for_in_another_way_before_they_are_not_asked_for():
    """Some engines read 0 as all tokens, and nothing below it."""
    first = lesser(WRITTEN, b"top_k: invalid")
    assert {**WRITTEN, "top_k": 0} == first
    assert "top_k" not in lesser(first, b"top_k: invalid")


def test_a_temperature_is_the_last_to_go():
    """Without it no reply can be trained on."""
    left = lesser(WRITTEN, b"unknown: temperature, min_p")
    assert ("temperature", False) == (next(iter(left)), "min_p" in left)
    assert "temperature" not in lesser(left, b"unknown: temperature")
