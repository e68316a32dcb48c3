"""The Anthropic SDK: messages with tools and thinking, streamed and not."""

import json

from anthropic import Anthropic

sdk = Anthropic(max_retries=0)
look = {"name": "look", "input_schema": {"type": "object", "properties": {"at": {}}}}
said = []


def converse(stream):
    messages = [{"role": "user", "content": "né?"}]
    asked = {
        "model": "policy", "max_tokens": 2000, "system": "be brief", "tools": [look],
        "messages": messages, "thinking": {"type": "enabled", "budget_tokens": 1024},
    }  # fmt: skip
    for _ in range(2):
        if stream:
            with sdk.messages.stream(**asked) as events:
                for _event in events:
                    pass
                reply = events.get_final_message()
        else:
            reply = sdk.messages.create(**asked)
        messages.append({"role": "assistant", "content": reply.content})
        results = []
        for block in reply.content:
            if block.type == "thinking":
                said.append(block.thinking)
            if block.type == "text":
                said.append(block.text)
            if block.type == "tool_use":
                said.append([block.id, block.name, block.input])
                results.append({"type": "tool_result", "tool_use_id": block.id, "content": "seen"})
        messages.append({"role": "user", "content": results or "go on"})


converse(stream=False)
converse(stream=True)
print(json.dumps(said))
