"""One model call, from its request to its end, in seven steps.

`handler` drives. It admits a call (`commit` knows whether the log takes turns), parses its request
(a dialect does), and lets it enter its episode as a `call`. `retries` have their reply already.
For any other, `render` makes the prompt, and `engine_request` asks the engines: `stream` passes a
streamed answer on, with `keepalive` for its silences. `capture` makes turns of the answer, `commit`
records them in the log, and `agent_replies` releases what the agent gets. `side_calls` tells calls
beside the task from the others; `token_count` serves a dialect's counting.

A reply is an `EngineAnswer`, then for each of its choices a `CapturedReply`, whose parts are a
turn's own structs, then a `TurnDraft`; the drafts and what the agent gets are a `RecordedReply`.
"""
