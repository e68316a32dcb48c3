"""Subscriptions: an agent's events as they come, from where one was, with none left out.

`event` is what a subscriber gets of a record, `position` where it is in all partitions. `subscribe`
reads alone, from a time or a position, or as a member of a group, whose `progress` Kafka keeps.
The same progress serves the delivery of events to webhooks (`odradek.agents.push`).
"""
