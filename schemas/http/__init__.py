"""The HTTP surfaces inside an installation, as types: who sends what, and in which unit.

`seal` is between a host and the proxy. `engine` lists the routes that the proxy and the trainer ask
of an engine, and what an engine may be able to do; `reply` is what the proxy reads of its replies,
`weights` what the trainer sends. `contract` prints all of it: `odradek engine contract`.
"""
