"""LangChain's ChatOpenAI: tools, streamed and not, on chat completions and on Responses."""

import json

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def look(at: str) -> str:
    """Look somewhere."""
    return f"seen {at}"


said = []
for responses in (False, True):
    model = ChatOpenAI(model="policy", use_responses_api=responses).bind_tools([look])
    for stream in (False, True):
        messages = [HumanMessage("né?")]
        for _ in range(2):
            if stream:
                whole = None
                for chunk in model.stream(messages):
                    whole = chunk if whole is None else whole + chunk
            else:
                whole = model.invoke(messages)
            said.append(whole.text if isinstance(whole.text, str) else whole.text())
            messages.append(whole)
            for call in whole.tool_calls:
                said.append([call["name"], call["args"]])
                messages.append(ToolMessage(look.invoke(call["args"]), tool_call_id=call["id"]))
print(json.dumps(said))
