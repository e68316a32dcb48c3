"""The agent host: an A2A server whose transport is Kafka.

`host` owns partitions of requests and hands each request to `server`, which `assemble` puts
together. Messages become attempts, which `attempt_runner` plays. `recovery` ends what a
predecessor left. `tasks` is what the host knows of its tasks, and answers what is asked about
them. `replies` answers who asked, `card` says what the agent is.
"""
