"""Push: an agent's events posted to webhooks, at least once and in order for each task.

Hosts keep A2A's push notification configs (`operations` over `configs`). A `worker` reads the
events of an agent and asks its `targets` who wants each one: the webhooks of those configs, or the
one of a subscription. What is to be posted when, and what is given up, `deliveries` decides, which
is pure.
`sender` posts, signed by `signatures`, to addresses that `addresses` and `resolver` have vetted.
`process` is what `odradek push` and `odradek subscribe` run.
"""
