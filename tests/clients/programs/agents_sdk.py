"""The OpenAI Agents SDK, on Responses: one agent hands the conversation to another."""

import asyncio
import json

from agents import Agent, Runner, function_tool, set_tracing_disabled  # noqa: TID251 - the SDK

set_tracing_disabled(disabled=True)
seen = []


@function_tool
def look(at: str) -> str:
    """Look somewhere."""
    seen.append(at)
    return "seen"


second = Agent(name="second", instructions="you look", model="policy", tools=[look])
first = Agent(name="first", instructions="you hand over", model="policy", handoffs=[second])


async def run(stream):
    if not stream:
        result = await Runner.run(first, "né?")
        return [result.final_output, result.last_agent.name]
    result = Runner.run_streamed(first, "né?")
    async for _event in result.stream_events():
        pass
    return [result.final_output, result.last_agent.name]


async def main():
    return [await run(stream) for stream in (False, True)]


print(json.dumps([asyncio.run(main()), seen]))
