"""For programs outside: publish tasks and rewards, subscribe to topics, deploy tasks."""

from odradek.infra.client.deploy import TaskResult, deploy
from odradek.infra.client.publish import (
    fresh,
    publish_reward,
    publish_task,
    publish_tasks,
    warn,
)
from odradek.infra.client.subscribe import records, subscribe

__all__ = [
    "TaskResult",
    "deploy",
    "fresh",
    "publish_reward",
    "publish_task",
    "publish_tasks",
    "records",
    "subscribe",
    "warn",
]
