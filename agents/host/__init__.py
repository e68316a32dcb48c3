"""The agent host: an A2A server whose transport is Kafka.

`host` owns `partition`s of requests and hands each request to `server`. Messages become attempts,
which `attempt_runner` plays; `tasks` answers what is asked about tasks. `recovery` ends what a
predecessor left, by the `task_index` of its snapshots. `replies` answers who asked, `card` says
what the agent is, `task_ids` makes the SDK use ids that follow from the request.
"""
