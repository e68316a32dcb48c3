"""Tasks on Kafka for A2A servers of the SDK's own, with no host of ours: its two seams.

`task_store` compares and sets, `event_stream` shows a task's events at every replica, and
`task_log` is the agent's log as they both read it.
"""
