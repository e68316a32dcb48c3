"""The agent host: an A2A server whose transport is Kafka.

`host` owns `partition`s of requests and hands each request to `server`, which starts attempts;
`recovery` ends what a predecessor left, by the `task_index` of its snapshots. `replies` answers who
asked, `card` describes the agent, `task_ids` makes the SDK use ids that follow from the request.
"""
