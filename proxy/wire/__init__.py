"""Reading an engine's reply: from bytes to token ids, log probabilities and words. Pure.

`sse` cuts a stream into events, `shapes` brings engines' and gateways' shapes into OpenAI's, `body`
decodes them, `tool_calls` and `merge` put a stream's pieces together, `finish_reasons` says whether
a reply has ended well, `media` whether it is more than text. `reply` drives them all.
"""
