"""Pydantic AI: an agent with a tool, on chat completions and on Responses."""

import json

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel

seen = []


def look(at: str) -> str:
    """Look somewhere."""
    seen.append(at)
    return "seen"


said = []
for model in (OpenAIChatModel("policy"), OpenAIResponsesModel("policy")):
    agent = Agent(model, instructions="be brief", tools=[look])
    said.append(agent.run_sync("né?").output)
    with agent.run_stream_sync("né?") as result:
        said.append(result.get_output())
print(json.dumps([said, seen]))
