"""Google's SDK: chats with tools and thoughts, streamed and not; it keeps the history itself."""

import json

from google import genai
from google.genai import types

sdk = genai.Client()  # by GOOGLE_GEMINI_BASE_URL and GEMINI_API_KEY
look = types.FunctionDeclaration(
    name="look",
    parameters=types.Schema(type="OBJECT", properties={"at": types.Schema(type="STRING")}),
)
config = types.GenerateContentConfig(
    system_instruction="be brief",
    tools=[
        types.Tool(function_declarations=[look]),
        types.Tool(google_search=types.GoogleSearch()),
    ],
    thinking_config=types.ThinkingConfig(include_thoughts=True),
    max_output_tokens=2000,
)
said = []


def converse(stream):
    chat = sdk.chats.create(model="policy", config=config)
    message = "né?"
    for _ in range(2):
        replies = (
            list(chat.send_message_stream(message)) if stream else [chat.send_message(message)]
        )
        parts = [part for reply in replies for part in reply.candidates[0].content.parts]
        said.append("".join(part.text for part in parts if part.text and part.thought))
        said.append("".join(part.text for part in parts if part.text and not part.thought))
        calls = [part.function_call for part in parts if part.function_call]
        said.extend([call.id, call.name, call.args] for call in calls)
        message = [
            types.Part(function_response=types.FunctionResponse(
                id=call.id, name=call.name, response={"output": "seen"}))
            for call in calls
        ] or "go on"  # fmt: skip
    said.append(sdk.models.count_tokens(model="policy", contents="né").total_tokens)


converse(stream=False)
converse(stream=True)
print(json.dumps([said, [model.name for model in sdk.models.list()]]))
