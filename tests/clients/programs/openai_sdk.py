"""The OpenAI SDK: chat with tools, streamed and not, then Responses chained by id."""

import json

from openai import OpenAI

sdk = OpenAI(max_retries=0)
parameters = {"type": "object", "properties": {"at": {"type": "string"}}}
look = {"type": "function", "function": {"name": "look", "parameters": parameters}}
said = []


def chat(stream):
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "né?"}]
    for _ in range(2):
        if stream:
            with sdk.chat.completions.stream(
                model="policy", messages=messages, tools=[look]
            ) as events:
                message = events.get_final_completion().choices[0].message
        else:
            reply = sdk.chat.completions.create(model="policy", messages=messages, tools=[look])
            message = reply.choices[0].message
        said.append(message.content or None)
        messages.append(message.to_dict())
        for call in message.tool_calls or ():
            said.append([call.id, call.function.name, json.loads(call.function.arguments)])
            messages.append({"role": "tool", "tool_call_id": call.id, "content": "seen"})


def respond(stream):
    more = {"input": "né?", "instructions": "be brief"}
    for _ in range(2):
        asked = {"model": "policy", "tools": [{"type": "function", "strict": False, "name": "look",
                                               "parameters": parameters}], **more}  # fmt: skip
        if stream:
            with sdk.responses.stream(**asked) as events:
                for _event in events:
                    pass
                reply = events.get_final_response()
        else:
            reply = sdk.responses.create(**asked)
        said.append(reply.output_text or None)
        results = []
        for item in reply.output:
            if item.type == "function_call":
                said.append([item.call_id, item.name, json.loads(item.arguments)])
                result = {"type": "function_call_output", "call_id": item.call_id}
                results.append({**result, "output": "seen"})
        more = {
            "input": results, "previous_response_id": reply.id, "instructions": "be brief",
        }  # fmt: skip


chat(stream=False)
chat(stream=True)
respond(stream=False)
respond(stream=True)
print(json.dumps(said))
