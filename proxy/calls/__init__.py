"""One model call, from its request to its end.

`handler` drives: it makes a `call`, asks whether `retries` have its reply already, lets `render`
make the prompt and `engine_request` send it. `stream` passes a streamed reply on, with `keepalive`
for its silences; `commit` puts the turns into the log, and `agent_replies` makes what the agent
gets. `budget` holds a call against what its episode may use, `side_calls` tells calls beside the
task from the others; `token_count` serves a dialect's counting.
"""
