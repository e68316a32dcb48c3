"""Tools of all dialects as functions of a chat: what they are called there, and back.

`names` decides what the engine's function for a tool is called, `freeform` wraps tools that take
text and unwraps their calls, `hosted` keeps what no engine has. The translated dialects drive these
three themselves; `chat` does it for chat completions.
"""
