"""What `bench a2a` measures: an agent, requests and replies, subscribers, and an agent's backlog.

`agent`, `requests` and `subscribers` are processes of their own, which `a2a` starts.
"""
