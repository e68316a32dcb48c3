"""The proxy's memory of episodes: each in one `episode`, all of them in the `registry`.

`history` finds what is new in a request against the acked turns before it; `prefix_reuse` makes the
next prompt from their token ids (pure); `draft` is a reply on its way into the log; `budget` holds
a call against what its episode may use.
"""
