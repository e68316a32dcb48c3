"""What the engine calls an agent's tools, and whose a call is."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odradek.proxy.dialects.tools.names import Names, ToolName

WORDS = st.text(max_size=80) | st.sampled_from(
    ["a", "b", "a__b", "b__c", "c", "functions", "é", ""]
)
TOOLS = st.builds(ToolName, WORDS, WORDS, st.sampled_from(["function", "custom"]))
LEGAL = re.compile(r"[A-Za-z0-9_-]{1,64}")


def named(*tools):
    names = Names()
    for tool in tools:
        names.add(tool, {})
    names.settle()
    return names


@given(st.lists(TOOLS, unique=True, max_size=8))
def test_each_tool_has_a_name_of_its_own_that_leads_back_to_it(tools):
    """Whatever the names of tools and namespaces; one that is not the agent's own is legal."""
    names = named(*tools)
    for tool in tools:
        assert tool == names.tool(names.name(tool))
        assert tool.plain or LEGAL.fullmatch(names.name(tool))
    assert [names.name(tool) for tool in tools] == [
        one["function"]["name"] for one in names.offered()
    ]


@given(st.lists(TOOLS, unique=True, max_size=6), st.randoms())
def test_a_name_does_not_depend_on_the_order_of_the_tools(tools, chance):
    """An agent may list them otherwise in its next call."""
    shuffled = chance.sample(tools, len(tools))
    before, after = named(*tools), named(*shuffled)
    assert [before.name(tool) for tool in tools] == [after.name(tool) for tool in tools]


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        (ToolName("look"), "look"),
        (ToolName("look.up"), "look.up"),
        (ToolName("x" * 70), "x" * 70),
        (ToolName("spawn_agent", "multi_agent_v1"), "multi_agent_v1__spawn_agent"),
        (ToolName("exec", "functions", "custom"), "functions__exec"),
        (ToolName("apply_patch", kind="custom"), "apply_patch"),
    ],
)
def test_a_name_stays_as_plain_as_it_can(tool, name):
    """A function's is the agent's own; others are put together."""
    assert name == named(tool).name(tool)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ToolName("b__c", "a"), ToolName("c", "a__b")),
        (ToolName("a__b"), ToolName("b", "a")),
        (ToolName("a"), ToolName("a", kind="custom")),
        (ToolName("a", "n"), ToolName("a", "n", "custom")),
        (ToolName("x.y", "n"), ToolName("x/y", "n")),
        (ToolName("x" * 70, "n"), ToolName("x" * 70 + "y", "n")),
    ],
)
def test_names_that_would_be_the_same_are_told_apart(first, second):
    """A function of the agent's own keeps its name, whatever else is there."""
    names = named(first, second)
    assert names.name(first) != names.name(second)
    assert not first.plain or names.name(first) == first.name


def test_a_call_of_an_earlier_request_keeps_its_name():
    """Also where its tool is not offered any more; what nobody offered is what the model wrote."""
    spawn = ToolName("spawn", "team")
    assert named(spawn).name(spawn) == named().name(spawn)
    assert ToolName("made.up") == named(spawn).tool("made.up")
    assert "made.up" == named(spawn).name(ToolName("made.up"))
    assert named(ToolName("team__spawn")).name(spawn) not in ("team__spawn", "spawn")
