"""The proxy between agents and the engine: every model call is in the log before it is over.

`process` starts a `server` around `app`, whose routes hand a request to `calls.handler`. `auth`
says whose call it is, `dialects` reads it, `episodes` holds what is known of its episode, `engines`
answers it, `wire` reads the answer, `log` makes the turn durable; only then does `calls` let the
agent see its end. `seal` ends an episode. Imports point from `calls` to `log`, `episodes`,
`engines`, `dialects` and `wire`, never back.
"""
