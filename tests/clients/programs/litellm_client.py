"""LiteLLM: chat completions, and Anthropic's messages for the same conversation."""

import json
import os

import litellm

parameters = {"type": "object", "properties": {"at": {"type": "string"}}}
look = {"type": "function", "function": {"name": "look", "parameters": parameters}}
said = []


def converse(model, stream, **more):
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "né?"}]
    for _ in range(2):
        reply = litellm.completion(
            model=model, messages=messages, tools=[look], stream=stream, max_tokens=99, **more
        )
        if stream:
            reply = litellm.stream_chunk_builder(list(reply), messages=messages)
        message = reply.choices[0].message
        said.append(message.content or None)
        messages.append(message.model_dump())
        for call in message.tool_calls or ():
            said.append([call.id, call.function.name, json.loads(call.function.arguments)])
            messages.append({"role": "tool", "tool_call_id": call.id, "content": "seen"})


for stream in (False, True):
    converse("openai/policy", stream)
if "ODRADEK_DIRECT" not in os.environ:
    for stream in (False, True):
        converse("anthropic/policy", stream, api_base=os.environ["ANTHROPIC_BASE_URL"])
print(json.dumps(said))
