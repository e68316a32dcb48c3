"""Chat templates: which of them only append, and the line that says what will happen."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.trainer import chat_template
from odradek.trainer.chat_template import EXCHANGES, Exchange, TemplateRefusal, findings

NAMES = [exchange.name for exchange in EXCHANGES]
MESSAGE, SYSTEM, TOOLS, REASONING, TOOLS_AFTER = NAMES

CALLS = "{% for call in m.tool_calls or [] %}<call>{{ call.function | tojson }}</call>{% endfor %}"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}" + CALLS + "<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.index0 > ns.last and (loop.last or m.reasoning_content) %}"
    "<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
    "{{ m.content }}" + CALLS + "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Reasoning stays while tools answer, and goes once a user does."""
R1 = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}" + CALLS + "{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
)
"""A prompt ends with the beginning of a thought, which no history has."""
LLAMA3 = (
    "{% for m in messages %}<|start|>{{ m.role }}<|end|>\n\n{{ m.content | trim }}"
    + CALLS
    + "<|eot|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
)
MISTRAL = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system messages') }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %}{{ m.content }}" + CALLS + "</s>"
    "{% else %}[TOOL] {{ m.content }} [/TOOL]{% endif %}{% endfor %}"
)
MOVED = (
    "{% if messages[0].role == 'system' %}{% set system, rest = messages[0].content, messages[1:] %}"
    "{% else %}{% set system, rest = '', messages %}{% endif %}"
    "{% for m in rest %}{% if m.role == 'user' %}[INST] {% if loop.last and system %}{{ system }}"
    "{% endif %}{{ m.content }} [/INST]{% else %}{{ m.content }}" + CALLS + "</s>{% endif %}"
    "{% endfor %}"
)
"""The system message stands in the last message of the user, wherever that is."""
NOTHING = "{{ raise_exception('not today') }}"

TABLE = {
    "chatml": (CHATML, {}, "it only appends: turns that continue each other are one sequence"),
    "llama-3": (LLAMA3, {}, "it only appends"),
    "qwen3": (
        QWEN3,
        {
            MESSAGE: ("history", 3), SYSTEM: ("history", 4), TOOLS: ("history", 3),
            REASONING: ("history", 3),
        },
        f"history is re-rendered with {MESSAGE}, {SYSTEM}, {TOOLS} and {REASONING}: episodes break",
    ),
    "deepseek-r1": (
        R1,
        {
            MESSAGE: ("prompt", 2), SYSTEM: ("prompt", 3), TOOLS: ("prompt", 2),
            REASONING: ("prompt", 2), TOOLS_AFTER: ("prompt", 2),
        },
        "unless ODRADEK_PROXY_CONTINUATION is bridge",
    ),
    "mistral": (
        MISTRAL,
        {SYSTEM: ("refused", 0)},
        "are one sequence; the template refuses a system message (no system messages)",
    ),
    "mistral, which moves the system message": (
        MOVED, {SYSTEM: ("history", 3)}, "re-rendered with a system message: episodes break there"
    ),
    "one that raises": (
        NOTHING, dict.fromkeys(NAMES, ("refused", 0)), "chat template: the template refuses"
    ),
}  # fmt: skip
"""Template: (text, what is not appended: (outcome, messages), what the line says)."""


@pytest.mark.torch
@pytest.mark.parametrize("name", TABLE)
def test_a_template_is_seen_for_what_it_does(name, tokenizer):
    """Each kind of conversation by itself, in tokens, and the line in words."""
    from odradek.trainer.models import template_line

    text, expected, says = TABLE[name]
    own = copy.deepcopy(tokenizer)
    own.chat_template = text
    line, made = seen(own, template_line)
    of = {finding.name: (finding.outcome, finding.messages) for finding in made}
    assert dict.fromkeys(NAMES, ("appends", 0)) | expected == of
    assert says in line
    assert line.startswith("chat template: ")
    assert "\n" not in line


def seen(tokenizer, template_line):
    """The line, and the findings that it is made of."""
    kept = []
    of_findings = chat_template.line
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_template, "line", lambda made: kept.extend(made) or of_findings(made))
        return template_line(tokenizer), kept


@pytest.mark.torch
def test_a_tokenizer_without_a_template_says_so(tokenizer):
    """A base model's."""
    from odradek.trainer.models import template_line

    own = copy.deepcopy(tokenizer)
    own.chat_template = None
    assert "there is none" in template_line(own)


texts = st.text("ab", max_size=4)
exchanges = st.lists(texts, min_size=2, max_size=6).map(
    lambda words: Exchange(
        "any",
        tuple(
            {"role": ("user", "assistant")[n % 2], "content": word}
            for n, word in enumerate(words)
        ),
    )
)  # fmt: skip


def spelled(messages, closing):
    return [ord(c) for m in messages for c in f"{m['role'][0]}{m['content']}{closing}"]


@given(exchanges)
def test_messages_that_are_rendered_one_by_one_only_append(exchange):
    """Whatever they say, and with whatever a reply begins."""
    (made,) = findings(
        lambda messages, _, answer: spelled(messages, ".") + [ord("a")] * answer, [exchange]
    )
    assert ("appends", 0) == (made.outcome, made.messages)


@given(exchanges, st.integers(0, 4))
def test_a_template_that_leaves_out_an_old_message_is_seen_where_it_does(exchange, place):
    """With the first message that follows; a shorter conversation is not affected."""

    def render(messages, _tools, answer):
        kept = [m for n, m in enumerate(messages) if n != place or n == len(messages) - 1]
        return spelled(kept, ".") + [ord("a")] * answer

    (made,) = findings(render, [exchange])
    if place + 1 < len(exchange.messages):
        assert ("history", place + 2) == (made.outcome, made.messages)
    else:
        assert made.outcome == "appends"


def test_a_refusal_in_the_middle_counts_as_one():
    """Its reason is in the line, once."""

    def render(messages, _tools, _answer):
        if len(messages) > 2:
            raise TemplateRefusal("too long")
        return spelled(messages, ".")

    made = findings(render)
    assert {"refused"} == {finding.outcome for finding in made}
    assert 1 == chat_template.line(made).count("too long")


@pytest.mark.torch
def test_the_small_engine_says_why_a_template_refuses_messages(tokenizer):
    """In the template's own words, as a request that it cannot serve."""
    from odradek.trainer.engine.rendering import Renderer
    from odradek.trainer.errors import UnsupportedRequest

    own = copy.deepcopy(tokenizer)
    own.chat_template = NOTHING
    with pytest.raises(UnsupportedRequest, match="not today"):
        Renderer(own, name="m", longest=9).messages([{"role": "user", "content": "a"}], None)
